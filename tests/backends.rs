//! A model of the published size on both backends for the processor.

use std::ops::ControlFlow;

use block_transformer_datasets::Window;
use block_transformer_generation::{Options, Sampling, generate};
use block_transformer_training::{TrainConfig, Trainer, token_batch};
use block_transformer_zoo::{Family, FamilyConfig, ModelConfig};
use burn::module::Module;
use burn::tensor::Device;
use rand::{RngExt, SeedableRng};

use crate::support::one_at_a_time;

const PRESET: &str = "block-170m";
const CONTEXT: usize = 64;
const GENERATED: usize = 8;
/// The largest allowed difference of a logit between the backends.
const TOLERANCE: f32 = 1e-4;

/// The results of one backend.
struct Computed {
    /// The loss before a training step, the global norm of its gradient, the loss after it.
    training: [f64; 3],
    generated: Vec<u32>,
    /// The logits from which each generated token was chosen.
    logits: Vec<Vec<f32>>,
}

fn ids(count: usize, config: &ModelConfig) -> Vec<u32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    (0..count).map(|_| rng.random_range(2..config.vocab_size() as u32)).collect()
}

fn window(ids: Vec<u32>) -> Window {
    Window { is_token: vec![true; ids.len()], ids }
}

fn compute(device: &Device) -> Computed {
    let config = &block_transformer_zoo::preset(PRESET).unwrap().model;
    let train = TrainConfig::from_preset(PRESET).unwrap();
    let length = config.block_length();
    let mut trainer: Trainer = Trainer::new(config, &train, device);

    let prompt = ids(3 * length, config);
    let options = Options {
        sampling: Sampling::greedy(),
        max_tokens: GENERATED,
        eos: None,
        ..Options::default()
    };
    let go_on = |_, _| ControlFlow::Continue(());
    let prompts = std::slice::from_ref(&prompt);
    let generated = generate(trainer.model(), prompts, &options, device, go_on);
    let generated = generated.unwrap().remove(0);
    let all = [prompt, generated.clone()].concat();
    let batch = token_batch(&[window(all)], length, device);
    let (logits, _) = trainer.model().valid().predict(&batch);
    let logits = logits.slice([0..1, 2 * length..2 * length + GENERATED]);
    let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();

    let windows = vec![window(ids(CONTEXT, config))];
    let step = trainer.step(std::slice::from_ref(&windows), 1e-3);
    let after = trainer.model().loss(&token_batch(&windows, length, device));
    Computed {
        training: [step.loss, step.grad_norm, after.into_scalar::<f64>()],
        generated,
        logits: logits.chunks(config.vocab_size()).map(<[f32]>::to_vec).collect(),
    }
}

#[test]
#[expect(deprecated, reason = "supported for as long as burn has it")]
fn a_model_of_85m_parameters_trains_and_generates_equally_on_flex_and_ndarray() {
    let _alone = one_at_a_time();
    let (flex, ndarray) = (compute(&Device::flex()), compute(&Device::ndarray()));
    for (a, b) in flex.training.iter().zip(ndarray.training) {
        assert!((a - b).abs() <= 1e-4 * a.abs(), "{:?} {:?}", flex.training, ndarray.training);
    }
    assert!(flex.training[2] < flex.training[0] - 0.1, "{:?}", flex.training);
    assert_eq!(flex.generated.len(), GENERATED);
    for (token, (a, b)) in flex.logits.iter().zip(&ndarray.logits).enumerate() {
        let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference <= TOLERANCE, "{difference}");
        // rounding cannot change the choice if the two largest logits are not nearly equal
        let mut sorted = a.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        assert!(sorted[0] - sorted[1] > 10.0 * TOLERANCE, "token {token}: {:?}", &sorted[..2]);
        assert_eq!(sorted[0], a[flex.generated[token] as usize]);
    }
    assert_eq!(flex.generated, ndarray.generated);
}
