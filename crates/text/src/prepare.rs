//! Text in, token files out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::megatron_corpus::Share;
use crate::{
    DocumentSource, Documents, MegatronFile, TextError, TokenFile, TokenFileWriter, Tokenizer,
};

/// Bytes of text tokenized at a time: enough for every core, little enough for any memory.
const CHUNK: usize = 8 << 20;

/// How a corpus is prepared.
#[derive(Clone, Copy, Debug)]
pub struct PrepareOptions {
    /// Share of documents held out for validation, between 0 and 1.
    pub validation: f64,
}

impl Default for PrepareOptions {
    fn default() -> Self {
        Self { validation: 0.05 }
    }
}

/// One split of a prepared corpus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitInfo {
    /// Documents.
    pub documents: u64,
    /// Tokens, EOS not counted.
    pub tokens: u64,
    /// Bytes of text.
    pub bytes: u64,
}

/// What `corpus.json` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CorpusInfo {
    /// What was prepared.
    pub name: String,
    /// Fingerprint of the tokenizer.
    pub tokenizer: u32,
    /// Training documents.
    pub train: SplitInfo,
    /// Validation documents.
    pub validation: SplitInfo,
    /// Loss in nats a token of predicting validation tokens by their (add-one) frequency in the
    /// training split: what a model must beat to have learned anything but frequencies.
    pub frequency_loss: f64,
    /// The Megatron pair the ids are in; in the folder's own token files if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub megatron: Option<MegatronPair>,
}

/// Where a corpus' ids are, if not in its folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MegatronPair {
    /// Absolute path of the `.idx`.
    pub path: PathBuf,
    /// Share of the documents that are held out.
    pub validation: f64,
}

impl CorpusInfo {
    /// Makes `dir` the prepared folder of this.
    pub(crate) fn write(&self, tokenizer: &Tokenizer, dir: &Path) -> Result<(), TextError> {
        std::fs::create_dir_all(dir).map_err(TextError::io(dir))?;
        tokenizer.save(&dir.join("tokenizer.json"))?;
        let json = serde_json::to_string_pretty(self).unwrap_or_default();
        crate::file::replace(&dir.join("corpus.json"), (json + "\n").as_bytes())
    }
}

/// A prepared folder: `tokenizer.json`, `corpus.json`, and unless the ids are in a Megatron pair
/// `train.tok` and `validation.tok`.
#[derive(Clone, Debug)]
pub struct PreparedCorpus {
    /// The folder.
    pub dir: PathBuf,
    /// What it holds.
    pub info: CorpusInfo,
}

impl PreparedCorpus {
    /// Opens a prepared folder.
    ///
    /// # Errors
    /// When it is none.
    pub fn open(dir: &Path) -> Result<Self, TextError> {
        let path = dir.join("corpus.json");
        let json = std::fs::read_to_string(&path).map_err(TextError::io(&path))?;
        let info = serde_json::from_str(&json)
            .map_err(|e| TextError::content(&path, format!("{e}; prepare the corpus again")))?;
        Ok(Self { dir: dir.into(), info })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// When its file is damaged.
    pub fn tokenizer(&self) -> Result<Tokenizer, TextError> {
        let path = self.dir.join("tokenizer.json");
        let tokenizer = Tokenizer::load(&path)?;
        if tokenizer.fingerprint() != self.info.tokenizer {
            return Err(TextError::content(
                &path,
                "not the tokenizer the corpus was prepared with; prepare the corpus again",
            ));
        }
        Ok(tokenizer)
    }

    /// The documents of a split, `train` or `validation`.
    ///
    /// # Errors
    /// When its file is damaged or was written with another tokenizer.
    pub fn split(&self, name: &str) -> Result<Arc<dyn Documents>, TextError> {
        let (path, file): (PathBuf, Arc<dyn Documents>) = match &self.info.megatron {
            Some(MegatronPair { path, validation }) => {
                let all = Arc::new(MegatronFile::open(path)?);
                (path.clone(), Arc::new(Share::new(all, *validation, name)))
            }
            None => {
                let path = self.dir.join(format!("{name}.tok"));
                let file = TokenFile::open(&path)?;
                if file.tokenizer_fingerprint() != self.info.tokenizer {
                    let reason = "written with another tokenizer; prepare the corpus again";
                    return Err(TextError::content(&path, reason));
                }
                (path, Arc::new(file))
            }
        };
        let info = if name == "train" { &self.info.train } else { &self.info.validation };
        let found = (file.len() as u64, file.total_tokens() as u64);
        if found != (info.documents, info.tokens) {
            let reason = format!(
                "{} documents of {} tokens, where corpus.json has {} of {}; prepare the corpus again",
                found.0, found.1, info.documents, info.tokens
            );
            return Err(TextError::content(&path, reason));
        }
        Ok(file)
    }
}

/// Tokenizes `source` into the folder `dir`.
///
/// # Errors
/// When a document cannot be read, there is no text, or the disk refuses. `corpus.json` is removed
/// first and written last, so a folder that has it is complete.
pub fn prepare(
    name: &str,
    source: &DocumentSource,
    tokenizer: &Tokenizer,
    dir: &Path,
    options: PrepareOptions,
    progress: &ProgressBar,
) -> Result<PreparedCorpus, TextError> {
    let share = options.validation;
    if !(share > 0.0 && share < 1.0) {
        let reason = format!("validation share {share}: must lie between 0 and 1");
        return Err(TextError::Choice(reason));
    }
    std::fs::create_dir_all(dir).map_err(TextError::io(dir))?;
    let info_path = dir.join("corpus.json");
    if info_path.exists() {
        std::fs::remove_file(&info_path).map_err(TextError::io(&info_path))?;
    }
    progress.set_length(source.bytes()?);
    let mut writer = SplitWriter::new(tokenizer, dir)?;
    let mut chunk = Chunk::default();
    let mut documents = source.documents().peekable();
    let mut index = 0_u64;
    while let Some(document) = documents.next() {
        let document = document?;
        progress.inc(document.len() as u64);
        if index == 0 && documents.peek().is_none() {
            // a single document: its end is the validation split
            let (train, validation) = cut(&document, share);
            chunk.push(train.to_string(), false);
            chunk.push(validation.to_string(), true);
        } else {
            chunk.push(document, is_validation(index, share));
        }
        index += 1;
        if chunk.bytes >= CHUNK {
            writer.write(&mut chunk)?;
        }
    }
    writer.write(&mut chunk)?;
    let info = writer.finish(name)?;
    let prepared = PreparedCorpus { dir: dir.into(), info };
    prepared.info.write(tokenizer, dir)?;
    progress.finish_and_clear();
    Ok(prepared)
}

/// Every so-many-th document: spread over the corpus, at least the second of any two.
fn is_validation(index: u64, share: f64) -> bool {
    index % every(share) == 1
}

/// Of how many documents one is held out.
pub(crate) fn every(share: f64) -> u64 {
    (1.0 / share).round().max(2.0) as u64
}

/// Cuts a text at the line boundary nearest before its validation share.
fn cut(text: &str, share: f64) -> (&str, &str) {
    let mut at = (text.len() as f64 * (1.0 - share)) as usize;
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let at = text[..at].rfind('\n').map_or(at, |newline| newline + 1);
    text.split_at(at)
}

#[derive(Default)]
struct Chunk {
    texts: Vec<String>,
    validation: Vec<bool>,
    bytes: usize,
}

impl Chunk {
    fn push(&mut self, text: String, validation: bool) {
        if !text.is_empty() {
            self.bytes += text.len();
            self.texts.push(text);
            self.validation.push(validation);
        }
    }
}

struct SplitWriter<'a> {
    tokenizer: &'a Tokenizer,
    dir: PathBuf,
    /// train, validation
    files: [TokenFileWriter; 2],
    infos: [SplitInfo; 2],
    counts: Vec<u64>,
}

impl<'a> SplitWriter<'a> {
    fn new(tokenizer: &'a Tokenizer, dir: &Path) -> Result<Self, TextError> {
        let (vocab, mark) = (tokenizer.vocab_size(), tokenizer.fingerprint());
        let file = |name: &str| TokenFileWriter::create(&dir.join(name), vocab, mark);
        Ok(Self {
            tokenizer,
            dir: dir.into(),
            files: [file("train.tok")?, file("validation.tok")?],
            infos: Default::default(),
            counts: vec![0; vocab],
        })
    }

    fn write(&mut self, chunk: &mut Chunk) -> Result<(), TextError> {
        let Chunk { texts, validation, .. } = std::mem::take(chunk);
        let encoded = self.tokenizer.encode_batch(&texts)?;
        for ((text, ids), validation) in texts.iter().zip(encoded).zip(validation) {
            let split = usize::from(validation);
            self.files[split].push(&ids)?;
            let info = &mut self.infos[split];
            info.documents += 1;
            info.tokens += ids.len() as u64;
            info.bytes += text.len() as u64;
            if !validation {
                ids.iter().for_each(|&id| self.counts[id as usize] += 1);
                self.counts[crate::EOS as usize] += 1;
            }
        }
        Ok(())
    }

    fn finish(self, name: &str) -> Result<CorpusInfo, TextError> {
        let [train, validation] = self.infos;
        for (split, info) in [("training", &train), ("validation", &validation)] {
            if info.tokens == 0 {
                let reason = format!("no text for the {split} split; give a corpus with more text");
                return Err(TextError::content(Path::new(name), reason));
            }
        }
        for file in self.files {
            file.finish()?;
        }
        let held_out = TokenFile::open(&self.dir.join("validation.tok"))?;
        Ok(CorpusInfo {
            name: name.to_string(),
            tokenizer: self.tokenizer.fingerprint(),
            frequency_loss: frequency_loss(&self.counts, &held_out),
            train,
            validation,
            megatron: None,
        })
    }
}

/// Mean negative log-likelihood of `documents` (EOS counted) under add-one frequencies.
pub(crate) fn frequency_loss(counts: &[u64], documents: &dyn Documents) -> f64 {
    let total: u64 = counts.iter().sum::<u64>() + counts.len() as u64;
    let loss = |id: u32| -(((counts[id as usize] + 1) as f64) / total as f64).ln();
    let (mut sum, mut n, mut ids) = (0.0, 0_u64, Vec::new());
    for i in 0..documents.len() {
        ids.clear();
        documents.read(i, 0..documents.document_len(i), &mut ids);
        sum += ids.iter().map(|&id| loss(id)).sum::<f64>() + loss(crate::EOS);
        n += ids.len() as u64 + 1;
    }
    sum / n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(files: &[(&str, &str)]) -> Result<(tempfile::TempDir, PreparedCorpus), String> {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text");
        std::fs::create_dir(&text).unwrap();
        for (name, content) in files {
            std::fs::write(text.join(name), content).unwrap();
        }
        let source = DocumentSource::open(&text).map_err(|e| e.to_string())?;
        let out = dir.path().join("out");
        let bar = ProgressBar::hidden();
        let options = PrepareOptions::default();
        let prepared = prepare("test", &source, &Tokenizer::Bytes, &out, options, &bar);
        prepared.map(|prepared| (dir, prepared)).map_err(|e| e.to_string())
    }

    #[test]
    fn documents_go_to_either_split_whole() {
        let files: Vec<(String, String)> =
            (0..40).map(|i| (format!("{i:02}.txt"), format!("document {i}\n"))).collect();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(n, c)| (n.as_str(), c.as_str())).collect();
        let (_dir, corpus) = run(&files).unwrap();
        assert_eq!((corpus.info.train.documents, corpus.info.validation.documents), (38, 2));
        let held_out = corpus.split("validation").unwrap();
        let mut ids = Vec::new();
        held_out.read(1, 0..held_out.document_len(1), &mut ids);
        assert_eq!(Tokenizer::Bytes.decode(&ids), "document 21\n");
    }

    #[test]
    fn a_single_document_is_cut_at_a_line() {
        let text = "line\n".repeat(100);
        let (_dir, corpus) = run(&[("a.txt", &text)]).unwrap();
        assert_eq!((corpus.info.train.bytes, corpus.info.validation.bytes), (475, 25));
        // 25 tokens of five kinds seen 95 times each, one EOS seen once; add-one over 258 ids
        let likelihood = |count: f64| ((count + 1.0) / (476.0 + 258.0)).ln();
        let expected = -(25.0 * likelihood(95.0) + likelihood(1.0)) / 26.0;
        assert!((corpus.info.frequency_loss - expected).abs() < 1e-12);
    }

    #[test]
    fn an_empty_corpus_is_refused() {
        assert!(run(&[("a.txt", "\n")]).unwrap_err().contains("no text"));
        assert!(run(&[]).unwrap_err().contains("holds no file"));
    }

    #[test]
    fn a_folder_with_half_of_another_preparation_is_noticed() {
        let (dir, corpus) = run(&[("a.txt", &"line\n".repeat(100))]).unwrap();
        let (_other, larger) = run(&[("a.txt", &"line\n".repeat(200))]).unwrap();
        assert!(corpus.split("train").is_ok() && corpus.tokenizer().is_ok());
        std::fs::copy(larger.dir.join("train.tok"), corpus.dir.join("train.tok")).unwrap();
        let error = corpus.split("train").err().unwrap().to_string();
        assert!(error.contains("train.tok") && error.contains("corpus.json"), "{error}");
        // a preparation that fails leaves no folder that looks complete, nor partial files
        let blank = dir.path().join("blank.txt");
        std::fs::write(&blank, "\n").unwrap();
        let source = DocumentSource::open(&blank).unwrap();
        let bar = ProgressBar::hidden();
        let again = |options| {
            prepare("b", &source, &Tokenizer::Bytes, &corpus.dir, options, &bar).unwrap_err()
        };
        let error = again(PrepareOptions { validation: 1.0 }).to_string();
        assert!(error.contains("between 0 and 1") && PreparedCorpus::open(&corpus.dir).is_ok());
        again(PrepareOptions::default());
        assert!(PreparedCorpus::open(&corpus.dir).is_err());
        let names = std::fs::read_dir(&corpus.dir).unwrap().map(|e| e.unwrap().file_name());
        assert!(names.into_iter().all(|name| !name.to_string_lossy().contains("partial")));
    }
}
