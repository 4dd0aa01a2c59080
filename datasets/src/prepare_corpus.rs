//! Preparation of a corpus, given by a path or a name, in a cache folder.

use std::path::{Path, PathBuf};

use block_transformer_text::Tokenizer;

use crate::cache_name::CacheName;
use crate::corpus::PreparedCorpus;
use crate::error::DatasetError;
use crate::prepare::prepare;
use crate::prepare_megatron::prepare_megatron;
use crate::recipes::resolve;
use crate::source::DocumentSource;
use crate::tokenizer_choice::TokenizerChoice;

/// Maximum number of bytes of text on which a tokenizer is trained. More text changes it little.
const TOKENIZER_BYTES: usize = 32 << 20;

/// A corpus to prepare.
#[derive(Clone, Copy, Debug)]
pub struct CorpusRequest<'a> {
    /// A prepared folder, a Megatron `.idx` or `.bin` file, a text file, a `.jsonl` file, a folder
    /// of texts, or the name of a recipe.
    pub corpus: &'a str,
    /// The tokenizer. It is not used for a prepared folder, which contains its own.
    pub tokenizer: &'a TokenizerChoice,
    /// Folder of prepared corpora, with the subfolder `downloads`.
    pub data: &'a Path,
    /// Folder to prepare the corpus in; `None` for a subfolder of `data` with a hash of the files
    /// and the tokenizer in its name.
    pub out: Option<&'a Path>,
}

/// Prepares a corpus, or opens it if it is prepared already. Calls `progress` with the amount done
/// and the total: bytes of a download or of the text, or documents of a Megatron pair.
///
/// # Errors
/// If the corpus cannot be found, downloaded or read, the tokenizer does not fit it, or the folder
/// cannot be written.
pub fn prepare_corpus(
    request: &CorpusRequest<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PreparedCorpus, DatasetError> {
    let path = Path::new(request.corpus);
    if PreparedCorpus::exists(path) {
        return PreparedCorpus::open(path);
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    if let Some("idx" | "bin") = path.extension().and_then(|e| e.to_str()) {
        return megatron(request, path, &stem, progress);
    }
    let source = resolve(request.corpus, &request.data.join("downloads"), progress)?;
    // an unusable tokenizer file is reported before any text is read
    let tokenizer = match request.tokenizer {
        TokenizerChoice::Bytes => Ok(Tokenizer::Bytes),
        TokenizerChoice::File(path) => Ok(Tokenizer::load(path)?),
        TokenizerChoice::Bpe(size) => Err(*size),
    };
    let name = if stem.is_empty() { "corpus" } else { &*stem };
    let mut cache_name = CacheName::default();
    cache_name.add(env!("CARGO_PKG_VERSION"));
    source.files().iter().try_for_each(|path| cache_name.add_file(path))?;
    match &tokenizer {
        Ok(tokenizer) => cache_name.add(Some(tokenizer.fingerprint()?)),
        Err(size) => cache_name.add(size),
    }
    let dir = folder(request, &cache_name, name);
    if PreparedCorpus::exists(&dir) {
        return PreparedCorpus::open(&dir);
    }
    progress(0, source.bytes()?);
    let tokenizer = tokenizer.or_else(|size| train_tokenizer(&source, size))?;
    prepare(name, &source, &tokenizer, &dir, progress)
}

fn megatron(
    request: &CorpusRequest<'_>,
    path: &Path,
    name: &str,
    progress: &mut dyn FnMut(u64, u64),
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
    prepare_megatron(path, &tokenizer, &dir, progress)
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
