//! The texts of a study, and whether what the ledger holds was measured on them and on this device.

use std::path::Path;
use std::rc::Rc;

use block_transformer_datasets::{
    CorpusRequest, PreparedCorpus, ReadOptions, SHARD_TOKENS, Split, TokenizerChoice,
    prepare_corpus,
};
use block_transformer_evaluation::documents::Book;
use block_transformer_files::digest;
use sha2::{Digest, Sha256};

use super::Laboratory;
use crate::declaration::{RATES, Study};
use crate::error::StudyError;
use crate::ledger::Ledger;
use crate::rates::Rates;
use crate::run::Run;

/// Token ids that are hashed together.
const CHUNK: usize = 1 << 16;
/// Hexadecimal digits of a fingerprint.
const DIGITS: usize = 8;

/// A prepared corpus.
#[derive(Debug)]
pub(super) struct Texts {
    pub corpus: PreparedCorpus,
    /// The identity of the training and validation texts.
    pub identity: String,
}

impl Laboratory {
    /// Checks the declaration of a study, and that its rows of the ledger, and those of the sweep of its learning
    /// rates, have the texts and the device of this laboratory: those of others would be compared with the new ones.
    ///
    /// # Errors
    /// When the declaration is not valid, a row has other texts, or a speed another device.
    pub fn check(&mut self, study: &Study) -> Result<(), StudyError> {
        let scale = self.settings.scale.clone();
        let ledger = Ledger::open(&self.settings.ledger)?;
        study.check(&scale, &ledger)?;
        let mut runs = study.runs(&scale, Rates::of(&ledger, &scale)?.as_ref())?;
        if study.uses_rates(&scale) {
            runs.extend(Study::open(RATES)?.runs(&scale, None)?);
        }
        for run in runs.iter().filter(|run| !run.is_open) {
            self.check_device(run, &ledger)?;
            // without a corpus, nothing is trained
            if self.settings.corpus.is_some() && ledger.rows().iter().any(|row| row.run == run.id) {
                self.check_texts(run, &ledger)?;
            }
        }
        Ok(())
    }

    /// Checks the texts of the rows of a run, and returns those of now.
    pub(super) fn check_texts(
        &mut self,
        run: &Run,
        ledger: &Ledger,
    ) -> Result<Rc<Texts>, StudyError> {
        let texts = self.texts(&run.config.tokenizer, &run.config.corpus)?;
        let mut rows = ledger.rows().iter();
        match rows.find(|row| row.run == run.id && row.text != texts.identity) {
            None => Ok(texts),
            Some(row) => Err(StudyError::OtherText {
                ledger: ledger.path().into(),
                run: row.run.clone(),
                before: row.text.clone(),
                now: texts.identity.clone(),
            }),
        }
    }

    fn check_device(&self, run: &Run, ledger: &Ledger) -> Result<(), StudyError> {
        let now = self.settings.device.to_string();
        match ledger.rows().iter().find(|row| row.run == run.shape && row.device != now) {
            None => Ok(()),
            Some(row) => Err(StudyError::OtherDevice {
                ledger: ledger.path().into(),
                shape: row.run.clone(),
                before: row.device.clone(),
                now,
            }),
        }
    }

    /// The corpus, prepared with a tokenizer. `name` is what the declaration says that it is.
    pub(super) fn texts(
        &mut self,
        tokenizer: &TokenizerChoice,
        name: &str,
    ) -> Result<Rc<Texts>, StudyError> {
        let key = serde_json::to_string(tokenizer)?;
        if let Some(texts) = self.texts.get(&key) {
            return Ok(Rc::clone(texts));
        }
        let Some(path) = self.settings.corpus.clone() else {
            return Err(StudyError::NoCorpus(format!("{name:?}")));
        };
        let request = CorpusRequest {
            corpus: std::slice::from_ref(&path),
            options: &ReadOptions::default(),
            shard_tokens: SHARD_TOKENS,
            tokenizer,
            data: &self.settings.data,
            out: None,
        };
        let corpus = prepare_corpus(&request, &mut |_| ())?;
        let identity = identity(&corpus, self.settings.validation.as_deref())?;
        let texts = Rc::new(Texts { corpus, identity });
        self.texts.insert(key, Rc::clone(&texts));
        Ok(texts)
    }
}

/// The identity of a training and a validation text, as rows of the ledger have it.
fn identity(corpus: &PreparedCorpus, validation: Option<&Path>) -> Result<String, StudyError> {
    let info = &corpus.info;
    let validation = validation.map_or_else(|| Ok("held-out".into()), of_files)?;
    Ok(format!("{}-{:08x}-{}/{validation}", info.train.tokens, info.tokenizer, of_ids(corpus)?))
}

/// A fingerprint of the training documents.
fn of_ids(corpus: &PreparedCorpus) -> Result<String, StudyError> {
    let documents = corpus.split(Split::Train)?;
    let mut hash = Sha256::new();
    let (mut ids, mut bytes) = (Vec::new(), Vec::new());
    for index in 0..documents.len() {
        let length = documents.document_len(index);
        hash.update((length as u64).to_le_bytes());
        for first in (0..length).step_by(CHUNK) {
            ids.clear();
            bytes.clear();
            documents.read(index, first..(first + CHUNK).min(length), &mut ids);
            bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
            hash.update(&bytes);
        }
    }
    Ok(short(hash))
}

/// A fingerprint of a file, or of all texts in a folder.
fn of_files(path: &Path) -> Result<String, StudyError> {
    let books = if path.is_dir() { Book::list(path)? } else { Book::of_files(&[path.into()]) };
    let mut hash = Sha256::new();
    for book in books {
        hash.update(digest(&book.path)?.1);
    }
    Ok(short(hash))
}

fn short(hash: Sha256) -> String {
    format!("{:x}", hash.finalize())[..DIGITS].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_equal_length_have_another_identity() {
        let dir = tempfile::tempdir().unwrap();
        let (held_out, other) = (dir.path().join("a.txt"), dir.path().join("b.txt"));
        std::fs::write(&held_out, "held out").unwrap();
        std::fs::write(&other, "held oat").unwrap();
        let of = |text: &str, validation: Option<&Path>| {
            let path = dir.path().join(format!("{}.txt", &text[..1]));
            std::fs::write(&path, text.repeat(500)).unwrap();
            let request = CorpusRequest {
                corpus: &[path.display().to_string()],
                options: &ReadOptions::default(),
                shard_tokens: SHARD_TOKENS,
                tokenizer: &TokenizerChoice::Bytes,
                data: &dir.path().join("data"),
                out: None,
            };
            identity(&prepare_corpus(&request, &mut |_| ()).unwrap(), validation).unwrap()
        };
        let (one, two) = (of("x y\n", None), of("z y\n", None));
        assert!(one.ends_with("/held-out") && two.ends_with("/held-out"), "{one} {two}");
        assert_eq!(one, of("x y\n", None));
        assert_eq!(one.split('-').next(), two.split('-').next());
        assert_ne!(one, two);
        let with = of("x y\n", Some(&held_out));
        assert_eq!(with.split('/').next(), one.split('/').next());
        assert_ne!(with, of("x y\n", Some(&other)));
        // a folder is all of its texts
        assert_ne!(with, of("x y\n", Some(dir.path())));
    }
}
