//! Training by step: schedule, optimizer, checkpoints, metrics.
//!
//! [`run`] trains a preset on a prepared corpus into a run folder and resumes it there; a step is a
//! function of the weights, the optimizer state and the step number, so an interrupted run ends
//! where an uninterrupted one does. [`Trainer`] is one step of it, for loops of one's own, and
//! [`WindowBatcher`] feeds burn's own trainer (`examples/burn_trainer.rs`).

mod batch;
mod config;
mod error;
mod figure;
pub mod gradients;
mod interrupt;
mod metrics;
mod progress;
mod run;
mod schedule;
mod trainer;

pub use batch::{WindowBatcher, real_tokens, token_batch};
pub use config::TrainConfig;
pub use error::TrainError;
pub use interrupt::{INTERRUPTED, on_interrupt};
pub use metrics::Row;
pub use progress::{Lines, Progress, Reporter, Silent};
pub use run::{Outcome, check_folder, model_config, run};
pub use schedule::Schedule;
pub use trainer::{StepResult, Trainer};
