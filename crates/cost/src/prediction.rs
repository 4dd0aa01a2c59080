//! The predicted decoding speed of a machine.

use block_transformer_family::FamilyConfig;

use crate::cost::Cost;
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
        let Lengths { prompt, new } = match workload {
            Workload::Lengths(lengths) => lengths,
            Workload::AtContext(context) => {
                let step = step(context);
                return Self {
                    first_token: None,
                    rate: rows / step.seconds(machine),
                    bound: rows / step.total().bound(machine),
                    token: step.total() * (1.0 / rows),
                };
            }
        };
        let prefill = prefill(config, prompt, sizes);
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
        let alone = decode(config, 1, prompt, sizes);
        Self {
            first_token: Some(prefill.seconds(machine) + alone.seconds(machine)),
            rate: tokens / seconds,
            bound: tokens / least,
            token: step(prompt + new / 2).total() * (1.0 / rows),
        }
    }
}
