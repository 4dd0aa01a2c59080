//! One module a command.

mod bench;
mod parity;
mod presets;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Measure speed and memory
    Bench(bench::Args),
    /// Compare models with recorded outputs of the published implementation
    Parity(parity::Args),
    /// List the presets with their sizes
    Presets(presets::Args),
}

impl Command {
    /// Runs the command to its exit code.
    pub fn run(self) -> Result<ExitCode> {
        match self {
            Self::Bench(args) => args.run(),
            Self::Parity(args) => args.run(),
            Self::Presets(args) => args.run(),
        }
    }
}
