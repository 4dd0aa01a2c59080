//! Preparation of a corpus, given by a path or a name, in a cache folder.

use std::path::{Path, PathBuf};

use block_transformer_text::Tokenizer;

use crate::cache_name::CacheName;
use crate::corpus::PreparedCorpus;
use crate::error::DatasetError;
use crate::folder_lock::FolderLock;
use crate::prepare::{Preparation, Progress, SHARD_TOKENS};
use crate::prepare_megatron::prepare_megatron;
use crate::recipes::resolve;
use crate::source::{DocumentSource, ReadOptions, is_pattern};
use crate::tokenizer_choice::TokenizerChoice;

/// Maximum number of bytes of text on which a tokenizer is trained. More text changes it little.
const TOKENIZER_BYTES: usize = 32 << 20;

/// A corpus to prepare.
#[derive(Clone, Copy, Debug)]
pub struct CorpusRequest<'a> {
    /// A prepared folder, a Megatron `.idx` or `.bin` file, the name of a recipe, or files of
    /// documents: a file, a folder, or a pattern (see [`DocumentSource::open`]). Several are read one
    /// after the other; each of them must be files of documents.
    pub corpus: &'a [String],
    /// How documents are read.
    pub options: &'a ReadOptions,
    /// Tokens per shard.
    pub shard_tokens: u64,
    /// The tokenizer. It is not used for a prepared folder, which contains its own.
    pub tokenizer: &'a TokenizerChoice,
    /// Folder of prepared corpora, with the subfolder `downloads`.
    pub data: &'a Path,
    /// Folder to prepare the corpus in; `None` for a subfolder of `data` with a hash of the files
    /// and the tokenizer in its name.
    pub out: Option<&'a Path>,
}

/// Prepares a corpus, or opens it if it is prepared already. Continues a preparation that was
/// killed. Calls `progress` with the amount done and the total: bytes of a download or of the files,
/// or documents of a Megatron pair.
///
/// # Errors
/// If the corpus cannot be found, downloaded or read, the tokenizer does not fit it, or the folder
/// cannot be written or holds the unfinished preparation of another corpus.
pub fn prepare_corpus(
    request: &CorpusRequest<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<PreparedCorpus, DatasetError> {
    let first = request.corpus.first().map_or("", String::as_str);
    let (path, is_one) = (Path::new(first), request.corpus.len() == 1);
    if is_one && PreparedCorpus::exists(path) {
        return PreparedCorpus::open(path);
    }
    let name = name(path);
    if let (true, Some("idx" | "bin")) = (is_one, path.extension().and_then(|e| e.to_str())) {
        return megatron(request, path, &name, progress);
    }
    let source = if is_one {
        let downloads = request.data.join("downloads");
        resolve(first, &downloads, &mut |done, total| {
            progress(Progress { done, total, ..Progress::default() });
        })?
    } else {
        DocumentSource::open_all(request.corpus)?
    };
    let source = source.with_options(request.options.clone());
    // an unusable tokenizer file is reported before any text is read
    let tokenizer = match request.tokenizer {
        TokenizerChoice::Bytes => Ok(Tokenizer::Bytes),
        TokenizerChoice::File(path) => Ok(Tokenizer::load(path)?),
        TokenizerChoice::Bpe(size) => Err(*size),
    };
    let mut cache_name = CacheName::default();
    cache_name.add(env!("CARGO_PKG_VERSION"));
    source.files().iter().try_for_each(|path| cache_name.add_file(path))?;
    match &tokenizer {
        Ok(tokenizer) => cache_name.add(Some(tokenizer.fingerprint()?)),
        Err(size) => cache_name.add(size),
    }
    // without these, the names are those of corpora that were prepared before there was a choice
    if request.options.text_key != ReadOptions::default().text_key {
        cache_name.add(&request.options.text_key);
    }
    if request.shard_tokens != SHARD_TOKENS {
        cache_name.add(request.shard_tokens);
    }
    let dir = folder(request, &cache_name, &name);
    if PreparedCorpus::exists(&dir) {
        return PreparedCorpus::open(&dir);
    }
    let _lock = FolderLock::wait(&dir)?;
    // another process may have prepared it in the meantime
    if PreparedCorpus::exists(&dir) {
        return PreparedCorpus::open(&dir);
    }
    progress(Progress { total: source.bytes()?, ..Progress::default() });
    let tokenizer = tokenizer.or_else(|size| train_tokenizer(&source, size))?;
    let shard_tokens = request.shard_tokens;
    let (source, tokenizer, dir) = (&source, &tokenizer, &*dir);
    Preparation { name: &name, source, tokenizer, dir, shard_tokens }.run(progress)
}

/// The name of the corpus at `path`: the stem of the file, or of its folder if the name of the file
/// is a pattern.
fn name(path: &Path) -> String {
    let is_plain = |path: &&Path| path.exists() || !is_pattern(&path.to_string_lossy());
    let named = path.ancestors().find(is_plain).and_then(Path::file_stem);
    named.map_or_else(|| "corpus".into(), |stem| stem.to_string_lossy().into_owned())
}

fn megatron(
    request: &CorpusRequest<'_>,
    path: &Path,
    name: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<PreparedCorpus, DatasetError> {
    let TokenizerChoice::File(file) = request.tokenizer else {
        return Err(DatasetError::TokenizerFileNeeded(path.into()));
    };
    let tokenizer = Tokenizer::load(file)?;
    let mut cache_name = CacheName::default();
    for extension in ["idx", "bin"] {
        cache_name.add_file(&path.with_extension(extension))?;
    }
    cache_name.add(tokenizer.fingerprint()?);
    let dir = folder(request, &cache_name, name);
    if PreparedCorpus::exists(&dir) {
        return PreparedCorpus::open(&dir);
    }
    prepare_megatron(path, &tokenizer, &dir, &mut |done, total| {
        progress(Progress { done, total, ..Progress::default() });
    })
}

fn folder(request: &CorpusRequest<'_>, cache_name: &CacheName, name: &str) -> PathBuf {
    request.out.map_or_else(|| cache_name.folder(request.data, name), Path::to_path_buf)
}

/// Trains a BPE on the first documents.
fn train_tokenizer(source: &DocumentSource, size: usize) -> Result<Tokenizer, DatasetError> {
    let mut bytes = 0;
    let first = source.documents().take_while(|text| {
        let taken = bytes < TOKENIZER_BYTES;
        bytes += text.as_ref().map_or(0, String::len);
        taken
    });
    let texts: Vec<String> = first.collect::<Result<_, _>>()?;
    Ok(Tokenizer::train_bpe(texts.into_iter(), size)?)
}
