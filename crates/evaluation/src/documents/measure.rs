//! Losses of one book under one model.

use block_transformer_family::Family;
use serde::{Deserialize, Serialize};

use crate::documents::windows::Windows;
use crate::error::EvalError;
use crate::score::{Request, Scorer, rolling_windows};

/// The measurements that are made of every book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measures {
    /// The windows whose loss is measured position by position.
    pub windows: Windows,
    /// Whether the whole book is scored in addition, every token once.
    pub documents: bool,
    /// Windows per batch.
    pub batch: usize,
}

/// Sums over a book, or over the part of it that is done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Windows that are done.
    pub windows: usize,
    /// Loss in nats at each position of a window, summed over the windows; 0 in the first block,
    /// which is not predicted.
    pub sums: Vec<f64>,
    /// Windows of the whole-book measurement that are done ([`rolling_windows`]).
    #[serde(rename = "rolled")]
    pub rolling_windows: usize,
    /// Tokens predicted in these windows.
    pub predicted: usize,
    /// Loss of the predicted tokens in nats, summed.
    #[serde(rename = "nats")]
    pub total_nats: f64,
}

/// The losses of a book under a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BookRow {
    /// The checkpoint's label.
    pub checkpoint: String,
    /// The book's name.
    pub book: String,
    /// Tokens of the book.
    pub tokens: usize,
    /// Bytes of the book's text in UTF-8.
    pub bytes: u64,
    /// Words of the book's text.
    pub words: u64,
    /// The losses of the book; for an unfinished book, the losses of the part that is done.
    pub tally: Tally,
}

/// Scores books with a model.
#[derive(Clone, Debug)]
pub struct BookScorer<M: Family> {
    scorer: Scorer<M>,
    measures: Measures,
}

impl<M: Family> BookScorer<M> {
    /// A book scorer that uses the model of `scorer`.
    ///
    /// # Errors
    /// When the context, the stride or the batch of `measures` is 0.
    pub fn new(scorer: Scorer<M>, measures: Measures) -> Result<Self, EvalError> {
        let context = measures.windows.context;
        if measures.windows.stride == 0 {
            return Err(EvalError::Zero("stride"));
        }
        if measures.batch == 0 {
            return Err(EvalError::Zero("batch"));
        }
        let scorer = scorer.with_context(context)?;
        Ok(Self { scorer: scorer.with_batch_tokens(measures.batch * context)?, measures })
    }

    /// Number of windows that [`score`](Self::score) runs for a book of `tokens` tokens, including
    /// the windows of the whole-book measurement.
    pub fn work(&self, tokens: usize) -> usize {
        let Measures { windows, documents, .. } = self.measures;
        let rolling = if documents { tokens.div_ceil(windows.context) } else { 0 };
        windows.count(tokens) + rolling
    }

    /// Scores the book `ids` from the point that `tally` records; `Tally::default()` starts at the
    /// beginning. After each batch, `step` gets the tally so far and the number of tokens in this
    /// batch. An error from `step` ends the measurement.
    ///
    /// # Errors
    /// When an id is outside the model's vocabulary, a window has only one block, a loss is not
    /// finite, the device fails, or `step` fails.
    ///
    /// # Panics
    /// When a window is shorter than a block of the model.
    pub fn score(
        &self,
        ids: &[u32],
        mut tally: Tally,
        mut step: impl FnMut(&Tally, usize) -> Result<(), EvalError>,
    ) -> Result<Tally, EvalError> {
        let Measures { windows, documents, batch } = self.measures;
        // the first block of a window is not predicted
        let first = self.scorer.block_length();
        tally.sums.resize(windows.context, 0.0);
        let count = windows.count(ids.len());
        while tally.windows < count {
            let until = count.min(tally.windows + batch);
            let request = |i| {
                let (context, continuation) = ids[windows.range(i)].split_at(first);
                Request { context: context.into(), continuation: continuation.into() }
            };
            let requests: Vec<Request> = (tally.windows..until).map(request).collect();
            for scored in self.scorer.score(&requests, &mut |_, _| ())? {
                let sums = &mut tally.sums[first..];
                sums.iter_mut().zip(&scored.log_probs).for_each(|(sum, log_p)| *sum -= log_p);
            }
            tally.windows = until;
            step(&tally, requests.len() * windows.context)?;
        }
        let rolling = if documents { rolling_windows(ids, windows.context) } else { Vec::new() };
        for requests in rolling[tally.rolling_windows.min(rolling.len())..].chunks(batch) {
            for scored in self.scorer.score(requests, &mut |_, _| ())? {
                tally.predicted += scored.log_probs.len();
                tally.total_nats -= scored.sum();
            }
            tally.rolling_windows += requests.len();
            let tokens = requests.iter().map(|r| r.context.len() + r.continuation.len() - 1).sum();
            step(&tally, tokens)?;
        }
        Ok(tally)
    }
}
