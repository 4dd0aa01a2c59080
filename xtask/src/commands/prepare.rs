//! `cargo xtask prepare`, and the corpora that `train` prepares.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Error, Result, anyhow, ensure};
use block_transformer_collectives::{Alone, Collective};
use block_transformer_datasets::{
    CorpusRequest, DatasetError, PreparedCorpus, ReadOptions, SHARD_TOKENS, TokenizerChoice,
    inside_project, prepare_corpus_on,
};
use block_transformer_text::TextError;
use bytesize::ByteSize;

use crate::progress::PrepareMeter;
use crate::{counts, job, paths};

/// The error of a missing corpus outside this project.
pub(super) const CORPUS_NEEDED: &str = "--corpus: needed outside the project's own folder; give a text file, \
     a folder, or the name of a recipe such as tinyshakespeare";

/// Arguments of `prepare`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Recipe, folder, Megatron .idx/.bin pair, or files of text, .jsonl or .parquet: paths or patterns
    /// such as 'pile/*.jsonl.zst'; text and .jsonl can end with .gz or .zst [default in this project:
    /// dependencies]
    #[arg(long, num_args = 1..)]
    corpus: Vec<String>,
    /// Key of the text in the lines of .jsonl files, and column of .parquet files
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_key: String,
    /// Largest document; in .jsonl also the longest line
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = counts::memory)]
    max_document: ByteSize,
    /// Tokens per token file of a large corpus
    #[arg(long, value_name = "N", default_value_t = SHARD_TOKENS, value_parser = counts::shard_tokens())]
    shard_tokens: u64,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    /// Folder to write [default: data/NAME-HASH; an existing one is used again]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Folder of prepared corpora and downloads
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
}

/// The choice of a tokenizer.
#[derive(clap::Args, Default)]
#[group(multiple = false)]
pub(super) struct TokenizerArgs {
    /// A `tokenizer.json` with the special ids of the GPT-NeoX tokenizer
    #[arg(long, value_name = "FILE", help_heading = "Tokenizer")]
    tokenizer: Option<PathBuf>,
    /// Train a byte-level BPE with this many ids on the corpus [default: 2048]
    #[arg(long, value_name = "N", help_heading = "Tokenizer")]
    vocab_size: Option<usize>,
    /// One id per byte
    #[arg(long, help_heading = "Tokenizer")]
    byte_level: bool,
}

impl TokenizerArgs {
    /// The tokenizer given by a flag, if any.
    pub(super) fn choice(&self) -> Option<TokenizerChoice> {
        let bytes = self.byte_level.then_some(TokenizerChoice::Bytes);
        let file = || self.tokenizer.clone().map(TokenizerChoice::File);
        bytes.or_else(file).or_else(|| self.vocab_size.map(TokenizerChoice::Bpe))
    }
}

impl Args {
    /// Prepares the corpus and prints its sizes.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let tokenizer = self.tokenizer.choice().unwrap_or(TokenizerChoice::Bpe(2048));
        check_tokenizer("--tokenizer", Some(&tokenizer))?;
        let ranks = job::join()?;
        if ranks.rank() == 0 {
            self.check_folder()?;
        }
        let mut corpus = self.corpus;
        if corpus.is_empty() {
            corpus.push(default_corpus().context(CORPUS_NEEDED)?);
        }
        let request = CorpusRequest {
            corpus: &corpus,
            options: &ReadOptions {
                text_key: self.text_key,
                max_document: self.max_document.as_u64(),
            },
            shard_tokens: self.shard_tokens,
            tokenizer: &tokenizer,
            data: &self.data,
            out: self.out.as_deref(),
        };
        let corpus = prepared_on(&*ranks, &request)?;
        say!("{}", summary(&corpus));
        Ok(ExitCode::SUCCESS)
    }

    /// Checks the folder that will be written.
    fn check_folder(&self) -> Result<()> {
        let Some(out) = &self.out else { return paths::cache_folder("--data", &self.data) };
        let taken = PreparedCorpus::exists(out);
        let shown = out.display();
        ensure!(!taken, "--out {shown}: holds a prepared corpus already; give another folder");
        paths::output_folder("--out", out)
    }
}

/// The corpus if none is given: the dependencies of this project. In another project there is no
/// default, so that its dependencies are never used.
pub(super) fn default_corpus() -> Option<String> {
    inside_project().then(|| "dependencies".into())
}

/// Describes a corpus in one line.
pub(super) fn summary(corpus: &PreparedCorpus) -> String {
    let info = &corpus.info;
    format!(
        "corpus {}: {} + {} documents, {} + {} tokens (training + validation); token-frequency loss \
         {:.4}; in {}",
        info.name,
        info.train.documents,
        info.validation.documents,
        info.train.tokens,
        info.validation.tokens,
        info.frequency_loss,
        corpus.dir.display(),
    )
}

/// Prepares a corpus, with progress on stderr.
pub(super) fn prepared(request: &CorpusRequest<'_>) -> Result<PreparedCorpus> {
    prepared_on(&Alone, request)
}

/// Prepares a corpus on all ranks, with progress on stderr.
fn prepared_on(ranks: &dyn Collective, request: &CorpusRequest<'_>) -> Result<PreparedCorpus> {
    let mut meter = PrepareMeter::new();
    let mut announced = false;
    let corpus = prepare_corpus_on(ranks, request, &mut |at| {
        if !announced {
            note!("preparing {}", request.corpus.join(", "));
            announced = true;
        }
        meter.show(at);
    });
    meter.finish();
    corpus.map_err(with_flags)
}

/// What to give as a tokenizer.
const TOKENIZER_REMEDY: &str = "give --tokenizer a tokenizer.json";

/// Checks that the file of a tokenizer is there. `flag` is the origin of its path.
pub(super) fn check_tokenizer(flag: &str, choice: Option<&TokenizerChoice>) -> Result<()> {
    match choice {
        Some(TokenizerChoice::File(path)) => paths::input_file(flag, path, TOKENIZER_REMEDY),
        _ => Ok(()),
    }
}

/// Returns whether `corpus` is a prepared folder.
pub(super) fn is_prepared(corpus: &str) -> bool {
    PreparedCorpus::exists(Path::new(corpus))
}

/// Adds to an error about a corpus the flag that remedies it.
pub(crate) fn with_flags(error: DatasetError) -> Error {
    let remedy = match &error {
        DatasetError::UnknownRecipe { .. } => "give --corpus one of them, or a path",
        DatasetError::Download { .. } => "give --corpus a path of your own",
        DatasetError::Checksum { .. } | DatasetError::ByHand { .. } => "give its path to --corpus",
        DatasetError::LongDocument { .. } => "raise --max-document, or shorten the document",
        DatasetError::NoColumn { .. } => "give --text-key one of them",
        DatasetError::Pattern { .. } => "give --corpus another path or pattern",
        DatasetError::OtherPreparation { .. } => "--out names another folder",
        DatasetError::TooManyShards { .. } => "raise --shard-tokens",
        DatasetError::NoFile(_) => "give --corpus a folder that contains text files",
        DatasetError::NotAFile(_) => "give --corpus a text file or a folder",
        DatasetError::CargoMetadata { .. }
        | DatasetError::NoManifest
        | DatasetError::NoDependency(_) => "or give --corpus a path",
        DatasetError::TokenizerFileNeeded(_) | DatasetError::UnknownId { .. } => {
            "give it with --tokenizer FILE"
        }
        DatasetError::Text(TextError::VocabularyTooSmall(_)) => "raise --vocab-size",
        DatasetError::Text(TextError::SpecialToken { .. }) => "--vocab-size N trains one",
        DatasetError::Text(TextError::NotATokenizer { .. }) => TOKENIZER_REMEDY,
        DatasetError::LessThanOneWindow { .. } => "lower --context",
        _ => return error.into(),
    };
    with_remedy(error, remedy)
}

/// Adds a remedy to an error. A file that cannot be downloaded can also be put in its place by hand.
pub(super) fn with_remedy(error: DatasetError, remedy: &str) -> Error {
    let by_hand = match &error {
        DatasetError::Download { path, .. } => {
            format!("download the file elsewhere to {}, or ", path.display())
        }
        _ => String::new(),
    };
    anyhow!("{:#}; {by_hand}{remedy}", Error::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_download_names_the_path_and_the_flag() {
        let source = std::io::Error::other("no route to host").into();
        let (url, path) = ("https://example.org/book".into(), PathBuf::from("data/book.txt"));
        let error = format!("{:#}", with_flags(DatasetError::Download { url, path, source }));
        assert_eq!(error.matches("no route to host").count(), 1, "{error}");
        assert!(error.contains("book.txt") && error.contains("--corpus"), "{error}");
    }
}
