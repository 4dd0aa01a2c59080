//! Decoding with caches against decoding without them.

use block_transformer_parity::{Products, greedy_engine, greedy_ids};
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, preset};
use burn::tensor::Device;
use serde_json::{Value, json};

use super::logits::{Text, largest_difference, largest_gap};
use super::table::table;
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
    let narrow = settings.device.multiplies_bf16(&device).then_some(Products::Bf16);
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
    let head = [
        "preset",
        "",
        "prompt",
        "tokens",
        "logits",
        "greedy gap",
        "tolerance",
        "ids alone",
        "ids launched",
    ];
    let legend = "Logits: the largest difference of a logit with and without caches. Greedy gap: how far the \
                  logit of a chosen id is below the largest logit without caches, at most. Ids alone: whether \
                  the sequence has the same ids when it is decoded without the others. Ids launched: whether \
                  it has the same ids when its blocks are not captured as graphs.";
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
    let (vocab, cache) = (config.vocab_size(), products.precision().cache());
    let prompts = PROMPTS.map(|length| -> Vec<u32> {
        (0..length).map(|i| ((i * 7919 + length * 31 + 5) % vocab) as u32).collect()
    });
    let engine = |prompts: &[Vec<u32>]| greedy_engine(model, prompts, count, cache, device);
    let together = greedy_ids(engine(&prompts)?, &prompts, count)?;
    let launched = greedy_ids(engine(&prompts)?.with_graphs(false), &prompts, count)?;
    let compared =
        prompts.iter().zip(&together).zip(&launched).map(|((prompt, continuation), launched)| {
            let prompts = std::slice::from_ref(prompt);
            let alone = greedy_ids(engine(prompts)?, prompts, count)?;
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
                same_launched: launched == continuation,
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
    same_launched: bool,
}

impl Comparison {
    fn holds(&self) -> bool {
        // a graph runs the same kernels
        self.same_launched
            && self.tokens == self.wanted
            && self.logits <= self.tolerance
            && self.gap <= self.allowed_gap
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
            same(self.same_alone),
            same(self.same_launched),
        ]
    }

    fn json(&self, preset: &str, products: Products) -> Value {
        json!({
            "preset": preset, "precision": products.precision(), "prompt": self.prompt,
            "tokens": self.tokens, "logits": self.logits, "gap": self.gap,
            "tolerance": self.tolerance, "same_alone": self.same_alone,
            "same_launched": self.same_launched,
        })
    }
}

fn same(same: bool) -> String {
    if same { "same".into() } else { "other".into() }
}
