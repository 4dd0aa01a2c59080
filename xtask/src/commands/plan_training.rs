//! `plan --training`

use block_transformer_bench::{number, size, table};
use block_transformer_cost::{Machine, TrainingPrediction, TrainingStep};
use block_transformer_zoo::Preset;

const HEAD: [&str; 11] = [
    "preset",
    "tokens",
    "micro-batch",
    "launches/step",
    "MFLOP/token",
    "bytes/token",
    "tokens/s",
    "MFU",
    "with launches",
    "MFU",
    "hours",
];

/// Prints the predicted speed of the training that each preset describes.
pub(super) fn print(presets: &[&Preset], machine: &Machine, micro_batch: usize) {
    say!(
        "{}: {} TFLOP/s, {} GB/s, {} us per launch; matrix products in {}\n",
        machine.name,
        number(machine.flops / 1e12),
        number(machine.bandwidth / 1e9),
        number(machine.launch * 1e6),
        machine.precision.matrices()
    );
    let rows = presets.iter().map(|preset| cells(preset, machine, micro_batch));
    say!("{}\n", table(&HEAD, 1, rows).trim_fmt());
    say!(
        "All figures are predicted. tokens/s: the phases of a step run one after the other, each at the peaks of \
         the machine. With launches: the time of each launch is added, as if nothing overlapped. Hours: from \
         one to the other, for all tokens of the preset's training."
    );
}

fn cells(preset: &Preset, machine: &Machine, micro_batch: usize) -> Vec<String> {
    let train = &preset.train;
    let step = TrainingStep {
        batch: train.batch,
        micro_batch: micro_batch.min(train.batch),
        context: train.context,
    };
    let prediction = TrainingPrediction::new(&preset.model, machine, step);
    let tokens = step.tokens() * train.steps as f64;
    let share = |rate| format!("{:.0}%", 100.0 * prediction.utilization(rate, machine));
    let hours = |rate: f64| number(tokens / rate / 3600.0);
    let (rate, slowed) = (prediction.rate, prediction.rate_with_launches);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    vec![
        preset.name.clone(),
        format!("{:.3e}", tokens),
        step.micro_batch.to_string(),
        or_none(prediction.launches.map(|launches| format!("{launches:.0}"))),
        number(prediction.token_flops / 1e6),
        size(prediction.token_bytes),
        number(rate),
        share(rate),
        or_none(slowed.map(number)),
        or_none(slowed.map(share)),
        match slowed {
            Some(slowed) => format!("{} - {}", hours(rate), hours(slowed)),
            None => hours(rate),
        },
    ]
}
