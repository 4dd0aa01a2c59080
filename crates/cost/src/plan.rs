//! Plans: how a model would decode on a machine.

use block_transformer_family::FloatFormat;
use block_transformer_generation::{GenerationError, Limits};
use block_transformer_zoo::{FamilyConfig, ModelConfig};

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
    /// Plans for `batch` sequences, or for as many as fit into the machine's memory.
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
            None => largest_batch(config, machine, tokens)?.sequences,
        };
        let in_f32 = Limits { sequences: 1, tokens }.memory(config, 0).caches as f64;
        Ok(Self {
            workload,
            batch,
            sequence_bytes: in_f32 * machine.values.bytes() as f64
                / FloatFormat::F32.bytes() as f64,
            prediction: Prediction::new(config, machine, workload, batch),
        })
    }
}

/// Returns the bytes of keys and values that a written token reads per token of context.
pub fn cache_bytes_per_context_token(config: &ModelConfig, machine: &Machine) -> f64 {
    let caches = |context| decode(config, 1, context, Sizes::from(machine)).total().caches;
    let context = 1 << 16;
    (caches(context) - caches(0)) / context as f64
}

/// Returns the limits of an engine with as many sequences of `tokens` tokens as fit into the
/// machine's memory.
///
/// # Errors
/// [`GenerationError::Memory`] when not even one sequence fits.
pub fn largest_batch(
    config: &ModelConfig,
    machine: &Machine,
    tokens: usize,
) -> Result<Limits, GenerationError> {
    // limits are computed for f32 caches: for smaller ones, everything else is scaled up instead
    let scale = FloatFormat::F32.bytes() as f64 / machine.values.bytes() as f64;
    let sizes = Sizes::from(machine);
    let matrices = config.num_matrix_params() as f64;
    let others = config.num_params() as f64 - matrices;
    let weights = matrices * sizes.weights + others * sizes.values;
    let scaled = |bytes: f64| (bytes * scale) as u64;
    Limits::that_fit(config, scaled(weights), tokens, usize::MAX, scaled(machine.memory)).map_err(
        |error| match error {
            GenerationError::Memory { given, tokens, needed, weights } => {
                let unscaled = |bytes: u64| (bytes as f64 / scale) as u64;
                let [given, needed, weights] = [given, needed, weights].map(unscaled);
                GenerationError::Memory { given, tokens, needed, weights }
            }
            error => error,
        },
    )
}
