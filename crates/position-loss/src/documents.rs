//! What the losses of whole books add up to.

use serde::Serialize;

use crate::bootstrap::Bootstrap;
use crate::folder::BookRow;
use crate::report::Estimate;

/// Loss over whole books.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DocumentReport {
    /// Tokens predicted: all.
    pub tokens: u64,
    /// Their loss in nats.
    pub nats: f64,
    /// Nats a token.
    pub loss: Estimate,
    /// `nats / ln 2` over the bytes of the text.
    pub bits_per_byte: f64,
    /// `exp(nats / words)`: PG19's own measure, which no tokenizer changes (Rae et al., arXiv
    /// 1911.05507; a word is a run of characters that are not white space).
    pub word_perplexity: f64,
}

impl DocumentReport {
    /// The sums over `rows`, each a book of one checkpoint.
    pub(crate) fn new(rows: &[BookRow]) -> Self {
        let rows: Vec<&BookRow> = rows.iter().filter(|row| row.tokens > 0).collect();
        let nats: f64 = rows.iter().map(|row| row.tally.nats).sum();
        let tokens: u64 = rows.iter().map(|row| row.tally.predicted as u64).sum();
        let bytes: u64 = rows.iter().map(|row| row.bytes).sum();
        let words: u64 = rows.iter().map(|row| row.words).sum();
        let books: Vec<_> =
            rows.iter().map(|row| (vec![row.tally.nats], row.tally.predicted as f64)).collect();
        let errors = Bootstrap::new(books.len()).standard_errors(&books);
        let loss = Estimate { value: nats / tokens as f64, standard_error: errors.map(|e| e[0]) };
        Self {
            tokens,
            nats,
            loss,
            bits_per_byte: nats / std::f64::consts::LN_2 / bytes as f64,
            word_perplexity: (nats / words as f64).exp(),
        }
    }
}
