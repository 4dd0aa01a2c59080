//! Choosing the next token of every row.

use burn::tensor::{Tensor, TensorData, Transaction};
use rayon::prelude::*;

use crate::{GenerationError, Sampler};

/// The tokens that `samplers` choose from the rows of `logits` `[rows, v]`; none where these are no
/// numbers.
///
/// Rows that take the most likely token are searched where they are, and only what was found comes
/// to the host. The others come whole.
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
        let [most, at] = found.map_err(device)?.try_into().expect("two tensors");
        let (most, at): (Vec<f32>, Vec<u32>) = (most.iter().collect(), at.iter().collect());
        for row in greedy {
            if most[row].is_finite() && samplers[row].allows(at[row]) {
                chosen[row] = Some(at[row]);
            } else {
                // seldom: what is most likely may not be written
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
    let data = logits.try_into_data().map_err(device)?.convert::<f32>();
    let values = data.as_slice::<f32>().map_err(device)?;
    let sampled = samplers.iter_mut().zip(&mut chosen).enumerate();
    let sampled = sampled.filter(|(row, _)| on_host.binary_search(row).is_ok());
    let sampled: Vec<_> = sampled.map(|(_, sampled)| sampled).collect();
    sampled
        .into_par_iter()
        .zip(values.par_chunks(vocab))
        .for_each(|((sampler, chosen), logits)| *chosen = sampler.choose(logits));
    Ok(chosen)
}

fn device(error: impl std::fmt::Debug) -> GenerationError {
    GenerationError::Device(format!("{error:?}"))
}
