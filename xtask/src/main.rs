//! The commands: `cargo xtask COMMAND` in a checkout, `block-transformer COMMAND` installed.

/// Prints a line to stdout. A reader that has closed the pipe, such as `head`, is not an error.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($line)*);
    }};
}

/// Prints a line to stderr, like `say`; `eprintln` would panic.
macro_rules! note {
    ($($line:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($line)*);
    }};
}

mod commands;
mod counts;
mod device;
mod program;
mod progress;

use std::process::ExitCode;

use block_transformer_device::keep_freed_memory;
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
    let command = Cli::parse().command;
    // The command runs on a thread of the pool, which starts its share of a parallel operation at
    // once. Any other thread would first wake a thread of the pool, and then wait to be woken.
    let _ = rayon::ThreadPoolBuilder::new().stack_size(STACK).build_global();
    rayon::scope(|_| command.run()).unwrap_or_else(|error| {
        note!("error: {}", with_causes(&error));
        ExitCode::FAILURE
    })
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
