//! `bench`

mod decode;
mod output;
mod own_server;
mod prepare;
mod sequences;
mod serve;

use std::process::ExitCode;

use anyhow::Result;
use block_transformer_bench::StepKind;
use clap::Subcommand;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Decoding of several models in turn: prompts with continuations, or decoding after a context
    Decode(Box<decode::Args>),
    /// The loss of whole sequences, without gradients
    Eval(sequences::Args),
    /// Tokens per second of `prepare` by the number of threads, beside the batch encoding of the `tokenizers`
    /// library
    Prepare(prepare::Args),
    /// The server under load over HTTP: times to the first token and between tokens, by rate or by the number of
    /// streams
    Serve(Box<serve::Args>),
    /// Whole training steps: forward pass, backward pass, clipping, AdamW
    Train(sequences::Args),
}

impl Args {
    /// Runs the benchmark and prints a table.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.what {
            What::Decode(args) => args.run(),
            What::Eval(args) => args.run(StepKind::Evaluation),
            What::Prepare(args) => args.run(),
            What::Serve(args) => args.run(),
            What::Train(args) => args.run(StepKind::Training),
        }
    }
}
