//! The commands: `cargo xtask COMMAND`.

/// Prints a line. A reader that has gone away, as behind `| head`, is no error.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($line)*);
    }};
}

mod bytes;
mod commands;
mod counts;
#[cfg(feature = "tui")]
mod dashboard;
mod device;
mod memory;
mod meter;

use std::process::ExitCode;

use clap::Parser;

/// Train, run, import and export Block Transformers and the vanilla transformers they are
/// measured against.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

/// Bytes of stack a thread, as much as a main thread has.
const STACK: usize = 8 << 20;

fn main() -> ExitCode {
    memory::keep_pages();
    let command = Cli::parse().command;
    // On a thread of the pool a parallel operation begins at once, with the caller's share of the
    // work; from any other it would wait for a thread to be woken, and to be woken itself.
    let _ = rayon::ThreadPoolBuilder::new().stack_size(STACK).build_global();
    match rayon::scope(|_| command.run()) {
        Ok(code) => code,
        Err(error) => {
            let mut text = error.to_string();
            for cause in error.chain().skip(1).map(ToString::to_string) {
                // most errors name their cause themselves
                if !text.contains(&cause) {
                    text = format!("{text}: {cause}");
                }
            }
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}
