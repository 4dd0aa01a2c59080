//! Predictions of training, and of kernel launches against the limits that counts are held to.

use std::collections::BTreeMap;
use std::path::Path;

use block_transformer_cost::{
    Lengths, Machine, Prediction, Sizes, TrainingPrediction, TrainingStep, Workload, decode,
    decode_launches, prefill_launches, step_launches,
};
use block_transformer_family::{CacheFormat, Precision};
use block_transformer_zoo::{FamilyConfig, ModelConfig, preset};

/// Limits are 2% above the counts, and the counted models are narrower or have other heads.
const TOLERANCE: f64 = 0.1;
/// The predictions are for contexts of more than 32 positions, whose attention has about this many
/// launches more per layer than that of the counted steps with blocks.
const LONG: f64 = 25.0;

fn model(name: &str) -> &'static ModelConfig {
    &preset(name).unwrap().model
}

fn h100() -> Machine {
    Machine::open(Path::new("h100")).unwrap()
}

/// The limits of launches in `tests/gpu/limits.txt`, by case.
fn limits() -> BTreeMap<String, f64> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/gpu/limits.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let launches = text.lines().filter_map(|line| {
        let (case, limit) = line.split_once(" launches ")?;
        Some((case.to_string(), limit.parse().unwrap()))
    });
    launches.collect()
}

/// One layer in each stack of block-170m, as in `tests/gpu/counts.sh`.
fn layer_170m() -> ModelConfig {
    let ModelConfig::Block(mut config) = model("block-170m").clone() else { panic!("not a block") };
    config.block_decoder.num_hidden_layers = 1;
    let block_transformer_zoo::block::TokenDecoderConfig::NeoX(decoder) = &mut config.token_decoder
    else {
        panic!("no T5 here")
    };
    decoder.stack.num_hidden_layers = 1;
    ModelConfig::Block(config)
}

#[test]
fn predicted_launches_are_close_to_the_limits_of_the_counts() {
    let limits = limits();
    let step = TrainingStep { batch: 4, micro_batch: 4, context: 128 };
    let small = |model: &ModelConfig| model.clone().with_vocab_size(512);
    for (case, model, precision) in [
        ("debug-block", model("debug-block").clone(), Precision::F32),
        ("debug-block-bf16", model("debug-block").clone(), Precision::Bf16),
        ("debug-vanilla", model("debug-vanilla").clone(), Precision::F32),
        ("layer-170m", layer_170m(), Precision::F32),
    ] {
        let close = |what: &str, predicted: f64| {
            if let Some(limit) = limits.get(&format!("{case}.{what}")) {
                let ratio = predicted / limit;
                assert!((ratio - 1.0).abs() < TOLERANCE, "{case}.{what}: {predicted} of {limit}");
            }
        };
        let stacks = model.stacks();
        let longer = stacks.token.map_or(0.0, |_| LONG * stacks.context.layers as f64);
        close("step", step_launches(&small(&model), precision, step).unwrap() - longer);
        // a block is four tokens, of several sequences
        close("block-of-3", 4.0 * decode_launches(&model, precision).unwrap());
    }
    assert!(limits.len() >= 7, "{limits:?}");
}

#[test]
fn launches_grow_with_layers_micro_batches_and_parts_and_are_unknown_for_other_models() {
    let launches = |name: &str, micro_batch, context| {
        let step = TrainingStep { batch: 8, micro_batch, context };
        step_launches(model(name), Precision::F32, step)
    };
    let known = |name: &str, micro_batch, context| launches(name, micro_batch, context).unwrap();
    // 12 instead of 6 layers in each stack
    assert!(known("block-420m", 8, 128) > 1.7 * known("block-170m", 8, 128));
    // four times the forward and backward passes, and one update
    let ratio = known("block-170m", 2, 128) / known("block-170m", 8, 128);
    assert!(ratio > 2.0 && ratio < 4.0, "{ratio}");
    // the scores of 2048 positions are computed in parts, those of 512 in fewer
    let parts = |name: &str| known(name, 8, 2048) / known(name, 8, 128);
    assert!(parts("vanilla-160m") > 3.0, "{}", parts("vanilla-160m"));
    assert!(parts("block-170m") < 2.0, "{}", parts("block-170m"));
    for name in ["block-170m-cls-cross", "block-170m-roberta", "block-170m-length1"] {
        assert_eq!(launches(name, 8, 128), None, "{name}");
        assert_eq!(decode_launches(model(name), Precision::F32), None, "{name}");
    }
    // 2048 positions are a chunk, and eight prompts of 256 positions are run together
    let prefill = |batch, tokens| {
        prefill_launches(model("block-170m"), Precision::F32, batch, tokens).unwrap()
    };
    assert_eq!(prefill(1, 16384), 2.0 * prefill(1, 8192));
    assert_eq!(prefill(16, 1024), 2.0 * prefill(1, 1024));
}

#[test]
fn a_training_step_has_three_times_the_flops_of_a_token() {
    let step = TrainingStep { batch: 256, micro_batch: 8, context: 2048 };
    assert_eq!((step.tokens(), step.micro_batches()), (524288.0, 32));
    for preset in block_transformer_zoo::presets() {
        let prediction = TrainingPrediction::new(&preset.model, &h100(), step);
        let token = decode(
            &preset.model,
            1,
            1024,
            Sizes { weights: 4.0, values: 4.0, cache: CacheFormat::F32 },
        )
        .total();
        let ratio = prediction.token_flops / (3.0 * token.flops());
        assert!((ratio - 1.0).abs() < 1e-9, "{}: {ratio}", preset.name);
        // no prediction exceeds the peak, and launches take time
        let share = prediction.utilization(prediction.rate, &h100());
        assert!(share > 0.0 && share < 1.0, "{}: {share}", preset.name);
        if let Some(slowed) = prediction.rate_with_launches {
            assert!(slowed < prediction.rate, "{}", preset.name);
        }
        let in_graph = Machine { launch: 0.0, ..h100() };
        let in_graph = TrainingPrediction::new(&preset.model, &in_graph, step);
        assert!(in_graph.rate_with_launches.is_none_or(|rate| rate == prediction.rate));
    }
}

#[test]
fn launches_slow_small_batches_more_than_large_ones() {
    let lengths = Workload::Lengths(Lengths { prompt: 128, new: 2048 });
    for name in ["block-170m", "vanilla-160m"] {
        let slowed = |batch| {
            let prediction = Prediction::new(model(name), &h100(), lengths, batch);
            prediction.rate_with_launches.unwrap() / prediction.rate
        };
        assert!(slowed(1) < 0.5 && slowed(512) > slowed(1) && slowed(512) < 1.0, "{name}");
    }
}
