//! Errors of studies.

use std::error::Error;
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
    #[error("study {study}: run {run}: {}", key_and_cause(source))]
    Run {
        /// The study.
        study: String,
        /// The run.
        run: String,
        /// The cause. It is a part of the message, and so no `source` of the error.
        r#source: Box<TrainError>,
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
    /// The ledger holds measurements of other texts.
    #[error(
        "{ledger}: {run} was measured on other texts ({before}) than those of now ({now}); use another ledger, or the \
         training and validation texts of before"
    )]
    OtherText {
        /// The ledger.
        ledger: PathBuf,
        /// The run.
        run: String,
        /// The identity of the texts in the ledger.
        before: String,
        /// The identity of the texts of now.
        now: String,
    },
    /// The ledger holds speeds of another device.
    #[error(
        "{ledger}: the speeds of {shape} were measured on the device {before}, and this is {now}; use another ledger, or \
         the device of before"
    )]
    OtherDevice {
        /// The ledger.
        ledger: PathBuf,
        /// The shape.
        shape: String,
        /// The device in the ledger.
        before: String,
        /// The device of now.
        now: String,
    },
    /// Another process runs a study on the ledger.
    #[error(
        "{0}: another study writes this ledger; wait until it has ended, or use another ledger"
    )]
    LedgerInUse(PathBuf),
    /// The ledger holds no measurement of the study.
    #[error(
        "{ledger}: holds no measurement of {study} at the scale {scale}; run the study first, or read another ledger"
    )]
    NothingMeasured {
        /// The ledger.
        ledger: PathBuf,
        /// The study.
        study: String,
        /// The scale.
        scale: String,
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

/// An error about a key of a declaration. The keys of the configuration come from flags otherwise, and its errors say so.
pub(crate) fn key_and_cause(error: &TrainError) -> String {
    if let TrainError::Configuration { reason, .. } = error {
        return reason.clone();
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
