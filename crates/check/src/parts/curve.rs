//! Losses of training steps against those of the processor.

use block_transformer_device::DeviceName;
use block_transformer_training::TrainConfig;
use block_transformer_zoo::Precision;
use serde_json::json;

use super::table::table;
use super::training;
use crate::error::CheckError;
use crate::result::PartOutput;
use crate::settings::CheckSettings;

/// Largest difference of the mean losses at the end, in nats per token. Rounding makes two runs of
/// the same windows drift apart by less than this.
const END: f64 = 0.02;
/// Largest difference of the first losses in f32, in nats per token.
const FIRST: f64 = 1e-4;
/// The root mean square of the logits of a new model is below this, and its loss is the logarithm of
/// the vocabulary.
const FIRST_LOGITS: f64 = 1.0;
/// Rows of the table.
const ROWS: u64 = 10;

pub(super) fn run(
    settings: &CheckSettings,
    progress: &mut dyn FnMut(&str),
) -> Result<PartOutput, CheckError> {
    let steps = settings.curve_steps;
    let config = training::config(&settings.curve_preset, steps)?;
    let mut curve = |device: DeviceName, precision| -> Result<Vec<f64>, CheckError> {
        let opened = device.open()?;
        let config = TrainConfig { precision, ..config.clone() };
        let mut losses = Vec::new();
        training::train(&config, &opened, |step, loss| {
            if step % ROWS == 1 || step == steps {
                progress(&format!("{device}, {precision}, step {step} of {steps}: loss {loss:.4}"));
            }
            losses.push(loss);
            loss.is_finite()
        });
        Ok(losses)
    };
    let ours = curve(settings.device, Precision::F32)?;
    let theirs = curve(DeviceName::Flex, Precision::F32)?;
    let bf16 = match settings.device.multiplies_bf16(&settings.device.open()?) {
        true => Some(curve(settings.device, Precision::Bf16)?),
        false => None,
    };
    let relative = settings.products().relative_error(&config.model);
    let first_allowed = relative.map_or(FIRST, |error| error * FIRST_LOGITS);
    let verdict = Verdict::of(&ours, &theirs, steps, first_allowed);
    let Verdict { first, end, recent, passed } = verdict;
    // in bf16, only the end is compared
    let narrow = bf16.as_ref().map(|bf16| Verdict::of(bf16, &theirs, steps, f64::INFINITY));
    let in_bf16 = match narrow {
        Some(narrow) => format!("in bf16 by {:.4}", narrow.end),
        None => "the device has no bf16".into(),
    };
    let passed = passed && narrow.is_none_or(|narrow| narrow.passed);
    let every = steps.div_ceil(ROWS).max(1);
    let rows = ours.iter().zip(&theirs).zip(1_u64..).filter_map(|((ours, theirs), step)| {
        let shown = step % every == 0 || step == 1 || step == steps;
        let cells = || {
            vec![
                step.to_string(),
                format!("{ours:.5}"),
                format!("{theirs:.5}"),
                format!("{:+.1e}", ours - theirs),
                bf16.as_ref()
                    .and_then(|bf16| bf16.get(step as usize - 1))
                    .map_or("-".into(), |loss| format!("{loss:.5}")),
            ]
        };
        shown.then(cells)
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let device = settings.device.to_string();
    Ok(PartOutput {
        passed,
        summary: format!(
            "{} of {steps} steps; the first losses differ by {first:.1e} (limit {first_allowed:.1e}), the mean \
             losses of the last {recent} steps by {end:.4} nats (limit {END}), {in_bf16}; the loss fell from {:.3} to {:.3}.",
            ours.len(),
            ours.first().copied().unwrap_or(f64::NAN),
            mean_of_last(&ours, recent),
        ),
        markdown: table(&["step", &device, "flex", "difference", "bf16"], 0, &rows),
        data: json!({ "device": ours, "flex": theirs, "bf16": bf16 }),
    })
}

/// The comparison of two curves.
#[derive(Clone, Copy, Debug)]
struct Verdict {
    /// The difference of the first losses.
    first: f64,
    /// The difference of the mean losses of the last steps.
    end: f64,
    /// The number of these last steps.
    recent: usize,
    passed: bool,
}

impl Verdict {
    fn of(ours: &[f64], theirs: &[f64], steps: u64, first_allowed: f64) -> Self {
        let recent = (steps / 10).clamp(1, 20) as usize;
        let first = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).next().unwrap_or(f64::NAN);
        let end = (mean_of_last(ours, recent) - mean_of_last(theirs, recent)).abs();
        let whole = ours.len() == theirs.len() && ours.len() as u64 == steps;
        // NaN is not within a limit
        let passed = whole && first <= first_allowed && end <= END;
        Self { first, end, recent, passed }
    }
}

fn mean_of_last(losses: &[f64], count: usize) -> f64 {
    let last = &losses[losses.len().saturating_sub(count)..];
    last.iter().sum::<f64>() / last.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_that_begin_or_end_apart_or_break_off_do_not_pass() {
        let curve = |first: f64, end: f64| -> Vec<f64> {
            (0..40)
                .map(|step| if step == 0 { first } else { end - f64::from(step) / 40.0 })
                .collect()
        };
        let flex = curve(6.0, 5.0);
        let passes = |ours: &[f64]| Verdict::of(ours, &flex, 40, 1e-3).passed;
        assert!(passes(&flex) && passes(&curve(6.0009, 5.019)));
        assert!(!passes(&curve(6.002, 5.0)));
        assert!(!passes(&curve(6.0, 5.021)) && !passes(&curve(6.0, 4.979)));
        assert!(!passes(&flex[..39]));
        assert!(!passes(&curve(6.0, f64::NAN)));
    }
}
