//! Losses of one book under one model.

use block_transformer_evaluation::{EvalError, Request, Scorer, rolling_windows};
use block_transformer_zoo::{FamilyConfig, LanguageModel, ModelConfig};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::Windows;

/// What is measured of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measures {
    /// The windows whose positions are told apart.
    pub windows: Windows,
    /// Whether the whole book is scored besides, each token once.
    pub documents: bool,
    /// Windows computed together.
    pub batch: usize,
}

/// Sums over a book, or over the part of it that is done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Windows done.
    pub windows: usize,
    /// Loss in nats at each position of a window, summed over the windows; 0 at the positions of
    /// the first block, which nothing predicts.
    pub sums: Vec<f64>,
    /// Rolling windows done.
    pub rolled: usize,
    /// Tokens predicted in them.
    pub predicted: usize,
    /// Their loss in nats.
    pub nats: f64,
}

/// Measures books with a model.
#[derive(Debug)]
pub struct Meter<'a> {
    scorer: Scorer<'a>,
    /// Positions of a window that nothing predicts: the first block, or a vanilla model's first token.
    first: usize,
    measures: Measures,
}

impl<'a> Meter<'a> {
    /// A meter of `model`, which lives on `device`.
    ///
    /// # Errors
    /// When the model is not of the family of `config`, or a number of `measures` is 0.
    pub fn new(
        model: &LanguageModel,
        config: &'a ModelConfig,
        measures: Measures,
        device: &Device,
    ) -> Result<Self, EvalError> {
        let context = measures.windows.context;
        let scorer = Scorer::new(model, config, device)?
            .with_context(context)?
            .with_batch_tokens(measures.batch * context)?;
        Ok(Self { scorer, first: config.block_length(), measures })
    }

    /// Windows and rolling windows of a book of `tokens` tokens: the work there is.
    pub fn work(&self, tokens: usize) -> usize {
        let Measures { windows, documents, .. } = self.measures;
        let rolling = if documents { tokens.div_ceil(windows.context) } else { 0 };
        windows.count(tokens) + rolling
    }

    /// Measures the book `ids`, or goes on from `tally`. `step` hears of the tally and of the tokens
    /// run through the model after each batch, and may stop it.
    ///
    /// # Errors
    /// When an id is none of the model's, a loss is not finite, or `step` fails.
    pub fn measure<E: From<EvalError>>(
        &self,
        ids: &[u32],
        mut tally: Tally,
        mut step: impl FnMut(&Tally, usize) -> Result<(), E>,
    ) -> Result<Tally, E> {
        let Measures { windows, documents, batch } = self.measures;
        tally.sums.resize(windows.context, 0.0);
        let count = windows.count(ids.len());
        while tally.windows < count {
            let until = count.min(tally.windows + batch);
            let requests: Vec<Request> =
                (tally.windows..until).map(|i| self.window(&ids[windows.range(i)])).collect();
            for scored in self.scorer.score(&requests, |_| ())? {
                let places = &mut tally.sums[self.first..];
                places.iter_mut().zip(&scored.log_probs).for_each(|(sum, log_p)| *sum -= log_p);
            }
            tally.windows = until;
            step(&tally, requests.len() * windows.context)?;
        }
        let rolling = if documents { rolling_windows(ids, windows.context) } else { Vec::new() };
        for requests in rolling[tally.rolled.min(rolling.len())..].chunks(batch) {
            for scored in self.scorer.score(requests, |_| ())? {
                tally.predicted += scored.log_probs.len();
                tally.nats -= scored.sum();
            }
            tally.rolled += requests.len();
            let tokens = requests.iter().map(|r| r.context.len() + r.continuation.len() - 1).sum();
            step(&tally, tokens)?;
        }
        Ok(tally)
    }

    /// A window as the first block, and the rest of it that is predicted from there on.
    fn window(&self, ids: &[u32]) -> Request {
        let (context, continuation) = ids.split_at(self.first);
        Request { context: context.into(), continuation: continuation.into() }
    }
}
