//! Chooses the next token of every row.

use std::sync::OnceLock;

use burn::tensor::{Tensor, TensorData, Transaction};
use rayon::prelude::*;

use crate::error::GenerationError;
use crate::sampler::{Choice, Sampler};

/// Rows of logits from which samplers choose.
///
/// For greedy samplers without bias, penalties and log-probabilities, the device finds the maximum of each row, and
/// only its value and index are read. The rows are read completely when another sampler needs them.
pub(crate) struct LogitRows {
    vocab: usize,
    /// `[rows, vocab]`; `None` if `values` has been read at once
    logits: Option<Tensor<2>>,
    /// The largest logit of each row and its id.
    most: Option<(Vec<f32>, Vec<u32>)>,
    values: OnceLock<TensorData>,
}

impl LogitRows {
    /// Reads what samplers of `logits` `[rows, vocab]` need; `greedy` says which of them need the maximum only.
    pub(crate) fn new(
        logits: Tensor<2>,
        greedy: impl Iterator<Item = bool>,
    ) -> Result<Self, GenerationError> {
        let (any, all) = greedy.fold((false, true), |(any, all), one| (any || one, all && one));
        let mut most = None;
        if any {
            let (values, ids) = logits.clone().max_dim_with_indices(1);
            let found = Transaction::default().register(values).register(ids).try_execute();
            let [values, ids] = found.map_err(unreadable)?.try_into().expect("two tensors");
            most = Some((values.iter().collect(), ids.iter().collect()));
        }
        let [_, vocab] = logits.dims();
        if all {
            return Ok(Self { vocab, logits: Some(logits), most, values: OnceLock::new() });
        }
        let data = logits.try_into_data().map_err(unreadable)?.convert::<f32>();
        Ok(Self { vocab, logits: None, most, values: data.into() })
    }

    /// Returns what `sampler` chooses from a row; `None` if no allowed logit is finite.
    ///
    /// # Errors
    /// [`GenerationError::Device`] when the logits cannot be read.
    pub(crate) fn choose(
        &self,
        row: usize,
        sampler: &mut Sampler,
    ) -> Result<Option<Choice>, GenerationError> {
        if let Some((most, ids)) = &self.most
            && sampler.needs_maximum_only()
            && most[row].is_finite()
            && sampler.allows(ids[row])
        {
            return Ok(Some(ids[row].into()));
        }
        // a greedy sampler gets here if the most likely token is not allowed, which is rare
        Ok(sampler.choose_with_logprobs(&self.values()?[row * self.vocab..][..self.vocab]))
    }

    fn values(&self) -> Result<&[f32], GenerationError> {
        if let (None, Some(logits)) = (self.values.get(), &self.logits) {
            let data = logits.clone().try_into_data().map_err(unreadable)?;
            self.values.get_or_init(|| data.convert::<f32>());
        }
        let data = self.values.get().expect("it has been read");
        data.as_slice::<f32>().map_err(unreadable)
    }
}

/// Returns what each sampler chooses from its row of `logits` `[rows, vocab]`, or `None`
/// if no allowed logit of the row is finite.
///
/// # Errors
/// [`GenerationError::Device`] when the logits cannot be read.
pub(crate) fn choose(
    logits: Tensor<2>,
    samplers: &mut [&mut Sampler],
) -> Result<Vec<Option<Choice>>, GenerationError> {
    let greedy = samplers.iter().map(|sampler| sampler.needs_maximum_only());
    let logits = LogitRows::new(logits, greedy)?;
    let rows = samplers.par_iter_mut().enumerate();
    rows.map(|(row, sampler)| logits.choose(row, sampler)).collect()
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> GenerationError {
    GenerationError::Device(Box::new(error))
}
