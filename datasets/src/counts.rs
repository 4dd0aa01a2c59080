//! Sizes and token frequencies of a corpus, counted while it is prepared.

use block_transformer_text::EOS;
use serde::{Deserialize, Serialize};

use crate::corpus::{CorpusInfo, MegatronPair, SplitInfo};
use crate::documents::Documents;
use crate::error::DatasetError;
use crate::packing::Order;
use crate::split::Split;

/// The counts of the documents so far.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DocumentCounts {
    /// The sizes of the splits, in the order of [`Split::ALL`].
    sizes: [SplitInfo; 2],
    /// Occurrences of each token id in the training documents.
    frequencies: Vec<u64>,
}

impl DocumentCounts {
    /// Creates counts of 0 for ids below `vocab_size`.
    pub(crate) fn new(vocab_size: usize) -> Self {
        Self { sizes: Default::default(), frequencies: vec![0; vocab_size] }
    }

    /// Counts a document of `bytes` bytes, with its EOS.
    pub(crate) fn add(&mut self, split: Split, ids: &[u32], bytes: usize) {
        let size = &mut self.sizes[split as usize];
        size.documents += 1;
        size.tokens += ids.len() as u64;
        size.bytes += bytes as u64;
        if split == Split::Train {
            ids.iter().chain(&[EOS]).for_each(|&id| self.frequencies[id as usize] += 1);
        }
    }

    /// The ids that are counted are below this.
    pub(crate) fn vocab_size(&self) -> usize {
        self.frequencies.len()
    }

    /// The sizes of a split.
    pub(crate) fn size(&self, split: Split) -> &SplitInfo {
        &self.sizes[split as usize]
    }

    /// Checks that each split of the corpus called `name` has tokens.
    pub(crate) fn check(&self, name: &str) -> Result<(), DatasetError> {
        let empty = Split::ALL.into_iter().find(|&split| self.sizes[split as usize].tokens == 0);
        match empty {
            Some(split) => Err(DatasetError::EmptySplit { corpus: name.into(), split }),
            None => Ok(()),
        }
    }

    /// Describes the corpus. `frequency_loss` is that of all validation documents.
    pub(crate) fn info(
        self,
        name: &str,
        tokenizer: u32,
        frequency_loss: &FrequencyLoss,
        megatron: Option<MegatronPair>,
    ) -> CorpusInfo {
        let frequency_loss = frequency_loss.mean();
        let [train, validation] = self.sizes;
        let (name, sharded, order) = (name.into(), false, Order::Listed);
        CorpusInfo { name, tokenizer, train, validation, frequency_loss, megatron, sharded, order }
    }
}

/// The negative log-likelihood of documents if only the token frequencies of the training documents
/// are known. Each count is increased by one.
pub(crate) struct FrequencyLoss {
    /// The loss of each id, in nats.
    losses: Vec<f64>,
    sum: f64,
    tokens: u64,
}

impl FrequencyLoss {
    /// A sum over no documents with the frequencies of `counts`.
    pub(crate) fn new(counts: &DocumentCounts) -> Self {
        let counts = &counts.frequencies;
        let total: u64 = counts.iter().sum::<u64>() + counts.len() as u64;
        let loss = |&count: &u64| -(((count + 1) as f64) / total as f64).ln();
        Self { losses: counts.iter().map(loss).collect(), sum: 0.0, tokens: 0 }
    }

    /// Adds `documents` with their EOS.
    pub(crate) fn add(&mut self, documents: &dyn Documents) {
        let loss = |id: u32| self.losses[id as usize];
        let mut ids = Vec::new();
        for index in 0..documents.len() {
            ids.clear();
            documents.read(index, 0..documents.document_len(index), &mut ids);
            self.sum += ids.iter().map(|&id| loss(id)).sum::<f64>() + loss(EOS);
            self.tokens += ids.len() as u64 + 1;
        }
    }

    /// The mean, in nats per token.
    fn mean(&self) -> f64 {
        self.sum / self.tokens as f64
    }
}
