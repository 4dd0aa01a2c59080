//! One module per command.

mod bench;
mod curves;
mod doctor;
mod eval;
mod eval_pg19;
mod export;
mod generate;
mod gpu_check;
mod gpu_tests;
mod import;
mod inputs;
mod memory;
mod models;
mod ngrams;
mod parity;
mod plan;
mod plan_ranks;
mod plan_scaling;
mod plan_training;
mod prepare;
mod presets;
mod serve;
mod sources;
mod study;
mod train;
mod uptrain;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Subcommands {
    /// Measure the speed and memory of decoding, losses and training steps
    Bench(bench::Args),
    /// Draw the validation losses of several runs into one picture
    Curves(curves::Args),
    /// Find out which devices of this machine can be used, and what is missing for the others
    Doctor(doctor::Args),
    /// Score checkpoints on tasks and texts
    Eval(eval::Args),
    /// Measure loss by position and perplexity on long books, for one checkpoint or several
    EvalPg19(eval_pg19::Args),
    /// Write a checkpoint as a folder for the Python world, or its weights as a file
    Export(export::Args),
    /// Continue texts with a trained model
    Generate(generate::Args),
    /// Check a GPU against the processor, and write a report
    GpuCheck(gpu_check::Args),
    /// Run the tests of the GPU code that need no GPU, in a checkout
    GpuTests(gpu_tests::Args),
    /// Import published weights, by file, folder, name or hub id, into a checkpoint
    Import(import::Args),
    /// List the published weights that `import` knows by name
    Models(models::Args),
    /// Count the n-grams of a prepared corpus, from which `generate` guesses tokens
    Ngrams(ngrams::Args),
    /// Compare models with recorded outputs of the published implementation
    Parity(parity::Args),
    /// Predict speed, memory and the largest batch of presets on a machine
    Plan(plan::Args),
    /// Tokenize a corpus, as `train` does before it starts
    Prepare(prepare::Args),
    /// List the presets with their sizes
    Presets(presets::Args),
    /// Answer requests over HTTP, with the completions interface of OpenAI
    Serve(Box<serve::Args>),
    /// Train, measure and draw a study: a question of the paper with its runs, figures and claims
    Study(Box<study::Args>),
    /// Train a model, or resume its training
    Train(Box<train::Args>),
    /// Make a Block Transformer from a vanilla model, and train it
    Uptrain(Box<uptrain::Args>),
}

impl Subcommands {
    /// Runs the command, and returns its exit code.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Bench(args) => args.run(),
            Self::Curves(args) => args.run(),
            Self::Doctor(args) => args.run(),
            Self::Eval(args) => args.run(),
            Self::EvalPg19(args) => args.run(),
            Self::Export(args) => args.run(),
            Self::Generate(args) => args.run(),
            Self::GpuCheck(args) => args.run(),
            Self::GpuTests(args) => args.run(),
            Self::Import(args) => args.run(),
            Self::Models(args) => args.run(),
            Self::Ngrams(args) => args.run(),
            Self::Parity(args) => args.run(),
            Self::Plan(args) => args.run(),
            Self::Prepare(args) => args.run(),
            Self::Presets(args) => args.run(),
            Self::Serve(args) => args.run(),
            Self::Study(args) => args.run(),
            Self::Train(args) => args.run(),
            Self::Uptrain(args) => args.run(),
        }
    }
}
