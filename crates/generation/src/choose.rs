//! Chooses the next token of every row.

use burn::tensor::{Tensor, TensorData, Transaction};
use rayon::prelude::*;

use crate::error::GenerationError;
use crate::sampling::Sampler;

/// Returns the token that each sampler chooses from its row of `logits` `[rows, vocab]`, or `None`
/// if no allowed logit of the row is finite.
///
/// For greedy samplers the device finds the maximum, and only its value and index are read. The rows
/// of other samplers are read completely.
pub(crate) fn choose(
    logits: Tensor<2>,
    samplers: &mut [&mut Sampler],
) -> Result<Vec<Option<u32>>, GenerationError> {
    let mut chosen = vec![None; samplers.len()];
    let (greedy, mut on_host): (Vec<usize>, Vec<usize>) =
        (0..samplers.len()).partition(|&row| samplers[row].is_greedy());
    if !greedy.is_empty() {
        let (most, at) = logits.clone().max_dim_with_indices(1);
        let found = Transaction::default().register(most).register(at).try_execute();
        let [most, at] = found.map_err(unreadable)?.try_into().expect("two tensors");
        let (most, at): (Vec<f32>, Vec<u32>) = (most.iter().collect(), at.iter().collect());
        for row in greedy {
            if most[row].is_finite() && samplers[row].allows(at[row]) {
                chosen[row] = Some(at[row]);
            } else {
                // rare: the most likely token is not allowed
                on_host.push(row);
            }
        }
    }
    if on_host.is_empty() {
        return Ok(chosen);
    }
    on_host.sort_unstable();
    let [rows, vocab] = logits.dims();
    let logits = if on_host.len() == rows {
        logits
    } else {
        let picked: Vec<i64> = on_host.iter().map(|&row| row as i64).collect();
        let picked = TensorData::new(picked, [on_host.len()]);
        let picked = Tensor::from_data(picked, &logits.device());
        logits.select(0, picked)
    };
    let data = logits.try_into_data().map_err(unreadable)?.convert::<f32>();
    let values = data.as_slice::<f32>().map_err(unreadable)?;
    let sampled = samplers.iter_mut().zip(&mut chosen).enumerate();
    let sampled = sampled.filter(|(row, _)| on_host.binary_search(row).is_ok());
    let sampled: Vec<_> = sampled.map(|(_, sampled)| sampled).collect();
    sampled
        .into_par_iter()
        .zip(values.par_chunks(vocab))
        .for_each(|((sampler, chosen), logits)| *chosen = sampler.choose(logits));
    Ok(chosen)
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> GenerationError {
    GenerationError::Device(Box::new(error))
}
