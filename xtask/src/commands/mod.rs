//! One module a command.

mod presets;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// List the presets with their sizes
    Presets(presets::Args),
}

impl Command {
    /// Runs the command to its exit code.
    pub fn run(self) -> Result<ExitCode> {
        match self {
            Self::Presets(args) => args.run(),
        }
    }
}
