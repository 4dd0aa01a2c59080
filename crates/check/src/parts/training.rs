//! Training steps on sequences that are made here, so that no corpus is needed.

use block_transformer_datasets::Window;
use block_transformer_training::{Schedule, TrainConfig, Trainer};
use block_transformer_zoo::FamilyConfig;
use burn::tensor::Device;

use crate::error::CheckError;

/// The number of different tokens.
const SYMBOLS: u64 = 256;
/// Tokens that can follow a token, each as likely as the others: the loss can fall to `ln 4`.
const FOLLOWERS: u64 = 4;

/// Returns the configuration of `steps` steps of `preset`.
pub(super) fn config(preset: &str, steps: u64) -> Result<TrainConfig, CheckError> {
    let config = TrainConfig::from_preset(preset)?;
    Ok(TrainConfig { steps, warmup: config.warmup.min(steps / 5), ..config })
}

/// Runs the steps of `config`, and calls `after` with the number of each step, counted from 1, and
/// the loss before it. `after` returns false to stop.
pub(super) fn train(
    config: &TrainConfig,
    device: &Device,
    mut after: impl FnMut(u64, f64) -> bool,
) {
    let schedule = Schedule::new(config);
    let mut trainer: Trainer = Trainer::new(&config.model, config, device);
    for step in 1..=config.steps {
        let windows = windows(config, step);
        let result = trainer.step(std::slice::from_ref(&windows), schedule.rate(step));
        if !after(step, result.loss) {
            break;
        }
    }
}

/// Returns the windows of a step: walks over a fixed graph of tokens.
fn windows(config: &TrainConfig, step: u64) -> Vec<Window> {
    let symbols = SYMBOLS.min(config.model.vocab_size() as u64);
    let walk = |row: usize| {
        let mut random = (step << 32) | row as u64;
        let mut token = next(&mut random) % symbols;
        let ids = (0..config.context).map(|_| {
            token = (token * 5 + 3 + next(&mut random) % FOLLOWERS) % symbols;
            token as u32
        });
        Window { ids: ids.collect(), is_token: vec![true; config.context] }
    };
    (0..config.batch).map(walk).collect()
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn windows_differ_between_steps_and_rows_and_have_four_followers_per_token() {
        let config = config("debug-block", 3).unwrap();
        let of_step = windows(&config, 1);
        assert_eq!(of_step, windows(&config, 1));
        assert_ne!(of_step, windows(&config, 2));
        assert_ne!(of_step[0], of_step[1]);
        let pairs = of_step.iter().flat_map(|window| window.ids.windows(2));
        let pairs: HashSet<(u32, u32)> = pairs.map(|pair| (pair[0], pair[1])).collect();
        let tokens: HashSet<u32> = pairs.iter().map(|pair| pair.0).collect();
        assert!(pairs.len() <= 4 * tokens.len() && tokens.len() > 50, "{}", tokens.len());
    }
}
