//! The commands: `cargo xtask COMMAND` in a checkout, `block-transformer COMMAND` installed.

/// Prints a line to stdout. A failure to write it makes the command fail at its end.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write;
        if !$crate::output::is_silent() {
            $crate::output::written(writeln!(std::io::stdout(), $($line)*));
        }
    }};
}

/// Prints a line to stderr if possible; `eprintln` would panic.
macro_rules! note {
    ($($line:tt)*) => {{
        use std::io::Write;
        if !$crate::output::is_silent() {
            let _ = writeln!(std::io::stderr(), $($line)*);
        }
    }};
}

mod commands;
mod counts;
mod device;
mod job;
mod output;
mod paths;
mod program;
mod progress;
mod units;

use std::ffi::{OsStr, OsString};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;

use anyhow::anyhow;
use block_transformer_device::{instruction_set, keep_freed_memory};
use block_transformer_files::is_caught_as_damage;
use block_transformer_server::keep_panic;
use block_transformer_training::is_out_of_memory;
use burn::tensor::ExecutionError;
use clap::Parser;

/// Train, run, evaluate, import and export Block Transformers and vanilla transformers.
#[derive(Parser)]
#[command(name = program::name(), bin_name = program::name(), version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: commands::Subcommands,
}

/// Bytes of stack per thread. A main thread has the same size.
const STACK: usize = 8 << 20;

fn main() -> ExitCode {
    keep_freed_memory();
    hide_caught_panics();
    let code = parsed().map_or_else(|code| code, run);
    let Some(error) = output::failure() else { return code };
    output::error(&format!("cannot write to stdout: {error}; send the output to another place"));
    ExitCode::FAILURE
}

/// The error of a device without memory, where a command does not know a better one.
const OUT_OF_MEMORY: &str = "the device has too little memory; use fewer sequences at a time, shorter ones, a \
    smaller model, or bf16 for --weights and --cache";

/// Keeps quiet about the panics of a device without memory, which [`run`] or the training turns into errors, and
/// about those of damaged files.
fn hide_caught_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_caught = is_out_of_memory(panic.payload()) || is_caught_as_damage();
        // a panic of an engine ends its server with an error
        if !is_caught && !keep_panic(panic) {
            hook(panic);
        }
    }));
}

/// Runs a command, and prints its error.
fn run(cli: Cli) -> ExitCode {
    // The command runs on a thread of the pool, which starts its share of a parallel operation at
    // once. Any other thread would first wake a thread of the pool, and then wait to be woken.
    let _ = rayon::ThreadPoolBuilder::new().stack_size(STACK).build_global();
    let command = || {
        instruction_set()?;
        cli.command.run()
    };
    let result = catch_unwind(AssertUnwindSafe(|| rayon::scope(|_| command())));
    let result = result.unwrap_or_else(|panic| {
        if is_out_of_memory(&*panic) {
            return Err(anyhow!(OUT_OF_MEMORY));
        }
        job::fail_of_panic();
        resume_unwind(panic)
    });
    let code = result.unwrap_or_else(|error| {
        // some devices report it as an error, with a list of all that failed after it
        let is_full = |cause: &(dyn std::error::Error + 'static)| {
            cause.is::<ExecutionError>() && is_out_of_memory(&cause.to_string())
        };
        let full = error.chain().any(is_full);
        let text = if full { OUT_OF_MEMORY.into() } else { with_causes(&error) };
        job::fail(&error, &text);
        ExitCode::FAILURE
    });
    job::leave();
    code
}

/// Parses the command line. The exit code is that of an error, of `--help` or of `--version`, which have
/// been printed.
fn parsed() -> Result<Cli, ExitCode> {
    Cli::try_parse_from(joined(std::env::args_os())).map_err(|error| {
        // all ranks of a job have the same text, and the launcher ends them when the first has printed an error
        let printed = match job::launched_rank() {
            Some(1..) if !error.use_stderr() => Ok(()),
            Some(1..) => {
                std::thread::sleep(std::time::Duration::from_secs(4));
                error.print()
            }
            _ => error.print(),
        };
        if !error.use_stderr() {
            output::written(printed);
        }
        u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
    })
}

/// Joins each value that starts with one hyphen, such as `-5GB`, to the flag before it, so that the error
/// about the value names the flag. No flag starts with one hyphen, except `-h` and `-V`.
fn joined(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let is_value = |word: &OsStr| {
        let word = word.as_encoded_bytes();
        word.len() > 1 && word[0] == b'-' && word[1] != b'-' && !matches!(word, b"-h" | b"-V")
    };
    let is_flag = |word: &OsStr| {
        let word = word.as_encoded_bytes();
        word.len() > 2 && word.starts_with(b"--") && !word.contains(&b'=')
    };
    let (mut joined, mut only_values) = (Vec::<OsString>::new(), false);
    for word in words {
        only_values |= word == "--";
        match joined.last_mut().filter(|last| !only_values && is_value(&word) && is_flag(last)) {
            Some(flag) => {
                flag.push("=");
                flag.push(word);
            }
            None => joined.push(word),
        }
    }
    joined
}

/// Returns the error and its causes, joined with `: `.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // some errors of other crates repeat their cause
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_a_hyphen_belong_to_the_flag_before_them() {
        for (line, expected) in [
            ("plan --memory -5GB --batch 3", "plan --memory=-5GB --batch 3"),
            ("train --lr -inf --plain", "train --lr=-inf --plain"),
            ("generate --memory=1 -2", "generate --memory=1 -2"),
            ("eval --tasks -h --data -V", "eval --tasks -h --data -V"),
            ("gpu-tests -- --exact -1", "gpu-tests -- --exact -1"),
        ] {
            let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
            assert_eq!(joined(words(line).into_iter()), words(expected));
        }
    }

    #[test]
    fn the_commands_are_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
