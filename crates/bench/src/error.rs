//! Errors of benchmarks.

use block_transformer_checkpoint::CheckpointError;
use block_transformer_cost::Workload;
use block_transformer_datasets::DatasetError;
use block_transformer_device::DeviceName;
use block_transformer_generation::GenerationError;
use block_transformer_training::TrainError;
use burn::tensor::ExecutionError;

/// A benchmark that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A corpus cannot be read or prepared.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The tokenizer is not one of the `tokenizers` library.
    #[error(
        "the tokenizer of one id per byte is not one of the `tokenizers` library; use a tokenizer.json"
    )]
    NoLibrary,
    /// The address of a server is not one.
    #[error("`{0}` must be the address of a server, such as http://127.0.0.1:8000")]
    Url(String),
    /// A server does not answer, or not as asked.
    #[error("{address}: {reason}")]
    Server {
        /// The address, or the name of the model.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// Threads cannot be started.
    #[error("cannot start threads: {0}")]
    Threads(String),
    /// The continuation is too short to be timed in parts.
    #[error(
        "{workload}: a continuation of fewer than {least} tokens is too short to be timed in parts; \
         measure it without a time limit"
    )]
    TooShort {
        /// The workload.
        workload: Workload,
        /// Tokens of the shortest continuation that can be timed in parts.
        least: usize,
    },
    /// Not even one sequence fits into the memory limit.
    #[error("{model}, {workload}")]
    NoBatch {
        /// The model.
        model: String,
        /// The workload.
        workload: Workload,
        /// The error that states the memory of one sequence.
        source: GenerationError,
    },
    /// The batch does not fit into the memory of the machine.
    #[error(
        "{model} with batch {batch} at workload {workload} needs {} MiB, and the machine has {} \
         MiB",
        needed >> 20,
        available >> 20
    )]
    Memory {
        /// The model.
        model: String,
        /// The workload.
        workload: Workload,
        /// Sequences decoded together.
        batch: usize,
        /// Bytes that the model and these sequences need.
        needed: u64,
        /// Bytes of memory of the machine.
        available: u64,
    },
    /// The sequences do not fit into the memory of the device, by the formula.
    #[error(
        "{model} takes {} MiB for {batch} sequences of {context} tokens, and the device {device} has {} MiB; {}",
        needed >> 20,
        available >> 20,
        match largest {
            Some(largest) => format!("the largest batch that fits is {largest}"),
            None => "use a smaller model or shorter sequences".into(),
        }
    )]
    Sequences {
        /// The model.
        model: String,
        /// Sequences per batch.
        batch: usize,
        /// Tokens per sequence.
        context: usize,
        /// Bytes that the model and the sequences need.
        needed: u64,
        /// The device.
        device: DeviceName,
        /// Bytes of its memory.
        available: u64,
        /// The largest batch that fits; `None` if not even one sequence does.
        largest: Option<usize>,
    },
    /// The sequences are not a whole number of blocks, or have fewer than two blocks.
    #[error(
        "sequences of {context} tokens must be two or more whole blocks of {block_length} tokens"
    )]
    Context {
        /// Tokens per sequence.
        context: usize,
        /// Tokens per block.
        block_length: usize,
    },
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The engine failed.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The device failed.
    #[error("the device failed")]
    Device(#[from] ExecutionError),
    /// The configuration of a training step is invalid.
    #[error(transparent)]
    Training(#[from] TrainError),
}
