//! Preparation of a Megatron pair. Its ids are not copied.

use std::path::Path;
use std::sync::Arc;

use block_transformer_files::FileError;
use block_transformer_text::Tokenizer;

use crate::corpus::{CorpusInfo, MegatronPair, PreparedCorpus};
use crate::counts::{DocumentCounts, FrequencyLoss};
use crate::documents::Documents;
use crate::error::DatasetError;
use crate::megatron::MegatronFile;
use crate::megatron_split::MegatronSplit;
use crate::packing::Order;
use crate::split::{Split, VALIDATION_SHARE};

/// Documents up to which the order of an epoch is a list: 100 MB of memory.
const MOST_LISTED: usize = 1 << 22;

/// Makes `dir` a prepared corpus of the pair at `path`. The ids must belong to `tokenizer`. Reads
/// all ids once, to count them and to check that the tokenizer has them. Calls `progress` with the
/// documents read and the total.
///
/// # Errors
/// If the pair cannot be read, has an id that the tokenizer does not have, has no document for a
/// split, or `dir` cannot be written.
pub(crate) fn prepare_megatron(
    path: &Path,
    tokenizer: &Tokenizer,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PreparedCorpus, DatasetError> {
    let path = std::path::absolute(path).map_err(FileError::read(path))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let pair = Arc::new(MegatronFile::open(&path)?);
    let vocab_size = tokenizer.vocab_size();
    let mut counts = DocumentCounts::new(vocab_size);
    let splits = Split::ALL.map(|split| MegatronSplit::new(pair.clone(), VALIDATION_SHARE, split));
    let (mut done, mut ids) = (0, Vec::new());
    for (split, documents) in Split::ALL.into_iter().zip(&splits) {
        for index in 0..documents.len() {
            ids.clear();
            documents.read(index, 0..documents.document_len(index), &mut ids);
            if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
                let document = documents.index_in_pair(index);
                return Err(DatasetError::UnknownId { path, document, id, vocab_size });
            }
            counts.add(split, &ids, 0);
            done += 1;
            progress(done, pair.len() as u64);
        }
    }
    counts.check(&name)?;
    let megatron = Some(MegatronPair { path, validation: VALIDATION_SHARE });
    let mut loss = FrequencyLoss::new(&counts);
    loss.add(&splits[1]);
    let info = counts.info(&name, tokenizer.fingerprint()?, &loss, megatron);
    let order = if pair.len() > MOST_LISTED { Order::Streamed } else { Order::Listed };
    let info = CorpusInfo { order, ..info };
    PreparedCorpus::begin(dir)?;
    PreparedCorpus::create(dir, tokenizer, info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::megatron::tests::pair;

    #[test]
    fn a_pair_is_a_corpus_without_being_copied() {
        let (dir, path) = pair(&[&[3, 4, 5], &[4, 4], &[6, 7]], &[0, 1, 2, 3]);
        let out = dir.path().join("out");
        let prepare = |path: &Path| prepare_megatron(path, &Tokenizer::Bytes, &out, &mut |_, _| {});
        prepare(&path).unwrap();
        let corpus = PreparedCorpus::open(&out).unwrap();
        assert_eq!((corpus.info.train.tokens, corpus.info.validation.tokens), (5, 2));
        // 4 occurs once among 5 tokens and two EOS; each of 258 counts is increased by one
        let likelihood = |count: f64| ((count + 1.0) / (7.0 + 258.0)).ln();
        let expected = -(2.0 * likelihood(1.0) + likelihood(2.0)) / 3.0;
        assert!((corpus.info.frequency_loss - expected).abs() < 1e-12);
        let mut ids = Vec::new();
        corpus.split(Split::Train).unwrap().read(1, 0..2, &mut ids);
        assert_eq!(ids, [6, 7]);
        // an id that the tokenizer does not have, and a pair that was changed after its preparation
        let (_other, unknown) = pair(&[&[3, 500], &[4]], &[0, 1, 2]);
        let error = prepare(&unknown).unwrap_err();
        assert!(error.to_string().contains("id 500"), "{error}");
        std::fs::remove_file(dir.path().join("pile_0.87_text.bin")).unwrap();
        assert!(corpus.split(Split::Train).is_err());
    }
}
