//! The predicted decoding speed of a machine.

use block_transformer_family::FamilyConfig;

use crate::cost::Cost;
use crate::launches::{decode_launches, prefill_launches};
use crate::machine::Machine;
use crate::phases::{decode, prefill};
use crate::sizes::Sizes;
use crate::workload::{Lengths, Workload};

/// The predicted speed of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Seconds until a prompt that is decoded alone has its first token; `None` without a prompt.
    pub first_token: Option<f64>,
    /// Generated tokens per second if every phase takes the time that the cost model predicts.
    /// The time includes the prompts.
    pub rate: f64,
    /// Like [`rate`](Self::rate), with the time of the kernel launches added. Without them, as in a
    /// CUDA graph, it is `rate`. `None` if the launches of such a model were not counted.
    pub rate_with_launches: Option<f64>,
    /// Kernel launches per decoded token of the whole batch, the mean over a block.
    pub launches: Option<f64>,
    /// Generated tokens per second if all prefills and steps take the time that [`Cost::bound`]
    /// returns: the limit of the machine. The time includes the prompts.
    pub bound: f64,
    /// The cost of a token in the middle of the continuation.
    pub token: Cost,
}

impl Prediction {
    /// Predicts the speed of `batch` sequences that each do `workload` on `machine`.
    pub fn new<C: FamilyConfig>(
        config: &C,
        machine: &Machine,
        workload: Workload,
        batch: usize,
    ) -> Self {
        let (sizes, rows) = (Sizes::from(machine), batch as f64);
        let step = |context| decode(config, batch, context, sizes);
        let launches = decode_launches(config, machine.precision);
        let Lengths { prompt, new } = match workload {
            Workload::Lengths(lengths) => lengths,
            Workload::AtContext(context) => {
                let step = step(context);
                let seconds = step.seconds(machine);
                let slowed = |launches| rows / (seconds + launches * machine.launch);
                return Self {
                    first_token: None,
                    rate: rows / seconds,
                    rate_with_launches: launches.map(slowed),
                    launches,
                    bound: rows / step.total().bound(machine),
                    token: step.total() * (1.0 / rows),
                };
            }
        };
        let prefill = prefill(config, prompt, sizes);
        let of_prompts = prefill_launches(config, machine.precision, batch, prompt);
        let mut seconds = prefill.seconds(machine) * rows;
        let mut least = prefill.total().bound(machine) * rows;
        let block_length = config.block_length();
        for written in (0..new).step_by(block_length) {
            let tokens = block_length.min(new - written) as f64;
            let step = step(prompt + written);
            seconds += tokens * step.seconds(machine);
            least += tokens * step.total().bound(machine);
        }
        let tokens = (batch * new) as f64;
        let all_launches =
            of_prompts.zip(launches).map(|(prompts, step)| prompts + step * new as f64);
        let alone = decode(config, 1, prompt, sizes);
        Self {
            first_token: Some(prefill.seconds(machine) + alone.seconds(machine)),
            rate: tokens / seconds,
            rate_with_launches: all_launches
                .map(|launches| tokens / (seconds + launches * machine.launch)),
            launches,
            bound: tokens / least,
            token: step(prompt + new / 2).total() * (1.0 / rows),
        }
    }
}
