//! Rows of a block whose tokens the host chooses, on a device that chooses those of the other rows.

use block_transformer_layers::int_tensor;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::choose::choose;
use crate::error::GenerationError;
use crate::sampler::{Choice, Sampler};

/// The rows whose samplers need the logits on the host.
pub(crate) struct HostRows {
    rows: Vec<usize>,
    /// Their choices, by place in the block.
    chosen: Vec<Vec<Option<Choice>>>,
}

impl HostRows {
    /// The rows at the start of a block.
    pub(crate) fn of(samplers: &[&mut Sampler]) -> Self {
        let all = samplers.iter().enumerate();
        let rows = all.filter(|(_, sampler)| sampler.needs_host()).map(|(row, _)| row);
        Self { rows: rows.collect(), chosen: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Chooses the next tokens of these rows from the `logits` `[all rows, vocab]`, and puts them into `ids`
    /// `[all rows]`, which the device has chosen.
    ///
    /// # Errors
    /// [`GenerationError::Device`] when the logits cannot be read.
    pub(crate) fn choose(
        &mut self,
        logits: &Tensor<2>,
        samplers: &mut [&mut Sampler],
        ids: Tensor<1, Int>,
    ) -> Result<Tensor<1, Int>, GenerationError> {
        if self.is_empty() {
            return Ok(ids);
        }
        let ([count], device) = (ids.dims(), ids.device());
        let own = logits.clone().select(0, int_tensor(self.rows.iter().copied(), &device));
        let is_own = |row: usize| self.rows.binary_search(&row).is_ok();
        let all = samplers.iter_mut().enumerate();
        let mut samplers: Vec<&mut Sampler> =
            all.filter(|(row, _)| is_own(*row)).map(|(_, sampler)| &mut **sampler).collect();
        let chosen = choose(own, &mut samplers)?;
        // as on the device, a row whose logits are not finite goes on with any token; nothing reads it
        let mut own_ids = vec![0; count];
        for (&row, chosen) in self.rows.iter().zip(&chosen) {
            own_ids[row] = chosen.as_ref().map_or(0, |chosen| chosen.token);
        }
        let mask: Vec<bool> = (0..count).map(is_own).collect();
        let mask = Tensor::<1, Bool>::from_data(TensorData::new(mask, [count]), &device);
        self.chosen.push(chosen);
        Ok(ids.mask_where(mask, int_tensor(own_ids, &device)))
    }

    /// All choices by place and row, where `block` has those of the device.
    pub(crate) fn merged(self, block: Vec<Vec<Option<u32>>>) -> Vec<Vec<Option<Choice>>> {
        let mut block: Vec<Vec<Option<Choice>>> = block
            .into_iter()
            .map(|tokens| tokens.into_iter().map(|token| token.map(Choice::from)).collect())
            .collect();
        for (all, own) in block.iter_mut().zip(self.chosen) {
            for (&row, choice) in self.rows.iter().zip(own) {
                all[row] = choice;
            }
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::sampling::Sampling;
    use burn::tensor::Device;

    const VOCAB: usize = 40;

    fn ids(tensor: Tensor<1, Int>) -> Vec<i64> {
        tensor.into_data().iter::<i64>().collect()
    }

    /// Two rows for the device, and three for the host.
    fn options() -> [Options; 5] {
        let plain = Options::default();
        let sampling = Sampling::at(1.0, 5);
        [
            Options { logprobs: Some(3), ..plain.clone() },
            plain.clone(),
            Options { sampling: Sampling { min_p: Some(0.1), ..sampling }, ..plain.clone() },
            Options { sampling, ..plain.clone() },
            Options { sampling: Sampling { frequency_penalty: 2.0, ..sampling }, ..plain },
        ]
    }

    #[test]
    fn the_host_chooses_the_rows_that_need_it_and_the_device_the_others() {
        let (options, device) = (options(), Device::flex());
        let rows = options.len();
        let mut samplers = options.clone().map(|options| Sampler::new(&options));
        let mut samplers: Vec<&mut Sampler> = samplers.iter_mut().collect();
        let mut on_host = HostRows::of(&samplers);
        assert_eq!(on_host.rows, [0, 2, 4]);
        // of each place and row
        let logits = |place: usize, row: usize| -> Vec<f32> {
            (0..VOCAB).map(|id| ((place * 7 + row * 3 + id) * 31 % VOCAB) as f32 / 9.0).collect()
        };
        let mut next = Vec::new();
        for place in 0..4 {
            let mut all: Vec<f32> = (0..rows).flat_map(|row| logits(place, row)).collect();
            if place == 3 {
                all[4 * VOCAB..].fill(f32::NAN);
            }
            let all = Tensor::from_data(TensorData::new(all, [rows, VOCAB]), &device);
            let of_device = int_tensor([30, 31, 32, 33, 34], &device);
            next.push(ids(on_host.choose(&all, &mut samplers, of_device).unwrap()));
        }
        let of_device = (0..4).map(|place| vec![Some(30), Some(place), None, Some(33), Some(34)]);
        let merged = on_host.merged(of_device.collect());
        for (row, options) in options.iter().enumerate() {
            let mut alone = Sampler::new(options);
            for place in 0..4 {
                let (next, merged) = (next[place][row], &merged[place][row]);
                match row {
                    1 => {
                        assert_eq!((next, merged), (31, &Some(Choice::from(place as u32))));
                    }
                    3 => assert_eq!((next, merged), (33, &Some(Choice::from(33)))),
                    4 if place == 3 => assert_eq!((next, merged), (0, &None)),
                    _ => {
                        let expected = alone.choose_with_logprobs(&logits(place, row));
                        assert_eq!(*merged, expected, "row {row}, place {place}");
                        assert_eq!(next, i64::from(expected.unwrap().token));
                    }
                }
            }
        }
        assert!(merged[0][0].as_ref().unwrap().logprobs.is_some());
    }

    #[test]
    fn without_such_rows_nothing_is_read() {
        let mut samplers = [1, 3].map(|i| Sampler::new(&options()[i]));
        let mut samplers: Vec<&mut Sampler> = samplers.iter_mut().collect();
        let mut on_host = HostRows::of(&samplers);
        assert!(on_host.is_empty());
        let device = Device::flex();
        let logits = Tensor::zeros([2, VOCAB], &device);
        let next = on_host.choose(&logits, &mut samplers, int_tensor([7, 8], &device)).unwrap();
        assert_eq!(ids(next), [7, 8]);
        let block = vec![vec![Some(7), None]];
        assert_eq!(on_host.merged(block), [[Some(Choice::from(7)), None]]);
        // the random numbers for the device are those of the samplers
        let noise = samplers.iter_mut().map(|sampler| sampler.noise()).collect::<Vec<_>>();
        assert!(noise[0] == 0.0 && noise[1] > 0.0);
    }
}
