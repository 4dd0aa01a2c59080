//! Recomputation of activations: the same bits, in every stack.

use block_transformer_datasets::Window;
use block_transformer_testing::{VOCAB, shapes};
use block_transformer_training::{StepResult, TrainConfig, Trainer};
use block_transformer_zoo::{FamilyConfig, LanguageModel, ModelConfig, Precision};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

/// Bits of all weights, in the order of the model.
fn bits(model: &LanguageModel) -> Vec<Vec<u32>> {
    struct Bits(Vec<Vec<u32>>);
    impl ModuleVisitor for Bits {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.val().into_data().iter::<f32>().map(f32::to_bits).collect());
        }
    }
    let mut bits = Bits(Vec::new());
    model.visit(&mut bits);
    bits.0
}

/// Two micro-batches of three windows; one window ends with padding.
fn windows(step: u32, length: usize) -> Vec<Vec<Window>> {
    let window = |seed: u32| {
        let ids =
            (0..length as u32).map(|i| 2 + (i * i * 7 + i * seed + step * 31) % (VOCAB as u32 - 2));
        Window {
            ids: ids.collect(),
            is_token: (0..length).map(|i| seed != 4 || i < length - 6).collect(),
        }
    };
    (0..2).map(|batch| (0..3).map(|i| window(batch * 3 + i)).collect()).collect()
}

/// Losses, gradient norms and weights after three steps.
fn trained(
    model: &ModelConfig,
    precision: Precision,
    recompute: bool,
) -> (Vec<StepResult>, Vec<Vec<u32>>) {
    let config = TrainConfig {
        precision,
        recompute,
        clip: 1e-2,
        ..TrainConfig::from_preset("debug-block").unwrap()
    };
    let mut trainer = Trainer::<LanguageModel>::new(model, &config, &Device::flex());
    let results =
        (0..3).map(|step| trainer.step(&windows(step, 10 * model.block_length()), 1e-2)).collect();
    (results, bits(trainer.model()))
}

#[test]
fn every_model_has_the_same_bits_with_and_without_recomputation() {
    for (name, model) in shapes() {
        for precision in [Precision::F32, Precision::Bf16] {
            let (results, weights) = trained(&model, precision, true);
            let (expected, expected_weights) = trained(&model, precision, false);
            assert!(expected.iter().all(StepResult::is_finite), "{name} {precision}");
            assert_eq!(results, expected, "{name} {precision}");
            let same = weights.iter().zip(&expected_weights).filter(|(a, b)| a == b).count();
            assert_eq!(same, expected_weights.len(), "{name} {precision}");
        }
    }
}
