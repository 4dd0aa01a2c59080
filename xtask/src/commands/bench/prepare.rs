//! `bench prepare`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use block_transformer_bench::{TokenizingBench, tokenizing_table};
use block_transformer_datasets::{DatasetError, DocumentSource};
use block_transformer_text::Tokenizer;
use bytesize::ByteSize;

use crate::commands::prepare::with_flags;
use crate::counts::{self, positive};
use crate::paths;

/// Arguments of `bench prepare`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Files of documents: paths, folders or patterns
    #[arg(long, required = true, num_args = 1..)]
    corpus: Vec<String>,
    /// A `tokenizer.json` with the special ids of the GPT-NeoX tokenizer
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// Text to use; it is kept in memory
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = counts::memory)]
    size: ByteSize,
    /// Numbers of threads, measured in turn [default: 1, 2, 4, ... up to the cores of the machine]
    #[arg(long, value_delimiter = ',', value_name = "N,..", value_parser = positive())]
    threads: Vec<usize>,
    /// Measurements of each number of threads; the best one counts
    #[arg(long, value_name = "N", default_value = "3", value_parser = positive())]
    rounds: usize,
}

impl Args {
    /// Measures, and prints a table.
    pub(super) fn run(self) -> Result<ExitCode> {
        paths::input_file("--tokenizer", &self.tokenizer, "give a tokenizer.json")?;
        let tokenizer = Tokenizer::load(&self.tokenizer).map_err(DatasetError::from);
        let tokenizer = tokenizer.map_err(with_flags).context("--tokenizer")?;
        let source = DocumentSource::open_all(&self.corpus).map_err(with_flags)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut threads = self.threads;
        if threads.is_empty() {
            threads
                .extend(std::iter::successors(Some(1), |n| Some(2 * n)).take_while(|&n| n < cores));
            threads.push(cores);
        }
        let bytes = usize::try_from(self.size.as_u64()).unwrap_or(usize::MAX);
        let (source, tokenizer, rounds) = (&source, &tokenizer, self.rounds);
        let bench = TokenizingBench { source, tokenizer, bytes, threads, rounds };
        let dir = tempfile::tempdir().context("cannot create a temporary folder")?;
        let rows = bench.run(dir.path())?;
        say!(
            "{}\n\ntokens per second, the best of {rounds} rounds; {cores} cores",
            tokenizing_table(&rows)
        );
        Ok(ExitCode::SUCCESS)
    }
}
