//! `cargo xtask bench`

mod case;
mod decode;
mod engine;
mod figures;
mod peaks;
mod report;
mod sequences;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

pub use peaks::Peaks;
pub use report::{aligned, number, size};

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Decoding: prompts and continuations, or tokens at a depth, of several models in turn
    Decode(Box<decode::Args>),
    /// The loss of whole sequences, without gradients
    Eval(sequences::Args),
    /// Whole training steps: forward, backward, clipping, AdamW
    Train(sequences::Args),
}

impl Args {
    /// Runs the benchmark and prints a table.
    pub fn run(self) -> Result<ExitCode> {
        match self.what {
            What::Decode(args) => args.run(),
            What::Eval(args) => args.run(sequences::Kind::Eval),
            What::Train(args) => args.run(sequences::Kind::Train),
        }
    }
}
