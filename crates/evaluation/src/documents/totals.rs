//! Loss over whole books.

use serde::Serialize;

use crate::documents::measure::BookRow;
use crate::statistics::{Bootstrap, Estimate};

/// Loss over whole books, every token predicted once.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DocumentTotals {
    /// Tokens predicted.
    pub tokens: u64,
    /// Loss of the predicted tokens in nats, summed.
    #[serde(rename = "nats")]
    pub total_nats: f64,
    /// Mean loss in nats per token.
    pub loss: Estimate,
    /// `total_nats / ln 2` over the bytes of the text.
    pub bits_per_byte: f64,
    /// `exp(total_nats / words)`, PG19's measure, which does not depend on the tokenizer (Rae et
    /// al., arXiv 1911.05507). Words are separated by white space.
    pub word_perplexity: f64,
}

impl DocumentTotals {
    /// Sums up the books of one checkpoint. `None` when no book has a token.
    pub(crate) fn new(rows: &[BookRow], bootstrap: &Bootstrap) -> Option<Self> {
        let rows: Vec<&BookRow> = rows.iter().filter(|row| row.tokens > 0).collect();
        let total_nats: f64 = rows.iter().map(|row| row.tally.total_nats).sum();
        let bytes: u64 = rows.iter().map(|row| row.bytes).sum();
        let words: u64 = rows.iter().map(|row| row.words).sum();
        let book = |row: &&BookRow| (vec![row.tally.total_nats], row.tally.predicted as f64);
        let books: Vec<_> = rows.iter().map(book).collect();
        Some(Self {
            tokens: rows.iter().map(|row| row.tally.predicted as u64).sum(),
            total_nats,
            loss: *bootstrap.ratios(&books).first()?,
            bits_per_byte: total_nats / std::f64::consts::LN_2 / bytes as f64,
            word_perplexity: (total_nats / words as f64).exp(),
        })
    }
}
