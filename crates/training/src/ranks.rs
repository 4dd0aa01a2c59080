//! What the processes of a run must agree on after they began: the same weights, the same end.

use block_transformer_collectives::{Collective, Wire, named};
use block_transformer_zoo::LanguageModel;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

use crate::error::TrainError;

/// Returns for each of `flags` whether any rank has it.
pub(crate) fn any<const N: usize>(
    ranks: &dyn Collective,
    flags: [bool; N],
    device: &Device,
) -> Result<[bool; N], TrainError> {
    if ranks.size() == 1 {
        return Ok(flags);
    }
    let own = Tensor::from_data(flags.map(|flag| f32::from(u8::from(flag))), device);
    let sum = ranks.sum(vec![own], Wire::F32)?.remove(0).into_data();
    let mut counts = sum.iter::<f32>();
    Ok(flags.map(|_| counts.next().is_some_and(|count| count > 0.0)))
}

/// Checks that the weights of all ranks are equal after step `step`, by a checksum of each parameter.
///
/// # Errors
/// [`TrainError::RanksDrifted`] names the ranks whose weights are not those of rank 0.
pub(crate) fn check_weights(
    ranks: &dyn Collective,
    model: &LanguageModel,
    step: u64,
) -> Result<(), TrainError> {
    let mut sums = Checksums(Vec::new());
    model.visit(&mut sums);
    let all = ranks.gather(sums.0.iter().flat_map(|sum| sum.to_le_bytes()).collect())?;
    let drifted: Vec<usize> = (1..all.len()).filter(|&rank| all[rank] != all[0]).collect();
    if drifted.is_empty() {
        return Ok(());
    }
    Err(TrainError::RanksDrifted { ranks: named(&drifted), step })
}

struct Checksums(Vec<u32>);

impl ModuleVisitor for Checksums {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(crc32c::crc32c(param.val().inner().into_data().as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_transformer_collectives::Replica;
    use block_transformer_zoo::{Family, FamilyConfig, preset};

    #[test]
    fn a_flag_of_one_rank_is_seen_by_all() {
        let flags = |ranks: [bool; 3]| {
            Replica::each(3, move |replica| {
                any(replica, [ranks[replica.rank()], false], &Device::flex()).unwrap()
            })
        };
        assert_eq!(flags([false, true, false]), [[true, false]; 3]);
        assert_eq!(flags([false; 3]), [[false; 2]; 3]);
    }

    #[test]
    fn weights_that_differ_in_one_value_are_an_error_that_names_the_rank() {
        let config = preset("debug-block").unwrap().model.clone().with_vocab_size(64);
        let results = Replica::each(3, |replica| {
            let seed = u64::from(replica.rank() == 2);
            let model = LanguageModel::init(&config, seed, &Device::flex().autodiff());
            check_weights(replica, &model, 7).err().map(|error| error.to_string())
        });
        for error in results {
            let error = error.unwrap();
            assert!(error.contains("step 7") && error.contains("rank 2"), "{error}");
        }
        let same = Replica::each(2, |replica| {
            let model = LanguageModel::init(&config, 0, &Device::flex().autodiff());
            check_weights(replica, &model, 7).is_ok()
        });
        assert_eq!(same, [true; 2]);
    }
}
