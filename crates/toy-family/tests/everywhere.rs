//! A family outside every registry is trained, decoded, evaluated, exported and imported.

use std::ops::ControlFlow;

use block_transformer_datasets::Window;
use block_transformer_evaluation::{Request, Scorer};
use block_transformer_family::{Family, FamilyConfig};
use block_transformer_generation::{Options, generate};
use block_transformer_toy_family::{Bigram, BigramConfig};
use block_transformer_training::{TrainConfig, Trainer};
use block_transformer_weights::{Source, load, published_tensors};
use burn::module::Module;
use burn::tensor::Device;

const CONFIG: BigramConfig = BigramConfig { vocab_size: 12, width: 8 };

/// Returns `count` tokens of the cycle 2, 3, ..., 11, 2, 3, ..., from index `start` on.
fn cycle(start: usize, count: usize) -> Vec<u32> {
    (start..start + count).map(|i| 2 + (i % 10) as u32).collect()
}

fn trained(device: &Device) -> Bigram {
    CONFIG.check().unwrap();
    let config = TrainConfig::from_preset("debug-vanilla").unwrap();
    let mut trainer = Trainer::<Bigram>::new(&CONFIG, &config, device);
    let window = |i| {
        let ids = cycle(i, 16);
        Window { is_token: vec![true; ids.len()], ids }
    };
    let losses: Vec<f64> = (0..60)
        .map(|step| trainer.step(&[(0..4).map(|row| window(4 * step + row)).collect()], 0.1).loss)
        .collect();
    assert!(losses[0] > 2.0 && losses[59] < 0.1, "{losses:?}");
    trainer.model().valid()
}

#[test]
fn a_family_outside_the_registry_trains_generates_and_evaluates() {
    let device = Device::flex();
    let model = trained(&device);

    let options = Options { max_tokens: 12, eos: None, ..Options::default() };
    let prompts = [cycle(0, 1), cycle(3, 5)];
    let go_on = |_, _| ControlFlow::Continue(());
    let continuations = generate(&model, &prompts, &options, &device, go_on).unwrap();
    assert_eq!(continuations, [cycle(1, 12), cycle(8, 12)]);

    let request = |start| Request { context: cycle(0, 4), continuation: cycle(start, 6) };
    let scorer = Scorer::new(&model);
    let scores = scorer.score(&[request(4), request(5)], &mut |_, _| {}).unwrap();
    assert!(scores[0].greedy && scores[0].sum() > -1.0, "{scores:?}");
    assert!(!scores[1].greedy && scores[1].sum() < -3.0, "{scores:?}");
}

#[test]
fn a_family_outside_the_registry_is_exported_and_imported() {
    let device = Device::flex();
    let [model, other] = [1, 2].map(|seed| Bigram::init(&CONFIG, seed, &device));
    let tensors = published_tensors(&model, &CONFIG, Source::Values);
    assert_eq!(tensors.keys().collect::<Vec<_>>(), ["head.weight", "table.weight"]);
    let (other, unused) = load(other, &CONFIG, &tensors, "a test").unwrap();
    assert!(unused.is_empty());
    assert_eq!(published_tensors(&other, &CONFIG, Source::Values), tensors);
}
