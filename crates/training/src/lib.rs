//! Training by step: schedule, optimizer, checkpoints, metrics.
//!
//! [`TrainingRun`] trains a model on a prepared corpus into a run folder, and resumes it there. A
//! step is a function of the weights, the optimizer state and the step number, so an interrupted
//! run ends with the same bits as an uninterrupted one. A run is launched as a `SupervisedTraining`
//! of [burn-train](burn::train), so that burn's metrics, renderers, interrupter and early stopping
//! can be used with it.
//!
//! [`Trainer`] runs single steps, for a training loop of your own. [`Trainable`] and
//! [`WindowBatcher`] are for burn's own loop (example `burn_trainer` of `block-transformer`).

mod batch;
mod buckets;
mod config;
mod distill;
mod error;
mod evaluation;
mod events;
mod found;
mod gradients;
mod layers;
mod memory;
mod metrics;
mod muon;
mod optimizer;
mod queue;
mod ranks;
mod reading;
mod ready;
mod replicas;
mod row;
mod run;
mod schedule;
mod silent;
mod skipping;
mod speed;
mod start;
mod step_metric;
mod steps;
mod strategy;
mod tensorboard;
mod trainable;
mod trainer;
mod update;
mod uptrain;
mod writer;

pub use batch::{WindowBatcher, token_batch};
pub use config::TrainConfig;
pub use error::{EvaluationError, TrainError};
pub use memory::is_out_of_memory;
pub use reading::ReadPolicy;
pub use ready::{check_folder, check_formats, model_config, run_model};
pub use row::{EvaluationScore, MetricsRow};
pub use run::{Outcome, TrainingRun};
pub use schedule::Schedule;
pub use speed::{RunEvent, StepProgress};
pub use start::Origin;
pub use step_metric::StepMetric;
pub use trainable::{StepOutput, Trainable};
pub use trainer::Trainer;
pub use update::{StepResult, apply_update};
pub use uptrain::Uptrain;
