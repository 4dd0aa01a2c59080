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
#[cfg(feature = "tui")]
mod dashboard;
mod device;
mod memory;

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

fn main() -> ExitCode {
    memory::keep_pages();
    match Cli::parse().command.run() {
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
