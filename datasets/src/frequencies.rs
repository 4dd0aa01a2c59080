//! The loss of a model that knows only the token frequencies.

use block_transformer_text::EOS;

use crate::documents::Documents;

/// Occurrences of each token id in the training documents.
pub(crate) struct Frequencies(Vec<u64>);

impl Frequencies {
    /// Creates counts of 0 for ids below `vocab_size`.
    pub(crate) fn new(vocab_size: usize) -> Self {
        Self(vec![0; vocab_size])
    }

    /// Counts the ids of a document, and its EOS.
    pub(crate) fn add(&mut self, ids: &[u32]) {
        ids.iter().for_each(|&id| self.0[id as usize] += 1);
        self.0[EOS as usize] += 1;
    }

    /// Returns the mean negative log-likelihood of `documents` with their EOS, in nats per token.
    /// Each count is increased by one.
    pub(crate) fn loss(&self, documents: &dyn Documents) -> f64 {
        let total: u64 = self.0.iter().sum::<u64>() + self.0.len() as u64;
        let loss = |id: u32| -(((self.0[id as usize] + 1) as f64) / total as f64).ln();
        let (mut sum, mut tokens, mut ids) = (0.0, 0_u64, Vec::new());
        for index in 0..documents.len() {
            ids.clear();
            documents.read(index, 0..documents.document_len(index), &mut ids);
            sum += ids.iter().map(|&id| loss(id)).sum::<f64>() + loss(EOS);
            tokens += ids.len() as u64 + 1;
        }
        sum / tokens as f64
    }
}
