//! Decoding with caches against decoding without them.

use std::ops::ControlFlow;

use block_transformer_generation::{Options, Sampling, generate};
use block_transformer_parity::Products;
use block_transformer_zoo::{FamilyConfig, preset};
use serde_json::json;

use super::logits::{Text, largest_difference, largest_gap};
use super::table;
use crate::error::CheckError;
use crate::result::PartOutput;
use crate::settings::CheckSettings;

/// Tokens of the prompts, which are decoded together.
const PROMPTS: [usize; 3] = [3, 17, 64];

pub(super) fn run(
    settings: &CheckSettings,
    progress: &mut dyn FnMut(&str),
) -> Result<PartOutput, CheckError> {
    let device = settings.device.open()?;
    let (mut rows, mut data, mut passed) = (Vec::new(), Vec::new(), true);
    for name in &settings.presets {
        let config = &preset(name)?.model;
        let model = config.init(0, &device);
        let vocab = config.vocab_size();
        let prompt = |length: usize| -> Vec<u32> {
            (0..length).map(|i| ((i * 7919 + length * 31 + 5) % vocab) as u32).collect()
        };
        let prompts = PROMPTS.map(prompt);
        let options = Options {
            sampling: Sampling::greedy(),
            max_tokens: settings.generated,
            eos: None,
            ..Options::default()
        };
        let go_on = |_, _| ControlFlow::Continue(());
        let together = generate(&model, &prompts, &options, &device, go_on)?;
        for (prompt, continuation) in prompts.iter().zip(&together) {
            let alone = generate(&model, std::slice::from_ref(prompt), &options, &device, go_on)?;
            let same = alone.first() == Some(continuation);
            let block_length = config.block_length();
            let text = Text { prompt, continuation, block_length };
            let uncached = text.uncached(&model, &device);
            let difference = largest_difference(&text.cached(&model, &device), &uncached);
            let tolerance = settings.products().values(config, &uncached);
            // an id is right if its logit is the largest one, or as large within tolerance
            let gap = largest_gap(&uncached, continuation, config);
            let allowed = match settings.products() {
                Products::F32 => tolerance,
                Products::Tf32 => 2.0 * tolerance,
            };
            let holds = difference <= tolerance && gap <= allowed;
            passed &= holds;
            progress(&format!("{name}, prompt of {}: {holds}", prompt.len()));
            rows.push(vec![
                name.clone(),
                if holds { "ok".into() } else { "OUT OF TOLERANCE".into() },
                prompt.len().to_string(),
                continuation.len().to_string(),
                format!("{difference:.2e}"),
                format!("{gap:.2e}"),
                format!("{tolerance:.2e}"),
                if same { "same".into() } else { "other".into() },
            ]);
            data.push(json!({
                "preset": name, "prompt": prompt.len(), "tokens": continuation.len(),
                "logits": difference, "gap": gap, "tolerance": tolerance, "same_alone": same,
            }));
        }
    }
    let head = ["preset", "", "prompt", "tokens", "logits", "greedy gap", "tolerance", "ids alone"];
    let legend = "Logits: the largest difference of a logit with and without caches. Greedy gap: how far the \
                  logit of a chosen id is below the largest logit without caches, at most. Ids alone: whether \
                  the sequence has the same ids when it is decoded without the others.";
    let agree = if passed { "agree" } else { "DISAGREE" };
    Ok(PartOutput {
        passed,
        summary: format!("Decoding with caches and without them {agree}."),
        markdown: format!("{}\n{legend}", table(&head, 2, &rows)),
        data: data.into(),
    })
}
