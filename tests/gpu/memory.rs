//! The activations that a forward pass leaves for the backward pass on CUDA, against the formula of
//! `crates/cost`.

use std::collections::BTreeMap;
use std::path::Path;

use block_transformer_cost::{Holding, OptimizerKind, TrainingMemory, TrainingShape};
use block_transformer_datasets::Window;
use block_transformer_device::DeviceName;
use block_transformer_layers::recompute_layers;
use block_transformer_training::{TrainConfig, token_batch};
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, ModelConfig, Precision, preset};
use burn::tensor::Device;

/// The relative error of the formula.
const TOLERANCE: f64 = 0.1;
const CONTEXT: usize = 128;

const SETTINGS: [(Precision, bool); 4] = [
    (Precision::F32, false),
    (Precision::F32, true),
    (Precision::Bf16, false),
    (Precision::Bf16, true),
];

fn models() -> Vec<(&'static str, ModelConfig)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/gpu/layer-170m.toml");
    let layer = TrainConfig::layered(Some(&path), &BTreeMap::<String, String>::new()).unwrap();
    let of = |name| (name, preset(name).unwrap().model.clone().with_vocab_size(512));
    vec![of("debug-block"), of("debug-vanilla"), ("layer-170m", layer.model)]
}

fn shape(batch: usize, precision: Precision, recompute: bool) -> TrainingShape {
    let (context, holding, optimizer) = (CONTEXT, Holding::Cube, OptimizerKind::Adamw);
    TrainingShape { batch, accumulate: 1, context, precision, recompute, holding, optimizer }
}

fn windows(vocab: usize, batch: usize) -> Vec<Window> {
    let window = |i: usize| Window {
        ids: (0..CONTEXT).map(|j| ((i * 7 + j * j) % vocab) as u32).collect(),
        is_token: vec![true; CONTEXT],
    };
    (0..batch).map(window).collect()
}

/// Bytes in the pools of `device` beyond those before the forward pass of a micro-batch.
fn left(model: &LanguageModel, shape: TrainingShape, device: &Device) -> u64 {
    let in_use = || device.memory_pool_usage().unwrap().bytes_in_use;
    let config = model.config();
    let windows = windows(config.vocab_size(), shape.batch);
    let batch = token_batch(&windows, config.block_length(), &device.clone().autodiff());
    device.sync().unwrap();
    let before = in_use();
    let model = model.clone().with_precision(shape.precision);
    let loss = recompute_layers(shape.recompute, || model.loss(&batch));
    let _ = loss.clone().inner().into_data();
    device.sync().unwrap();
    let left = in_use() - before;
    // a graph without a backward pass would be freed by that of another test, at any time
    drop(loss.backward());
    left
}

#[test]
fn the_formula_gives_the_activations_of_a_forward_pass() {
    // what is held depends on shapes only, so the driver need not compute
    let Ok(device) = DeviceName::Cuda(0).open() else {
        eprintln!("skipped: there is no CUDA, not even a driver that computes nothing");
        return;
    };
    let mut wrong = Vec::new();
    for (name, config) in models() {
        let model = config.init(3, &device.clone().autodiff());
        // parameters get their memory when they are first used
        left(&model, shape(1, Precision::F32, false), &device);
        for (precision, recompute) in SETTINGS {
            let shape = |batch| shape(batch, precision, recompute);
            let found = left(&model, shape(12), &device) - left(&model, shape(4), &device);
            let kept = |batch| TrainingMemory::kept(&config, shape(batch));
            let per_token = |bytes: f64| bytes / (8 * CONTEXT) as f64;
            let (found, expected) = (per_token(found as f64), per_token(kept(12) - kept(4)));
            if (expected / found - 1.0).abs() > TOLERANCE {
                wrong.push(format!(
                    "{name} {precision}, recompute {recompute}: {found:.0} bytes per token, formula {expected:.0}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
