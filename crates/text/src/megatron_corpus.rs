//! A Megatron pair as a prepared corpus: its ids are read where they are, nothing is copied.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::ProgressBar;

use crate::prepare::{every, frequency_loss};
use crate::{
    CorpusInfo, Documents, EOS, MegatronFile, MegatronPair, PrepareOptions, PreparedCorpus,
    SplitInfo, TextError, Tokenizer,
};

/// One split of a pair: validation is every so-many-th document, as in [`prepare`](crate::prepare).
pub(crate) struct Share {
    all: Arc<MegatronFile>,
    every: usize,
    validation: bool,
}

impl Share {
    pub(crate) fn new(all: Arc<MegatronFile>, validation: f64, which: &str) -> Self {
        Self { all, every: every(validation) as usize, validation: which == "validation" }
    }

    /// Where document `index` of this split stands in the pair.
    fn at(&self, index: usize) -> usize {
        if self.validation {
            return index * self.every + 1;
        }
        // the training documents of each run of `every`: its first, and from its third on
        let (run, place) = (index / (self.every - 1), index % (self.every - 1));
        run * self.every + place + usize::from(place > 0)
    }
}

impl Documents for Share {
    fn len(&self) -> usize {
        let held_out = (self.all.len() + self.every - 2) / self.every;
        if self.validation { held_out } else { self.all.len() - held_out }
    }

    fn document_len(&self, index: usize) -> usize {
        self.all.document_len(self.at(index))
    }

    fn read(&self, index: usize, range: Range<usize>, out: &mut Vec<u32>) {
        self.all.read(self.at(index), range, out);
    }
}

/// Makes `dir` a prepared corpus of the pair at `path`, whose ids are those of `tokenizer`. The ids
/// are read once, to count them and to see that the tokenizer knows them all.
///
/// # Errors
/// When the pair cannot be read, holds ids the tokenizer does not know, has no document for a
/// split, or the disk refuses.
pub fn prepare_megatron(
    path: &Path,
    tokenizer: &Tokenizer,
    dir: &Path,
    options: PrepareOptions,
    progress: &ProgressBar,
) -> Result<PreparedCorpus, TextError> {
    let path: PathBuf = std::path::absolute(path).map_err(TextError::io(path))?;
    let all = Arc::new(MegatronFile::open(&path)?);
    let vocab = tokenizer.vocab_size();
    let mut counts = vec![0_u64; vocab];
    let mut infos = [SplitInfo::default(), SplitInfo::default()];
    let [train, validation] =
        ["train", "validation"].map(|which| Share::new(all.clone(), options.validation, which));
    progress.set_length(all.len() as u64);
    for (split, info) in [&train, &validation].into_iter().zip(&mut infos) {
        let mut ids = Vec::new();
        for document in 0..split.len() {
            ids.clear();
            split.read(document, 0..split.document_len(document), &mut ids);
            if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
                let reason = format!(
                    "document {} holds id {id}, and the tokenizer has {vocab}; \
                     give --tokenizer the one it was made with",
                    split.at(document)
                );
                return Err(TextError::content(&path, reason));
            }
            info.documents += 1;
            info.tokens += ids.len() as u64;
            if !split.validation {
                ids.iter().for_each(|&id| counts[id as usize] += 1);
                counts[EOS as usize] += 1;
            }
            progress.inc(1);
        }
        if info.tokens == 0 {
            let which = if split.validation { "validation" } else { "training" };
            return Err(TextError::content(&path, format!("no document for the {which} split")));
        }
    }
    let [train, held_out] = infos;
    let info = CorpusInfo {
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        tokenizer: tokenizer.fingerprint(),
        train,
        validation: held_out,
        frequency_loss: frequency_loss(&counts, &validation),
        megatron: Some(MegatronPair { path, validation: options.validation }),
    };
    info.write(tokenizer, dir)?;
    progress.finish_and_clear();
    Ok(PreparedCorpus { dir: dir.into(), info })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::megatron::tests::pair;

    #[test]
    fn every_document_is_in_one_split() {
        for count in 2..70_u16 {
            let documents: Vec<Vec<u16>> = (0..count).map(|i| vec![i + 1]).collect();
            let documents: Vec<&[u16]> = documents.iter().map(Vec::as_slice).collect();
            let bounds: Vec<u64> = (0..=u64::from(count)).collect();
            let (_dir, path) = pair(&documents, &bounds);
            let all = Arc::new(MegatronFile::open(&path).unwrap());
            let mut found = [Vec::new(), Vec::new()];
            for (which, found) in ["train", "validation"].iter().zip(&mut found) {
                let split = Share::new(all.clone(), 0.05, which);
                for i in 0..split.len() {
                    split.read(i, 0..split.document_len(i), found);
                }
            }
            let [train, validation] = found;
            assert!(validation.iter().all(|id| id % 20 == 2), "{validation:?}");
            let mut both = [train, validation].concat();
            both.sort_unstable();
            assert_eq!(both, (1..=u32::from(count)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_pair_is_a_corpus_where_it_is() {
        let (dir, path) = pair(&[&[3, 4, 5], &[4, 4], &[6, 7]], &[0, 1, 2, 3]);
        let out = dir.path().join("out");
        let prepare = |tokenizer: &Tokenizer| {
            let options = PrepareOptions::default();
            prepare_megatron(&path, tokenizer, &out, options, &ProgressBar::hidden())
        };
        prepare(&Tokenizer::Bytes).unwrap();
        let corpus = PreparedCorpus::open(&out).unwrap();
        assert_eq!((corpus.info.train.tokens, corpus.info.validation.tokens), (5, 2));
        // 4 seen once of 5 tokens and two EOS; add-one over 258 ids
        let likelihood = |count: f64| ((count + 1.0) / (7.0 + 258.0)).ln();
        let expected = -(2.0 * likelihood(1.0) + likelihood(2.0)) / 3.0;
        assert!((corpus.info.frequency_loss - expected).abs() < 1e-12);
        let mut ids = Vec::new();
        corpus.split("train").unwrap().read(1, 0..2, &mut ids);
        assert_eq!(ids, [6, 7]);
        // ids the tokenizer does not know, and a pair that has changed since
        let (_other, path) = pair(&[&[3, 500], &[4]], &[0, 1, 2]);
        let options = PrepareOptions::default();
        let bar = ProgressBar::hidden();
        let error = prepare_megatron(&path, &Tokenizer::Bytes, &out, options, &bar).unwrap_err();
        assert!(error.to_string().contains("id 500"), "{error}");
        std::fs::remove_file(dir.path().join("pile_0.87_text.bin")).unwrap();
        assert!(corpus.split("train").is_err());
    }
}
