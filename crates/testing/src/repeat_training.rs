//! Training of small models on documents whose tokens repeat.

use block_transformer_datasets::Window;
use block_transformer_training::{Schedule, TrainConfig, Trainer};
use block_transformer_zoo::{LanguageModel, ModelConfig};
use burn::module::Module;
use burn::tensor::Device;

use crate::repeats::Repeats;

/// Returns the configuration of a small model with blocks of `block_length` tokens, or of a vanilla
/// model if `block_length` is 1.
///
/// All dimensions of a head are rotated, because the model has to learn to attend to a distance,
/// whatever tokens are there.
///
/// # Panics
/// When the sizes do not fit together.
pub fn small(source: &Repeats, block_length: usize, width: usize, heads: usize) -> ModelConfig {
    let vocab = source.vocab_size();
    let stack = format!(
        r#""hidden_size": {width}, "num_hidden_layers": 2, "num_attention_heads": {heads},
        "rotary_pct": 1.0"#
    );
    let json = match block_length {
        1 => format!(r#"{{"vocab_size": {vocab}, {stack}}}"#),
        l => format!(
            r#"{{"vocab_size": {vocab}, "block_length": {l},
            "embedder": {{"cls": "lookup", "hidden_size": {}, "projection_method": "concat"}},
            "block_decoder": {{{stack}}},
            "token_decoder": {{"cls": "gpt-neo-x", "decoding_strategy": "prefix",
            "expansion_ratio": 2, {stack}}}}}"#,
            width / l
        ),
    };
    ModelConfig::from_json(&json, "known answer").expect("a configuration that fits together")
}

/// Settings of a training.
pub struct Training {
    /// Tokens per window.
    pub context: usize,
    /// Windows per step.
    pub batch: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Peak learning rate.
    pub lr: f64,
}

/// Trains a model on windows of documents of `source`, with every kind of document in turn.
///
/// # Panics
/// When the preset that the settings are based on is missing.
pub fn train(
    config: &ModelConfig,
    source: &Repeats,
    training: &Training,
    device: &Device,
) -> LanguageModel {
    let Training { context, batch, steps, lr } = *training;
    let config_of_run = TrainConfig {
        lr,
        steps,
        warmup: steps / 20,
        weight_decay: 0.0,
        ..TrainConfig::from_preset("debug-block").expect("debug-block is a preset")
    };
    let schedule = Schedule::new(&config_of_run);
    let mut trainer: Trainer = Trainer::new(config, &config_of_run, device);
    for step in 1..=steps {
        let window = |i: usize| {
            let kind = i % source.distances().len();
            // every token of the window has a token before it that it can repeat
            let behind = source.distances()[kind];
            let ids = source.document(kind, behind + context, step << 16 | i as u64);
            Window { ids: ids[behind..].to_vec(), is_token: vec![true; context] }
        };
        let windows = (0..batch).map(window).collect();
        trainer.step(&[windows], schedule.rate(step));
    }
    trainer.model().valid()
}
