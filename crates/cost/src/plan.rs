//! Plans: how a model would decode on a machine.

use block_transformer_generation::{GenerationError, Limits, Storage};
use block_transformer_zoo::ModelConfig;

use crate::machine::Machine;
use crate::phases::decode;
use crate::prediction::Prediction;
use crate::sizes::Sizes;
use crate::workload::Workload;

/// The batch, memory and speed of a model at one workload on a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// The work of each sequence.
    pub workload: Workload,
    /// Sequences decoded together.
    pub batch: usize,
    /// Bytes of keys and values per sequence.
    pub sequence_bytes: f64,
    /// The speed.
    pub prediction: Prediction,
}

impl Plan {
    /// Plans for `batch` sequences, or for the largest number that fits into the machine's memory.
    ///
    /// # Errors
    /// [`GenerationError::Memory`] when not even one sequence fits.
    pub fn new(
        config: &ModelConfig,
        machine: &Machine,
        workload: Workload,
        batch: Option<usize>,
    ) -> Result<Self, GenerationError> {
        let tokens = workload.tokens();
        let batch = match batch {
            Some(batch) => batch,
            None => largest_batch(config, machine, tokens)?.max_sequences,
        };
        let one = Limits { max_sequences: 1, max_tokens: tokens };
        let storage = Storage::of(config, machine.precision);
        Ok(Self {
            workload,
            batch,
            sequence_bytes: one.memory(config, storage).caches as f64,
            prediction: Prediction::new(config, machine, workload, batch),
        })
    }
}

/// Returns the bytes of keys and values that decoding one token reads per token of context.
pub fn cache_bytes_per_context_token(config: &ModelConfig, machine: &Machine) -> f64 {
    let caches = |context| decode(config, 1, context, Sizes::from(machine)).total().caches;
    let context = 1 << 16;
    (caches(context) - caches(0)) / context as f64
}

/// Returns the limits of an engine with the largest number of sequences that fits into the
/// machine's memory. Each sequence has up to `tokens` tokens.
///
/// # Errors
/// [`GenerationError::Memory`] when not even one sequence fits.
pub fn largest_batch(
    config: &ModelConfig,
    machine: &Machine,
    tokens: usize,
) -> Result<Limits, GenerationError> {
    let bytes = machine.memory as u64;
    Limits::that_fit(config, Storage::of(config, machine.precision), tokens, usize::MAX, bytes)
}
