//! Errors of studies.

use std::path::PathBuf;

use block_transformer_bench::BenchError;
use block_transformer_checkpoint::CheckpointError;
use block_transformer_cost::MachineError;
use block_transformer_datasets::DatasetError;
use block_transformer_evaluation::EvalError;
use block_transformer_files::FileError;
use block_transformer_plot::PlotError;
use block_transformer_text::TextError;
use block_transformer_training::TrainError;
use burn::tensor::ExecutionError;

/// A study that cannot be read, run or drawn.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// There is no study of this name.
    #[error(
        "{name}: there is no such study; the studies are {known}, and the path of a .toml file is another"
    )]
    Unknown {
        /// The name.
        name: String,
        /// The names of the studies.
        known: String,
    },
    /// A declaration that is not one.
    #[error("{origin}: {reason}")]
    Declaration {
        /// The study or the file.
        origin: String,
        /// The key and the cause.
        reason: String,
    },
    /// The study declares no runs at this scale.
    #[error("{study} declares no runs at the scale {scale}; its scales are {known}")]
    NoRuns {
        /// The study.
        study: String,
        /// The scale.
        scale: String,
        /// The scales at which it declares runs.
        known: String,
    },
    /// No run has this name.
    #[error("no run of {study} is called {name}; the nearest is {nearest}")]
    NoRun {
        /// The study.
        study: String,
        /// The name.
        name: String,
        /// The most similar name.
        nearest: String,
    },
    /// A run cannot be trained as declared.
    #[error("{study}, run {run}")]
    Run {
        /// The study.
        study: String,
        /// The run.
        run: String,
        /// The cause.
        source: Box<TrainError>,
    },
    /// The learning rate follows from runs that have not been measured yet.
    #[error(
        "the learning rate of {family} models follows from the study {sweep}, which has not been measured at this scale; run it first"
    )]
    NoRate {
        /// The family.
        family: String,
        /// The study that measures learning rates.
        sweep: String,
    },
    /// A text that the study needs is not known.
    #[error("the study needs {0}; say where this text is")]
    NoCorpus(String),
    /// The ledger holds measurements of another text.
    #[error(
        "{ledger}: {run} was measured on another text than {path}; use another ledger, or the text of before"
    )]
    OtherText {
        /// The ledger.
        ledger: PathBuf,
        /// The run.
        run: String,
        /// The text.
        path: PathBuf,
    },
    /// The file of the ledger holds a line that is not a measurement.
    #[error("{path}:{line}: not a measurement of a study: {reason}")]
    Ledger {
        /// The ledger.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The cause.
        reason: String,
    },
    /// A training run fails.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// An evaluation fails.
    #[error(transparent)]
    Evaluation(#[from] EvalError),
    /// A benchmark fails.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The corpus cannot be prepared.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A tokenizer fails.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A figure cannot be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// A machine is not known.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The device fails.
    #[error("the device failed")]
    Device(#[from] ExecutionError),
    /// A value cannot be written as JSON.
    #[error("a measurement cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}
