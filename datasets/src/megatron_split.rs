//! One split of a Megatron pair.

use std::ops::Range;
use std::sync::Arc;

use crate::documents::Documents;
use crate::megatron::MegatronFile;
use crate::split::{Split, holdout_interval};

/// The documents of one split of a Megatron pair: every `holdout_interval`-th document is held out,
/// as in a text corpus.
pub(crate) struct MegatronSplit {
    pair: Arc<MegatronFile>,
    holdout_interval: usize,
    split: Split,
}

impl MegatronSplit {
    /// The split `split` of `pair`, where the share `validation` of the documents is held out.
    pub(crate) fn new(pair: Arc<MegatronFile>, validation: f64, split: Split) -> Self {
        Self { pair, holdout_interval: holdout_interval(validation), split }
    }

    /// The index in the pair of document `index` of this split.
    pub(crate) fn index_in_pair(&self, index: usize) -> usize {
        match self.split {
            Split::Validation => index * self.holdout_interval + 1,
            // all documents of each interval except its second one
            Split::Train => {
                let per_interval = self.holdout_interval - 1;
                let (interval, place) = (index / per_interval, index % per_interval);
                interval * self.holdout_interval + place + usize::from(place > 0)
            }
        }
    }
}

impl Documents for MegatronSplit {
    fn len(&self) -> usize {
        let held_out = (self.pair.len() + self.holdout_interval - 2) / self.holdout_interval;
        match self.split {
            Split::Validation => held_out,
            Split::Train => self.pair.len() - held_out,
        }
    }

    fn document_len(&self, index: usize) -> usize {
        self.pair.document_len(self.index_in_pair(index))
    }

    fn read(&self, index: usize, range: Range<usize>, out: &mut Vec<u32>) {
        self.pair.read(self.index_in_pair(index), range, out);
    }
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
            let [train, validation] = Split::ALL.map(|split| {
                let documents = MegatronSplit::new(all.clone(), 0.05, split);
                let mut found = Vec::new();
                for i in 0..documents.len() {
                    documents.read(i, 0..documents.document_len(i), &mut found);
                }
                found
            });
            assert!(validation.iter().all(|id| id % 20 == 2), "{validation:?}");
            let mut both = [train, validation].concat();
            both.sort_unstable();
            assert_eq!(both, (1..=u32::from(count)).collect::<Vec<_>>());
        }
    }
}
