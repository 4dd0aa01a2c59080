//! Errors of checks.

use std::path::PathBuf;

use block_transformer_bench::BenchError;
use block_transformer_cost::{LengthsError, MachineError};
use block_transformer_device::DeviceError;
use block_transformer_files::FileError;
use block_transformer_generation::GenerationError;
use block_transformer_parity::ParityError;
use block_transformer_training::TrainError;
use block_transformer_zoo::PresetError;
use burn::tensor::ExecutionError;

/// A check that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The folder has results already.
    #[error("{0} contains the results of a check; resume that check, or choose another folder")]
    InUse(PathBuf),
    /// The results in the folder come from other settings.
    #[error(
        "{0}: this check began with other settings; use the same ones, or choose another folder"
    )]
    OtherSettings(PathBuf),
    /// A file does not contain what this program writes to it.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// A result cannot be written as JSON.
    #[error("a result cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// There are no recorded cases.
    #[error("there is no folder of recorded cases; looked for {}", .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoGolden(Vec<PathBuf>),
    /// The path of this program is not known.
    #[error("cannot find this program")]
    NoProgram(#[source] std::io::Error),
    /// Another process cannot be started.
    #[error("cannot run {program}")]
    Start {
        /// The program.
        program: String,
        /// The cause.
        source: std::io::Error,
    },
    /// Another process failed.
    #[error("{program} failed: {message}")]
    Failed {
        /// The program.
        program: String,
        /// The end of what it wrote to stderr.
        message: String,
    },
    /// The platform is not Linux.
    #[error("a bundle can be written on Linux only")]
    NotLinux,
    /// The folder for a bundle exists.
    #[error("{0} exists; choose another folder")]
    Exists(PathBuf),
    /// A bundle is larger than the limit.
    #[error(
        "the archive {archive} has {} MB, and the limit is {} MB; the largest files are {largest}",
        bytes / 1_000_000,
        limit / 1_000_000
    )]
    TooLarge {
        /// The archive.
        archive: PathBuf,
        /// Its bytes.
        bytes: u64,
        /// The largest number of bytes that is allowed.
        limit: u64,
        /// The largest files of the bundle, with their sizes before compression.
        largest: String,
    },
    /// A file system operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The device cannot be opened.
    #[error(transparent)]
    Open(#[from] DeviceError),
    /// The device failed.
    #[error("the device failed")]
    Device(#[from] ExecutionError),
    /// There is no such preset.
    #[error(transparent)]
    Preset(#[from] PresetError),
    /// A recorded case cannot be compared.
    #[error(transparent)]
    Parity(#[from] ParityError),
    /// Generation failed.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// A training configuration is invalid.
    #[error(transparent)]
    Training(#[from] TrainError),
    /// A benchmark failed.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A workload is not a pair of lengths.
    #[error(transparent)]
    Lengths(#[from] LengthsError),
    /// A machine of the cost model is unknown.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

impl CheckError {
    /// For `map_err` after an attempt to start `program`.
    pub(crate) fn start(program: &std::ffi::OsStr) -> impl Fn(std::io::Error) -> Self + '_ {
        move |source| Self::Start { program: program.to_string_lossy().into(), source }
    }
}
