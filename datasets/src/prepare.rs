//! Preparation of a text corpus: documents are tokenized into token files.

use std::path::Path;

use block_transformer_text::Tokenizer;

use crate::corpus::{CorpusInfo, PreparedCorpus};
use crate::counts::DocumentCounts;
use crate::error::DatasetError;
use crate::source::DocumentSource;
use crate::split::{Split, VALIDATION_SHARE, holdout_interval, split_of};
use crate::token_file::{TokenFile, TokenFileWriter};

/// Bytes of text tokenized together: enough work for all cores, but little memory.
const BATCH_BYTES: usize = 8 << 20;

/// Tokenizes `source` into the folder `dir`. Calls `progress` with the bytes of text read and the
/// total.
///
/// Every 20th document is held out; if there is only one document, its end is held out.
/// `corpus.json` is removed first and written last, so that a folder with this file is complete.
///
/// # Errors
/// If a document cannot be read or tokenized, a split has no text, or `dir` cannot be written.
pub fn prepare(
    name: &str,
    source: &DocumentSource,
    tokenizer: &Tokenizer,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PreparedCorpus, DatasetError> {
    PreparedCorpus::begin(dir)?;
    let (mut done, total) = (0, source.bytes()?);
    let interval = holdout_interval(VALIDATION_SHARE);
    let mut writer = SplitWriter::new(tokenizer, dir)?;
    let mut documents = source.documents().enumerate().peekable();
    while let Some((index, document)) = documents.next() {
        let document = document?;
        done += document.len() as u64;
        progress(done, total);
        if index == 0 && documents.peek().is_none() {
            let (train, validation) = cut(&document);
            writer.push(train.into(), Split::Train)?;
            writer.push(validation.into(), Split::Validation)?;
        } else {
            writer.push(document, split_of(index, interval))?;
        }
    }
    PreparedCorpus::create(dir, tokenizer, writer.finish(name)?)
}

/// Cuts a text into training and validation text, at the last line boundary before the validation
/// share.
fn cut(text: &str) -> (&str, &str) {
    let at = text.floor_char_boundary((text.len() as f64 * (1.0 - VALIDATION_SHARE)) as usize);
    let at = text[..at].rfind('\n').map_or(at, |newline| newline + 1);
    text.split_at(at)
}

/// Writes the token files of a corpus, one per split in the order of [`Split::ALL`].
struct SplitWriter<'a> {
    tokenizer: &'a Tokenizer,
    fingerprint: u32,
    dir: &'a Path,
    files: [TokenFileWriter; 2],
    counts: DocumentCounts,
    /// Documents that are not tokenized yet.
    texts: Vec<String>,
    /// The split of each of `texts`.
    splits: Vec<Split>,
    /// The size of `texts` in bytes.
    bytes: usize,
}

impl<'a> SplitWriter<'a> {
    fn new(tokenizer: &'a Tokenizer, dir: &'a Path) -> Result<Self, DatasetError> {
        let (vocab_size, fingerprint) = (tokenizer.vocab_size(), tokenizer.fingerprint()?);
        let [train, validation] = Split::ALL.map(|split| {
            let path = PreparedCorpus::token_file(dir, split);
            TokenFileWriter::create(&path, vocab_size, fingerprint)
        });
        let (files, counts) = ([train?, validation?], DocumentCounts::new(vocab_size));
        let (texts, splits) = (Vec::new(), Vec::new());
        Ok(Self { tokenizer, fingerprint, dir, files, counts, texts, splits, bytes: 0 })
    }

    /// Adds a document, and tokenizes a batch if there is enough text for one.
    fn push(&mut self, text: String, split: Split) -> Result<(), DatasetError> {
        if !text.is_empty() {
            self.bytes += text.len();
            self.texts.push(text);
            self.splits.push(split);
        }
        if self.bytes < BATCH_BYTES { Ok(()) } else { self.write() }
    }

    /// Tokenizes and writes the documents that were added.
    fn write(&mut self) -> Result<(), DatasetError> {
        let encoded = self.tokenizer.encode_batch(&self.texts)?;
        for ((text, ids), split) in self.texts.drain(..).zip(encoded).zip(self.splits.drain(..)) {
            self.files[split as usize].push(&ids)?;
            self.counts.add(split, &ids, text.len());
        }
        self.bytes = 0;
        Ok(())
    }

    fn finish(mut self, name: &str) -> Result<CorpusInfo, DatasetError> {
        self.write()?;
        self.counts.check(name)?;
        self.files.into_iter().try_for_each(TokenFileWriter::finish)?;
        let held_out = TokenFile::open(&PreparedCorpus::token_file(self.dir, Split::Validation))?;
        Ok(self.counts.info(name, self.fingerprint, &held_out, None))
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
        let prepared = prepare("test", &source, &Tokenizer::Bytes, &out, &mut |_, _| {});
        prepared.map(|prepared| (dir, prepared)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_document_is_in_one_split() {
        let lines: Vec<String> =
            (0..40).map(|i| format!("{{\"text\": \"document {i}\"}}\n")).collect();
        let (_dir, corpus) = run(&[("a.jsonl", &lines.concat())]).unwrap();
        assert_eq!((corpus.info.train.documents, corpus.info.validation.documents), (38, 2));
        let held_out = corpus.split(Split::Validation).unwrap();
        let mut ids = Vec::new();
        held_out.read(1, 0..held_out.document_len(1), &mut ids);
        assert_eq!(Tokenizer::Bytes.decode(&ids), "document 21");
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
        let again = prepare("b", &source, &Tokenizer::Bytes, &corpus.dir, &mut |_, _| {});
        assert!(again.is_err());
        assert!(PreparedCorpus::open(&corpus.dir).is_err());
        let names = std::fs::read_dir(&corpus.dir).unwrap().map(|e| e.unwrap().file_name());
        assert!(names.into_iter().all(|name| !name.to_string_lossy().contains("partial")));
    }
}
