//! The activations that a forward pass leaves for the backward pass, against the formula of `crates/cost`.

use std::collections::BTreeMap;
use std::path::Path;

use block_transformer_cost::{Holding, TrainingMemory, TrainingShape};
use block_transformer_datasets::Window;
use block_transformer_device::DeviceName;
use block_transformer_layers::recompute_layers;
use block_transformer_training::{TrainConfig, token_batch};
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, ModelConfig, Precision, preset};
use burn::tensor::Device;

/// The relative error of the formula.
const TOLERANCE: f64 = 0.1;
const CONTEXT: usize = 128;

/// Bytes in the pools of `device` beyond those before the forward pass of `batch` sequences.
fn left(model: &LanguageModel, shape: TrainingShape, device: &Device) -> u64 {
    let in_use = || device.memory_pool_usage().unwrap().bytes_in_use;
    let vocab = model.config().vocab_size();
    let window = |i: usize| Window {
        ids: (0..CONTEXT).map(|j| ((i * 7 + j * j) % vocab) as u32).collect(),
        is_token: vec![true; CONTEXT],
    };
    let windows: Vec<Window> = (0..shape.batch).map(window).collect();
    let batch = token_batch(&windows, model.config().block_length(), &device.clone().autodiff());
    device.sync().unwrap();
    let before = in_use();
    let model = model.clone().with_precision(shape.precision);
    let loss = recompute_layers(shape.recompute, || model.loss(&batch));
    let _ = loss.clone().inner().into_data();
    device.sync().unwrap();
    in_use() - before
}

#[test]
fn the_formula_gives_the_activations_of_a_forward_pass() {
    // what a forward pass leaves depends on shapes only, so the driver need not compute
    let Ok(device) = DeviceName::Cuda(0).open() else {
        eprintln!("skipped: there is no CUDA, not even a driver that computes nothing");
        return;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/gpu/layer-170m.toml");
    let layer =
        TrainConfig::layered(Some(&path), &BTreeMap::<String, String>::new()).unwrap().model;
    let presets = ["debug-block", "debug-vanilla"]
        .map(|name| (name, preset(name).unwrap().model.clone().with_vocab_size(512)));
    let mut wrong = Vec::new();
    let models: Vec<(&str, ModelConfig)> =
        presets.into_iter().chain([("layer-170m", layer)]).collect();
    for (name, config) in models {
        let model = config.init(3, &device.clone().autodiff());
        let shape = |batch, precision, recompute| TrainingShape {
            batch,
            accumulate: 1,
            context: CONTEXT,
            precision,
            recompute,
            holding: Holding::Cube,
        };
        // parameters get their memory when they are first used
        left(&model, shape(1, Precision::F32, false), &device);
        for (precision, recompute) in [
            (Precision::F32, false),
            (Precision::F32, true),
            (Precision::Bf16, false),
            (Precision::Bf16, true),
        ] {
            let shape = |batch| shape(batch, precision, recompute);
            let found = left(&model, shape(12), &device) - left(&model, shape(4), &device);
            let kept = |batch| TrainingMemory::kept(&config, shape(batch));
            let expected = kept(12) - kept(4);
            let per_token = |bytes: f64| bytes / (8 * CONTEXT) as f64;
            let (found, expected) = (per_token(found as f64), per_token(expected));
            let text = format!(
                "{name} {precision} {recompute}: {found:.0} bytes per token, formula {expected:.0}"
            );
            println!("{text}");
            if (expected / found - 1.0).abs() > TOLERANCE {
                wrong.push(text);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
