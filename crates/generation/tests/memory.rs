//! Predicted memory against measured memory.

#![allow(clippy::print_stdout, reason = "the measured memory is worth seeing")]
#![cfg(target_os = "linux")]

use std::ops::ControlFlow;
use std::process::Command;

use block_transformer_family::{FamilyConfig, Precision};
use block_transformer_generation::{Engine, Limits, Options, Sampling, Storage, generate};
use block_transformer_zoo::{ModelConfig, preset, presets};
use burn::tensor::Device;

/// Environment variable that tells the measuring process which case to measure.
const CASE: &str = "MEMORY_CASE";

/// Cases in which different parts dominate: the caches of either family, and weights with logits.
fn cases() -> [(&'static str, ModelConfig, Limits); 3] {
    let neox = |width: usize, layers: usize| {
        let heads = r#""num_attention_heads": 4"#;
        format!(r#""hidden_size": {width}, "num_hidden_layers": {layers}, {heads}"#)
    };
    let block = |vocab: usize, width: usize, layers: usize| {
        let (stack, quarter) = (neox(width, layers), width / 4);
        format!(
            r#"{{ "vocab_size": {vocab},
                "embedder": {{ "cls": "lookup", "hidden_size": {quarter},
                    "projection_method": "concat" }},
                "block_decoder": {{ {stack} }},
                "token_decoder": {{ "cls": "gpt-neo-x", "decoding_strategy": "prefix",
                    "expansion_ratio": 2, {stack} }} }}"#
        )
    };
    let vanilla = format!(r#"{{ "vocab_size": 4096, {} }}"#, neox(256, 4));
    let config = |json: &str| ModelConfig::from_json(json, "test").unwrap();
    [
        ("block", config(&block(4096, 256, 3)), Limits { max_sequences: 24, max_tokens: 4000 }),
        ("vanilla", config(&vanilla), Limits { max_sequences: 16, max_tokens: 1000 }),
        ("wide", config(&block(30_000, 512, 1)), Limits { max_sequences: 150, max_tokens: 40 }),
    ]
}

/// A value in kilobytes from the status of this process.
fn kilobytes(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The predicted bytes of an engine and the measured peak while all its slots are full.
fn measure(config: &ModelConfig, limits: Limits) -> (u64, u64) {
    let device = Device::flex();
    // the threads and code that any use of the crate needs
    let tiny = preset("debug-block").unwrap().model.init(0, &device);
    let options = Options { max_tokens: 5, ..Options::default() };
    generate(&tiny, &[vec![5]], &options, &device, |_, _| ControlFlow::Continue(())).unwrap();
    let before = kilobytes("VmRSS:");
    let predicted = limits.memory(config, Storage::of(config, Precision::F32)).total();
    let model = config.init(0, &device);
    let mut engine = Engine::new(&model, limits, &device).unwrap();
    engine.fill_random();
    let options = Options { max_tokens: 9, eos: None, ..Options::default() };
    let last = limits.max_tokens - 9;
    for sequence in 0..limits.max_sequences {
        let sampling = Sampling::at([0.0, 1.0][sequence % 2], 1);
        let options = Options { sampling, rng_stream: sequence, ..options.clone() };
        // one prompt is prefilled from its start; the others follow a context that counts as cached
        // already
        let context = if sequence == 0 { 0 } else { last.saturating_sub(30) };
        let context = context / config.block_length() * config.block_length();
        let prompt: Vec<u32> = (context..last).map(|i| 2 + (i % 1000) as u32).collect();
        engine.submit_after(context, &prompt, &options).unwrap();
    }
    while !engine.is_idle() {
        engine.step().unwrap();
    }
    let measured = (kilobytes("VmHWM:") - before) * 1024;
    (predicted, measured)
}

#[test]
fn peak_memory_is_within_a_tenth_of_the_prediction() {
    if let Ok(case) = std::env::var(CASE) {
        let (_, config, limits) = cases().into_iter().find(|(name, ..)| *name == case).unwrap();
        let (predicted, measured) = measure(&config, limits);
        println!("{case}: {predicted} bytes predicted, {measured} measured");
        let ratio = measured as f64 / predicted as f64;
        assert!((0.9..1.1).contains(&ratio), "{case}: {ratio:.3} of {predicted} bytes");
        return;
    }
    for (case, ..) in cases() {
        let this = "peak_memory_is_within_a_tenth_of_the_prediction";
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output =
            command.args(["--exact", this, "--nocapture"]).env(CASE, case).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        println!("{said}");
    }
}

#[test]
fn the_largest_batch_that_fits_is_found() {
    for preset in presets() {
        let config = &preset.model;
        let storage = Storage::of(config, Precision::F32);
        for tokens in [2, 5, 130, 2176] {
            let total = |max_sequences| {
                Limits { max_sequences, max_tokens: tokens }.memory(config, storage).total()
            };
            for memory in [total(1), total(2) - 1, total(7), total(1) * 2, 16 << 30, 64 << 30] {
                let Ok(limits) = Limits::that_fit(config, storage, tokens, usize::MAX, memory)
                else {
                    assert!(memory < total(1), "{}", preset.name);
                    continue;
                };
                assert!(total(limits.max_sequences) <= memory, "{} {tokens}", preset.name);
                assert!(total(limits.max_sequences + 1) > memory, "{} {tokens}", preset.name);
                let few = Limits::that_fit(config, storage, tokens, 3, memory).unwrap();
                assert_eq!(few.max_sequences, limits.max_sequences.min(3));
            }
            let error = Limits::that_fit(config, storage, tokens, 9, total(1) - 1).unwrap_err();
            assert!(error.to_string().contains(&total(1).to_string()), "{error}");
        }
    }
}

#[test]
fn caches_are_sized_exactly() {
    let memory = |name: &str, max_sequences, max_tokens| {
        let config = &preset(name).unwrap().model;
        Limits { max_sequences, max_tokens }.memory(config, Storage::of(config, Precision::F32))
    };
    // 6 layers of 768, keys and values, f32: 512 blocks, and 2 + 3 positions of the token decoder
    let position = 6 * 768 * 2 * 4;
    assert_eq!(memory("block-170m", 3, 2048).caches, 3 * (512 + 5) * position);
    // integers with a scale per head of 64
    let config = &preset("block-170m").unwrap().model;
    let storage = Storage::of(config, Precision::Int8Cache);
    let bytes = Limits { max_sequences: 3, max_tokens: 2048 }.memory(config, storage).caches;
    assert_eq!(bytes, 3 * (512 + 5) * 6 * 2 * 12 * (64 + 4));
    // one more token needs one more block; the last token is never an input
    assert_eq!(memory("block-170m", 3, 2049).caches, 3 * (512 + 5) * position);
    assert_eq!(memory("block-170m", 3, 2050).caches, 3 * (513 + 5) * position);
    assert_eq!(memory("vanilla-160m", 3, 2048).caches, 3 * 2047 * 2 * position);
    // T5 attends to four expanded vectors, and keeps four positions
    assert_eq!(memory("block-170m-cls-cross", 1, 5).caches, (1 + 4) * position);
    // sizes beyond any machine do not overflow
    assert_eq!(memory("vanilla-160m", usize::MAX, usize::MAX).total(), u64::MAX);
    let half = preset("block-170m").unwrap().model.weight_bytes(Precision::Bf16Weights);
    assert!(half < memory("block-170m", 1, 8).weights);
}
