//! Models that learn to repeat.

use block_transformer_evaluation::documents::Repeats;
use block_transformer_text::Window;
use block_transformer_training::{Schedule, TrainConfig, Trainer};
use block_transformer_zoo::{LanguageModel, ModelConfig};
use burn::module::Module;
use burn::tensor::Device;

/// A small model of blocks of `block_length` tokens; of a vanilla model, 1.
///
/// All of a head is rotated: looking back by a number of tokens, whatever they are, is what has to
/// be learnt.
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

/// How a model is trained.
pub struct Training {
    /// Tokens a window.
    pub context: usize,
    /// Windows a step.
    pub batch: usize,
    /// Steps.
    pub steps: u64,
    /// Peak learning rate.
    pub lr: f64,
}

/// Trains a model on windows of documents of `source`, of every kind in turn; `heard` is told the
/// loss of each step.
pub fn train(
    config: &ModelConfig,
    source: &Repeats,
    training: &Training,
    device: &Device,
    mut heard: impl FnMut(u64, f64),
) -> LanguageModel {
    let Training { context, batch, steps, lr } = *training;
    let config_of_run = TrainConfig {
        lr,
        steps,
        warmup: steps / 20,
        weight_decay: 0.0,
        ..TrainConfig::from_preset("debug-block").expect("a preset there is")
    };
    let schedule = Schedule::new(&config_of_run);
    let mut trainer = Trainer::new(config, &config_of_run, device);
    for step in 1..=steps {
        let window = |i: usize| {
            let kind = i % source.distances().len();
            // so far into a document that every token has one to repeat
            let behind = source.distances()[kind];
            let ids = source.document(kind, behind + context, step << 16 | i as u64);
            Window { ids: ids[behind..].to_vec(), is_token: vec![true; context] }
        };
        let windows = (0..batch).map(window).collect();
        let result;
        (trainer, result) = trainer.step(&[windows], schedule.rate(step));
        heard(step, result.loss);
    }
    trainer.model().valid()
}
