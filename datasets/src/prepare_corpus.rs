//! Preparation of a corpus, given by a path or a name, in a cache folder.

use std::path::{Path, PathBuf};

use block_transformer_collectives::{Alone, Collective, of_rank_0, rank_0_first};
use block_transformer_text::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::cache_name::CacheName;
use crate::corpus::{CorpusInfo, PreparedCorpus};
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
    prepare_corpus_on(&Alone, request, progress)
}

/// [`prepare_corpus`] on several ranks, with the files of one rank. Rank 0 downloads, trains a tokenizer and writes
/// the folder; all ranks read the documents and share their tokenization. A Megatron pair is prepared by rank 0.
///
/// # Errors
/// Those of [`prepare_corpus`], and if a rank has other files, another tokenizer, or has left.
pub fn prepare_corpus_on(
    ranks: &dyn Collective,
    request: &CorpusRequest<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<PreparedCorpus, DatasetError> {
    let first = request.corpus.first().map_or("", String::as_str);
    let (path, name) = (Path::new(first), name(Path::new(first)));
    let without_documents = || prepared_without_documents(request, path, &name, progress);
    let known: Option<Known> = of_rank_0(ranks, without_documents)?;
    if let Some(known) = known {
        return Ok(known.into());
    }
    let source = rank_0_first(ranks, || source(request, progress))?;
    // an unusable tokenizer file is reported before any text is read
    let tokenizer = match request.tokenizer {
        TokenizerChoice::Bytes => Ok(Tokenizer::Bytes),
        TokenizerChoice::File(path) => Ok(Tokenizer::load(path)?),
        TokenizerChoice::Bpe(size) => Err(*size),
    };
    let dir = documents_folder(request, &source, &tokenizer, &name)?;
    let mut lock = None;
    let known: Option<Known> = of_rank_0(ranks, || {
        if !PreparedCorpus::exists(&dir) {
            lock = Some(FolderLock::wait(&dir)?);
        }
        // another process may have prepared it in the meantime
        match PreparedCorpus::exists(&dir) {
            true => PreparedCorpus::open(&dir).map(|corpus| Some(corpus.into())),
            false => Ok(None),
        }
    })?;
    if let Some(known) = known {
        return Ok(known.into());
    }
    progress(Progress { total: source.bytes()?, ..Progress::default() });
    let tokenizer = tokenizer.or_else(|size| shared_tokenizer(ranks, &source, size))?;
    let shard_tokens = request.shard_tokens;
    let (source, tokenizer, dir) = (&source, &tokenizer, &*dir);
    Preparation { name: &name, source, tokenizer, dir, shard_tokens }.run_on(ranks, progress)
}

/// A prepared corpus that rank 0 knows.
#[derive(Serialize, Deserialize)]
struct Known {
    dir: PathBuf,
    info: CorpusInfo,
}

impl From<PreparedCorpus> for Known {
    fn from(PreparedCorpus { dir, info }: PreparedCorpus) -> Self {
        Self { dir, info }
    }
}

impl From<Known> for PreparedCorpus {
    fn from(Known { dir, info }: Known) -> Self {
        Self { dir, info }
    }
}

/// A prepared folder, or a corpus of a Megatron pair; `None` for a corpus of documents.
fn prepared_without_documents(
    request: &CorpusRequest<'_>,
    path: &Path,
    name: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<Known>, DatasetError> {
    let is_one = request.corpus.len() == 1;
    if is_one && PreparedCorpus::exists(path) {
        return PreparedCorpus::open(path).map(|corpus| Some(corpus.into()));
    }
    if let (true, Some("idx" | "bin")) = (is_one, path.extension().and_then(|e| e.to_str())) {
        return megatron(request, path, name, progress).map(|corpus| Some(corpus.into()));
    }
    Ok(None)
}

/// The documents of the corpus, which are downloaded if necessary.
fn source(
    request: &CorpusRequest<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<DocumentSource, DatasetError> {
    let source = if let [path] = request.corpus {
        let downloads = request.data.join("downloads");
        resolve(path, &downloads, &mut |done, total| {
            progress(Progress { done, total, ..Progress::default() });
        })?
    } else {
        DocumentSource::open_all(request.corpus)?
    };
    Ok(source.with_options(request.options.clone()))
}

/// The folder of a corpus of documents. Without a tokenizer, one of a number of ids will be trained.
fn documents_folder(
    request: &CorpusRequest<'_>,
    source: &DocumentSource,
    tokenizer: &Result<Tokenizer, usize>,
    name: &str,
) -> Result<PathBuf, DatasetError> {
    let mut cache_name = CacheName::default();
    cache_name.add(env!("CARGO_PKG_VERSION"));
    source.files().iter().try_for_each(|path| cache_name.add_file(path))?;
    match tokenizer {
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
    Ok(folder(request, &cache_name, name))
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

/// The tokenizer that rank 0 trains, on all ranks.
fn shared_tokenizer(
    ranks: &dyn Collective,
    source: &DocumentSource,
    size: usize,
) -> Result<Tokenizer, DatasetError> {
    if ranks.size() == 1 {
        return train_tokenizer(source, size);
    }
    let json = || Ok(train_tokenizer(source, size)?.to_json()?);
    let json: String = of_rank_0::<_, DatasetError>(ranks, json)?;
    Ok(Tokenizer::from_json(&json, Path::new("tokenizer of rank 0"))?)
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
