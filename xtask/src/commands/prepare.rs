//! `cargo xtask prepare`, and the corpora `train` prepares by itself.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use block_transformer_text::{
    DocumentSource, PrepareOptions, PreparedCorpus, Tokenizer, prepare, prepare_megatron,
};
use block_transformer_training::TokenizerChoice;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Text a tokenizer is trained on, at most: more changes little.
const TOKENIZER_BYTES: usize = 32 << 20;

/// Arguments of `prepare`.
#[derive(clap::Args)]
pub struct Args {
    /// Recipe, text file, .jsonl file, folder, or Megatron .idx/.bin pair
    #[arg(long, default_value = "dependencies")]
    corpus: String,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    /// Folder to write [default: data/NAME-HASH, and nothing to do if it is there]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Folder of prepared corpora and downloads
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
}

/// Which tokenizer.
#[derive(clap::Args, Default)]
#[group(multiple = false)]
pub struct TokenizerArgs {
    /// A `tokenizer.json` with the special ids of the GPT-NeoX tokenizer
    #[arg(long, value_name = "FILE", help_heading = "Tokenizer")]
    tokenizer: Option<PathBuf>,
    /// Train a byte-level BPE of this many ids on the corpus [default: 2048]
    #[arg(long, value_name = "N", help_heading = "Tokenizer")]
    vocab_size: Option<usize>,
    /// One id a byte
    #[arg(long, help_heading = "Tokenizer")]
    byte_level: bool,
}

impl TokenizerArgs {
    /// What was asked for, if anything.
    pub fn choice(&self) -> Option<TokenizerChoice> {
        let bytes = self.byte_level.then_some(TokenizerChoice::Bytes);
        let file = || self.tokenizer.clone().map(TokenizerChoice::File);
        bytes.or_else(file).or_else(|| self.vocab_size.map(TokenizerChoice::Bpe))
    }
}

impl Args {
    /// Prepares the corpus and says what is in it.
    pub fn run(self) -> Result<ExitCode> {
        let choice = self.tokenizer.choice().unwrap_or(TokenizerChoice::Bpe(2048));
        if let Some(out) = &self.out {
            let taken = out.join("corpus.json").exists();
            ensure!(!taken, "--out {}: holds a prepared corpus already", out.display());
        }
        let corpus = prepared(&self.corpus, &choice, &self.data, self.out.as_deref())?;
        say!("{}", summary(&corpus));
        Ok(ExitCode::SUCCESS)
    }
}

/// One line on a corpus.
pub fn summary(corpus: &PreparedCorpus) -> String {
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

/// `corpus`, which may be a prepared folder, with the tokenizer of `choice`; prepared into `out`, or
/// into a folder of `data` named after everything it depends on.
pub fn prepared(
    corpus: &str,
    choice: &TokenizerChoice,
    data: &Path,
    out: Option<&Path>,
) -> Result<PreparedCorpus> {
    if is_prepared(corpus) {
        return Ok(PreparedCorpus::open(Path::new(corpus))?);
    }
    let bar = progress();
    if let Some("idx" | "bin") = Path::new(corpus).extension().and_then(|e| e.to_str()) {
        return megatron(Path::new(corpus), choice, data, out, &bar);
    }
    let source = block_transformer_datasets::resolve(corpus, &data.join("downloads"), &bar)?;
    // a wrong tokenizer file is told before anything is read
    let ready = match choice {
        TokenizerChoice::Bytes => Some(Tokenizer::Bytes),
        TokenizerChoice::File(path) => Some(Tokenizer::load(path)?),
        TokenizerChoice::Bpe(_) => None,
    };
    let stem = Path::new(corpus).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = if stem.is_empty() { "corpus".to_string() } else { stem };
    let dir = match out {
        Some(out) => out.to_path_buf(),
        None => data.join(format!("{name}-{:016x}", fingerprint(&source, choice, &ready)?)),
    };
    if dir.join("corpus.json").exists() {
        return Ok(PreparedCorpus::open(&dir)?);
    }
    eprintln!("preparing {corpus} in {}", dir.display());
    let tokenizer = match (ready, choice) {
        (None, TokenizerChoice::Bpe(size)) => train_tokenizer(&source, *size)?,
        (ready, _) => ready.context("no tokenizer")?,
    };
    Ok(prepare(&name, &source, &tokenizer, &dir, PrepareOptions::default(), &bar)?)
}

/// A Megatron pair, whose ids stay where they are.
fn megatron(
    path: &Path,
    choice: &TokenizerChoice,
    data: &Path,
    out: Option<&Path>,
    bar: &ProgressBar,
) -> Result<PreparedCorpus> {
    let TokenizerChoice::File(file) = choice else {
        bail!(
            "--corpus {}: holds ids, not text; name the tokenizer they are of with --tokenizer FILE",
            path.display()
        );
    };
    let tokenizer = Tokenizer::load(file)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut hash = DefaultHasher::new();
    for path in [path.with_extension("idx"), path.with_extension("bin")] {
        let named = || path.display().to_string();
        let meta = std::fs::metadata(&path).with_context(named)?;
        (path.canonicalize().with_context(named)?, meta.len(), meta.modified().ok())
            .hash(&mut hash);
    }
    tokenizer.fingerprint().hash(&mut hash);
    let dir = match out {
        Some(out) => out.to_path_buf(),
        None => data.join(format!("{stem}-{:016x}", hash.finish())),
    };
    if dir.join("corpus.json").exists() {
        return Ok(PreparedCorpus::open(&dir)?);
    }
    Ok(prepare_megatron(path, &tokenizer, &dir, PrepareOptions::default(), bar)?)
}

/// Whether `corpus` is a folder that was prepared before.
pub fn is_prepared(corpus: &str) -> bool {
    Path::new(corpus).join("corpus.json").exists()
}

/// A BPE trained on the first of the documents.
fn train_tokenizer(source: &DocumentSource, size: usize) -> Result<Tokenizer> {
    let (mut texts, mut bytes) = (Vec::new(), 0);
    for text in source.documents() {
        let text = text?;
        bytes += text.len();
        texts.push(text);
        if bytes >= TOKENIZER_BYTES {
            break;
        }
    }
    Ok(Tokenizer::train_bpe(texts.into_iter(), size)?)
}

/// Of everything the prepared corpus depends on: files by path, size and time, and the tokenizer.
fn fingerprint(
    source: &DocumentSource,
    choice: &TokenizerChoice,
    ready: &Option<Tokenizer>,
) -> Result<u64> {
    // `DefaultHasher::new` is SipHash with fixed keys
    let mut hash = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hash);
    for path in source.files() {
        let named = || path.display().to_string();
        let meta = std::fs::metadata(path).with_context(named)?;
        (path.canonicalize().with_context(named)?, meta.len(), meta.modified().ok())
            .hash(&mut hash);
    }
    match (choice, ready) {
        (TokenizerChoice::Bpe(size), _) => size.hash(&mut hash),
        (_, ready) => ready.as_ref().map(Tokenizer::fingerprint).hash(&mut hash),
    }
    Ok(hash.finish())
}

/// On a terminal's stderr; nowhere else.
pub fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let template = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
