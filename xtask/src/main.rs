//! The commands: `cargo xtask COMMAND` in a checkout, `block-transformer COMMAND` installed.

/// Prints a line to stdout. A failure to write it makes the command fail at its end.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write;
        $crate::output::written(writeln!(std::io::stdout(), $($line)*));
    }};
}

/// Prints a line to stderr if possible; `eprintln` would panic.
macro_rules! note {
    ($($line:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($line)*);
    }};
}

mod commands;
mod counts;
mod device;
mod output;
mod paths;
mod program;
mod progress;

use std::process::ExitCode;

use block_transformer_device::keep_freed_memory;
use block_transformer_training::is_out_of_memory;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, Parser};

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
    let command = parsed().command;
    // The command runs on a thread of the pool, which starts its share of a parallel operation at
    // once. Any other thread would first wake a thread of the pool, and then wait to be woken.
    let _ = rayon::ThreadPoolBuilder::new().stack_size(STACK).build_global();
    let code = rayon::scope(|_| command.run()).unwrap_or_else(|error| {
        note!("error: {}", with_causes(&error));
        ExitCode::FAILURE
    });
    let Some(error) = output::failure() else { return code };
    note!("error: cannot write to stdout: {error}; send the output to another place");
    ExitCode::FAILURE
}

/// Keeps quiet about the panics that training turns into errors.
fn hide_caught_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !is_out_of_memory(panic.payload()) {
            hook(panic);
        }
    }));
}

/// Parses the command line.
fn parsed() -> Cli {
    let mut matches: ArgMatches = with_negative_numbers(Cli::command()).get_matches();
    Cli::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit())
}

/// Lets every value be a negative number, so that the error about it names the flag.
fn with_negative_numbers(command: Command) -> Command {
    let takes = |arg: Arg| {
        let takes_values = arg.get_action().takes_values();
        if takes_values { arg.allow_negative_numbers(true) } else { arg }
    };
    command.mut_args(takes).mut_subcommands(with_negative_numbers)
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
