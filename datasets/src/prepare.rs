//! Preparation of a text corpus: documents are tokenized into token files.

use std::path::Path;

use block_transformer_text::Tokenizer;

use crate::corpus::{CorpusInfo, PreparedCorpus, SplitInfo};
use crate::error::DatasetError;
use crate::frequencies::Frequencies;
use crate::source::DocumentSource;
use crate::split::{Split, holdout_interval, split_of};
use crate::token_file::{TokenFile, TokenFileWriter};

/// Bytes of text tokenized together: enough work for all cores, but little memory.
const BATCH_BYTES: usize = 8 << 20;

/// Options of a preparation.
#[derive(Clone, Copy, Debug)]
pub struct PrepareOptions {
    /// Share of the documents to hold out for validation, between 0 and 1.
    pub validation: f64,
}

impl Default for PrepareOptions {
    fn default() -> Self {
        Self { validation: 0.05 }
    }
}

impl PrepareOptions {
    pub(crate) fn check(self) -> Result<(), DatasetError> {
        match self.validation > 0.0 && self.validation < 1.0 {
            true => Ok(()),
            false => Err(DatasetError::ValidationShare(self.validation)),
        }
    }
}

/// Tokenizes `source` into the folder `dir`. Calls `progress` with the bytes of text read and the
/// total.
///
/// Every n-th document is held out; if there is only one document, its end is held out.
/// `corpus.json` is removed first and written last, so that a folder with this file is complete.
///
/// # Errors
/// If a document cannot be read or tokenized, a split has no text, or `dir` cannot be written.
pub fn prepare(
    name: &str,
    source: &DocumentSource,
    tokenizer: &Tokenizer,
    dir: &Path,
    options: PrepareOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PreparedCorpus, DatasetError> {
    options.check()?;
    PreparedCorpus::begin(dir)?;
    let (mut done, total) = (0, source.bytes()?);
    let interval = holdout_interval(options.validation);
    let mut writer = SplitWriter::new(tokenizer, dir)?;
    let mut batch = Batch::default();
    let mut documents = source.documents().enumerate().peekable();
    while let Some((index, document)) = documents.next() {
        let document = document?;
        done += document.len() as u64;
        progress(done, total);
        if index == 0 && documents.peek().is_none() {
            let (train, validation) = cut(&document, options.validation);
            batch.push(train.to_string(), Split::Train);
            batch.push(validation.to_string(), Split::Validation);
        } else {
            batch.push(document, split_of(index, interval));
        }
        if batch.bytes >= BATCH_BYTES {
            writer.write(&mut batch)?;
        }
    }
    writer.write(&mut batch)?;
    PreparedCorpus::create(dir, tokenizer, writer.finish(name)?)
}

/// Cuts a text into training and validation text, at the last line boundary before the validation
/// `share`.
fn cut(text: &str, share: f64) -> (&str, &str) {
    let mut at = (text.len() as f64 * (1.0 - share)) as usize;
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let at = text[..at].rfind('\n').map_or(at, |newline| newline + 1);
    text.split_at(at)
}

/// Documents that are tokenized together.
#[derive(Default)]
struct Batch {
    texts: Vec<String>,
    splits: Vec<Split>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, text: String, split: Split) {
        if !text.is_empty() {
            self.bytes += text.len();
            self.texts.push(text);
            self.splits.push(split);
        }
    }
}

/// Writes the token files of a corpus, one per split in the order of [`Split::ALL`].
struct SplitWriter<'a> {
    tokenizer: &'a Tokenizer,
    fingerprint: u32,
    dir: &'a Path,
    files: [TokenFileWriter; 2],
    infos: [SplitInfo; 2],
    frequencies: Frequencies,
}

impl<'a> SplitWriter<'a> {
    fn new(tokenizer: &'a Tokenizer, dir: &'a Path) -> Result<Self, DatasetError> {
        let (vocab_size, fingerprint) = (tokenizer.vocab_size(), tokenizer.fingerprint()?);
        let [train, validation] = Split::ALL.map(|split| {
            let path = PreparedCorpus::token_file(dir, split);
            TokenFileWriter::create(&path, vocab_size, fingerprint)
        });
        Ok(Self {
            tokenizer,
            fingerprint,
            dir,
            files: [train?, validation?],
            infos: Default::default(),
            frequencies: Frequencies::new(vocab_size),
        })
    }

    /// Tokenizes and writes the batch, and empties it.
    fn write(&mut self, batch: &mut Batch) -> Result<(), DatasetError> {
        let Batch { texts, splits, .. } = std::mem::take(batch);
        let encoded = self.tokenizer.encode_batch(&texts)?;
        for ((text, ids), split) in texts.iter().zip(encoded).zip(splits) {
            self.files[split as usize].push(&ids)?;
            let info = &mut self.infos[split as usize];
            info.documents += 1;
            info.tokens += ids.len() as u64;
            info.bytes += text.len() as u64;
            if split == Split::Train {
                self.frequencies.add(&ids);
            }
        }
        Ok(())
    }

    fn finish(self, name: &str) -> Result<CorpusInfo, DatasetError> {
        for (split, info) in Split::ALL.into_iter().zip(&self.infos) {
            if info.tokens == 0 {
                return Err(DatasetError::EmptySplit { corpus: name.into(), split });
            }
        }
        for file in self.files {
            file.finish()?;
        }
        let held_out = TokenFile::open(&PreparedCorpus::token_file(self.dir, Split::Validation))?;
        let [train, validation] = self.infos;
        Ok(CorpusInfo {
            name: name.to_string(),
            tokenizer: self.fingerprint,
            frequency_loss: self.frequencies.loss(&held_out),
            train,
            validation,
            megatron: None,
        })
    }
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
        let options = PrepareOptions::default();
        let prepared = prepare("test", &source, &Tokenizer::Bytes, &out, options, &mut |_, _| {});
        prepared.map(|prepared| (dir, prepared)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_document_is_in_one_split() {
        let files: Vec<(String, String)> =
            (0..40).map(|i| (format!("{i:02}.txt"), format!("document {i}\n"))).collect();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(n, c)| (n.as_str(), c.as_str())).collect();
        let (_dir, corpus) = run(&files).unwrap();
        assert_eq!((corpus.info.train.documents, corpus.info.validation.documents), (38, 2));
        let held_out = corpus.split(Split::Validation).unwrap();
        let mut ids = Vec::new();
        held_out.read(1, 0..held_out.document_len(1), &mut ids);
        assert_eq!(Tokenizer::Bytes.decode(&ids), "document 21\n");
    }

    #[test]
    fn a_single_document_is_cut_at_a_line_boundary() {
        let text = "line\n".repeat(100);
        let (_dir, corpus) = run(&[("a.txt", &text)]).unwrap();
        assert_eq!((corpus.info.train.bytes, corpus.info.validation.bytes), (475, 25));
        // 25 tokens with ids that occur 95 times each, one EOS that occurs once; each of 258 counts
        // is increased by one
        let likelihood = |count: f64| ((count + 1.0) / (476.0 + 258.0)).ln();
        let expected = -(25.0 * likelihood(95.0) + likelihood(1.0)) / 26.0;
        assert!((corpus.info.frequency_loss - expected).abs() < 1e-12);
    }

    #[test]
    fn an_empty_corpus_is_refused() {
        assert!(run(&[("a.txt", "\n")]).unwrap_err().contains("no text"));
        assert!(run(&[]).unwrap_err().contains("contains no file"));
    }

    #[test]
    fn token_files_of_another_preparation_are_refused() {
        let (dir, corpus) = run(&[("a.txt", &"line\n".repeat(100))]).unwrap();
        let (_other, larger) = run(&[("a.txt", &"line\n".repeat(200))]).unwrap();
        assert!(corpus.split(Split::Train).is_ok() && corpus.tokenizer().is_ok());
        std::fs::copy(larger.dir.join("train.tok"), corpus.dir.join("train.tok")).unwrap();
        let error = corpus.split(Split::Train).err().unwrap().to_string();
        assert!(error.contains("train.tok") && error.contains("corpus.json"), "{error}");
        // a failed preparation leaves neither a complete folder nor temporary files
        let blank = dir.path().join("blank.txt");
        std::fs::write(&blank, "\n").unwrap();
        let source = DocumentSource::open(&blank).unwrap();
        let again = |options| {
            let bytes = &Tokenizer::Bytes;
            prepare("b", &source, bytes, &corpus.dir, options, &mut |_, _| {}).unwrap_err()
        };
        let error = again(PrepareOptions { validation: 1.0 }).to_string();
        assert!(error.contains("between 0 and 1") && PreparedCorpus::open(&corpus.dir).is_ok());
        again(PrepareOptions::default());
        assert!(PreparedCorpus::open(&corpus.dir).is_err());
        let names = std::fs::read_dir(&corpus.dir).unwrap().map(|e| e.unwrap().file_name());
        assert!(names.into_iter().all(|name| !name.to_string_lossy().contains("partial")));
    }
}
