//! Losses of one book under one model.

use std::ops::Range;

use block_transformer_family::Family;
use serde::{Deserialize, Serialize};

use crate::documents::windows::Windows;
use crate::error::EvalError;
use crate::score::{Request, Scored, Scorer, rolling_window};

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
    /// Windows of the whole-book measurement that are done ([`rolling_windows`](crate::rolling_windows)).
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

/// Windows of a book that are scored together.
#[derive(Debug)]
pub(crate) struct BookBatch {
    part: Part,
    pub windows: Range<usize>,
    /// Tokens that are run through the model.
    pub tokens: usize,
}

/// The two parts of the measurement of a book.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// Windows whose loss is measured position by position.
    Windows,
    /// Windows in which every token is predicted once ([`rolling_window`]).
    Rolling,
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
        tally = self.sized(tally);
        for batch in self.batches(ids.len(), &tally) {
            let scored = self.score_batch(ids, &batch)?;
            self.add(&mut tally, &batch, &scored);
            step(&tally, batch.tokens)?;
        }
        Ok(tally)
    }

    /// `tally` with a sum for each position.
    pub(crate) fn sized(&self, mut tally: Tally) -> Tally {
        tally.sums.resize(self.measures.windows.context, 0.0);
        tally
    }

    /// The batches of a book of `tokens` tokens after those that `tally` records, in the order of scoring.
    pub(crate) fn batches(
        &self,
        tokens: usize,
        tally: &Tally,
    ) -> impl Iterator<Item = BookBatch> + use<M> {
        let Measures { windows, documents, batch } = self.measures;
        let batches = move |part, done: usize, count, tokens| {
            (done..count).step_by(batch).map(move |first| {
                let windows = first..count.min(first + batch);
                BookBatch { part, tokens: tokens * windows.len(), windows }
            })
        };
        let rolling = if documents { tokens.div_ceil(windows.context) } else { 0 };
        let cut = batches(Part::Windows, tally.windows, windows.count(tokens), windows.context);
        let in_rolling = windows.context.min(tokens);
        cut.chain(batches(Part::Rolling, tally.rolling_windows, rolling, in_rolling))
    }

    /// Scores a batch of the book `ids`.
    pub(crate) fn score_batch(
        &self,
        ids: &[u32],
        batch: &BookBatch,
    ) -> Result<Vec<Scored>, EvalError> {
        let windows = self.measures.windows;
        // the first block of a window is not predicted
        let first = self.scorer.block_length();
        let request = |i| match batch.part {
            Part::Windows => {
                let (context, continuation) = ids[windows.range(i)].split_at(first);
                Request { context: context.into(), continuation: continuation.into() }
            }
            Part::Rolling => rolling_window(ids, windows.context, i),
        };
        let requests: Vec<Request> = batch.windows.clone().map(request).collect();
        self.scorer.score(&requests, &mut |_, _| ())
    }

    /// Adds the scores of a batch to the tally of its book.
    pub(crate) fn add(&self, tally: &mut Tally, batch: &BookBatch, scored: &[Scored]) {
        match batch.part {
            Part::Windows => {
                let sums = &mut tally.sums[self.scorer.block_length()..];
                for scored in scored {
                    sums.iter_mut().zip(&scored.log_probs).for_each(|(sum, log_p)| *sum -= log_p);
                }
                tally.windows = batch.windows.end;
            }
            Part::Rolling => {
                for scored in scored {
                    tally.predicted += scored.log_probs.len();
                    tally.total_nats -= scored.sum();
                }
                tally.rolling_windows = batch.windows.end;
            }
        }
    }
}
