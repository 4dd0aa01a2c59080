//! `cargo xtask ngrams`, and the files that it writes.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use block_transformer_datasets::{Documents, PreparedCorpus, Split};
use block_transformer_files::write;
use block_transformer_generation::NGrams;
use block_transformer_text::Tokenizer;

use crate::counts::positive;
use crate::paths;

/// The largest file that is read.
const MOST_BYTES: u64 = 256 << 20;

/// Arguments of `ngrams`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder that `prepare` or `train` has written, such as data/dependencies-1a2b
    #[arg(long, value_name = "DIR")]
    corpus: PathBuf,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The largest number of pairs, and of triples
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = positive())]
    entries: usize,
    /// Tokens to count, from the start of the training documents; each needs 32 bytes of memory
    #[arg(long, value_name = "N", default_value_t = 16_000_000, value_parser = positive())]
    tokens: usize,
}

impl Args {
    /// Counts the n-grams and writes the file.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let shown = self.corpus.display();
        ensure!(
            PreparedCorpus::exists(&self.corpus),
            "--corpus {shown}: is not a prepared corpus; give a folder that `prepare` or `train` has written"
        );
        paths::output_file("--out", &self.out)?;
        let flag = || format!("--corpus {shown}");
        let corpus = PreparedCorpus::open(&self.corpus).with_context(flag)?;
        let documents = corpus.split(Split::Train).with_context(flag)?;
        let documents = first_tokens(&*documents, self.tokens);
        let counted: usize = documents.iter().map(Vec::len).sum();
        let ids = documents.iter().map(|ids| &ids[..]);
        let ngrams = NGrams::count(ids, corpus.info.tokenizer, self.entries);
        let json = serde_json::to_string(&ngrams)?;
        write(&self.out, json.as_bytes()).context("--out")?;
        say!("{} n-grams of {counted} tokens in {}", ngrams.len(), self.out.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// The first `count` tokens of the documents.
fn first_tokens(documents: &dyn Documents, count: usize) -> Vec<Vec<u32>> {
    let mut left = count;
    (0..documents.len())
        .map(|index| {
            let length = documents.document_len(index).min(left);
            left -= length;
            let mut ids = Vec::with_capacity(length);
            documents.read(index, 0..length, &mut ids);
            ids
        })
        .collect()
}

/// Reads the file of `--ngrams`, which must belong to `tokenizer`.
pub(super) fn read(path: &Path, tokenizer: &Tokenizer) -> Result<NGrams> {
    let shown = path.display();
    paths::input_file("--ngrams", path, "write it with `ngrams`")?;
    let file = File::open(path).with_context(|| format!("--ngrams {shown}"))?;
    let size = file.metadata().with_context(|| format!("--ngrams {shown}"))?.len();
    ensure!(
        size <= MOST_BYTES,
        "--ngrams {shown}: {size} bytes; a file of n-grams has at most {MOST_BYTES}; write one with `ngrams`"
    );
    let reader = BufReader::new(file.take(MOST_BYTES));
    let ngrams: NGrams = match serde_json::from_reader(reader) {
        Ok(ngrams) => ngrams,
        Err(error) => {
            bail!("--ngrams {shown}: not a file of n-grams: {error}; write it with `ngrams`")
        }
    };
    ensure!(
        ngrams.tokenizer() == tokenizer.fingerprint()?,
        "--ngrams {shown}: counted with another tokenizer than that of the checkpoint; count the corpus \
         that the checkpoint was trained on"
    );
    Ok(ngrams)
}
