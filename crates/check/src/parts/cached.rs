//! Decoding with caches against decoding without them.

use block_transformer_parity::{Products, greedy_ids};
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, preset};
use burn::tensor::{DType, Device};
use serde_json::{Value, json};

use super::logits::{Text, largest_difference, largest_gap};
use super::table;
use crate::error::CheckError;
use crate::result::PartOutput;
use crate::settings::CheckSettings;

/// Tokens of the prompts, which are decoded together.
const PROMPTS: [usize; 3] = [3, 17, 64];

/// Compares each preset in f32 and, if the device has it, with weights and caches in bf16.
pub(super) fn run(
    settings: &CheckSettings,
    progress: &mut dyn FnMut(&str),
) -> Result<PartOutput, CheckError> {
    let device = settings.device.open()?;
    let narrow = device.supports_dtype(DType::BF16).then_some(Products::Bf16);
    let (mut rows, mut data, mut passed) = (Vec::new(), Vec::new(), true);
    for name in &settings.presets {
        let model = preset(name)?.model.init(0, &device);
        for products in [Some(settings.products()), narrow].into_iter().flatten() {
            let model = model.clone().with_precision(products.precision());
            for comparison in compare(&model, products, settings.generated, &device)? {
                let holds = comparison.holds();
                passed &= holds;
                let what = format!("{name}, {}", products.precision());
                progress(&format!("{what}, prompt of {}: {holds}", comparison.prompt));
                rows.push(comparison.cells(what));
                data.push(comparison.json(name, products));
            }
        }
    }
    let head = ["preset", "", "prompt", "tokens", "logits", "greedy gap", "tolerance", "ids alone"];
    let legend = "Logits: the largest difference of a logit with and without caches. Greedy gap: how far the \
                  logit of a chosen id is below the largest logit without caches, at most. Ids alone: whether \
                  the sequence has the same ids when it is decoded without the others.";
    let agree = if passed { "agree" } else { "DISAGREE" };
    let in_bf16 = if narrow.is_some() { "in f32 and in bf16" } else { "in f32; there is no bf16" };
    Ok(PartOutput {
        passed,
        summary: format!("Decoding with caches and without them {agree} ({in_bf16})."),
        markdown: format!("{}\n{legend}", table(&head, 2, &rows)),
        data: data.into(),
    })
}

/// Decodes the prompts with caches together and alone, and computes the logits without caches.
fn compare(
    model: &LanguageModel,
    products: Products,
    count: usize,
    device: &Device,
) -> Result<Vec<Comparison>, CheckError> {
    let config = &model.config();
    let (vocab, cache) = (config.vocab_size(), products.precision().values());
    let prompts = PROMPTS.map(|length| -> Vec<u32> {
        (0..length).map(|i| ((i * 7919 + length * 31 + 5) % vocab) as u32).collect()
    });
    let together = greedy_ids(model, &prompts, count, cache, device)?;
    let compared = prompts.iter().zip(&together).map(|(prompt, continuation)| {
        let alone = greedy_ids(model, std::slice::from_ref(prompt), count, cache, device)?;
        let text = Text { prompt, continuation, block_length: config.block_length() };
        let uncached = text.uncached(model, device);
        let tolerance = products.values(config, &uncached);
        Ok(Comparison {
            prompt: prompt.len(),
            wanted: count,
            tokens: continuation.len(),
            logits: largest_difference(&text.cached(model, cache, device), &uncached),
            gap: largest_gap(&uncached, continuation, config),
            tolerance,
            // an id is right if its logit is the largest one, or as large within tolerance
            allowed_gap: if products == Products::F32 { tolerance } else { 2.0 * tolerance },
            same_alone: alone.first() == Some(continuation),
        })
    });
    compared.collect()
}

/// Decoding of one prompt with caches against decoding without them.
struct Comparison {
    prompt: usize,
    wanted: usize,
    tokens: usize,
    logits: f64,
    gap: f64,
    tolerance: f64,
    allowed_gap: f64,
    same_alone: bool,
}

impl Comparison {
    fn holds(&self) -> bool {
        self.tokens == self.wanted && self.logits <= self.tolerance && self.gap <= self.allowed_gap
    }

    fn cells(&self, what: String) -> Vec<String> {
        vec![
            what,
            if self.holds() { "ok".into() } else { "OUT OF TOLERANCE".into() },
            self.prompt.to_string(),
            self.tokens.to_string(),
            format!("{:.2e}", self.logits),
            format!("{:.2e}", self.gap),
            format!("{:.2e}", self.tolerance),
            if self.same_alone { "same".into() } else { "other".into() },
        ]
    }

    fn json(&self, preset: &str, products: Products) -> Value {
        json!({
            "preset": preset, "precision": products.precision(), "prompt": self.prompt,
            "tokens": self.tokens, "logits": self.logits, "gap": self.gap,
            "tolerance": self.tolerance, "same_alone": self.same_alone,
        })
    }
}
