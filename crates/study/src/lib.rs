//! Studies: what a set of training runs says about a question.
//!
//! # Design
//!
//! A [`Study`] is a declaration in TOML (`studies/*.toml`): grids of runs, measurements, figures and claims. Data flows
//! one way:
//!
//! ```text
//! declaration ── scale ──> runs ──> run folders ──> measurements ──> ledger ──> figures, claims, report.md
//!                            ^                                         │
//!                            └────────── learning rates ───────────────┘
//! ```
//!
//! - **Runs.** A grid is every combination of the values of its axes. A value is a table of keys of the training
//!   configuration; the tables of all values are merged over those of the scale. Every key of
//!   [`TrainConfig`](block_transformer_training::TrainConfig) can be in a table, those of the model included. `shape` describes a model
//!   in few words, by the rules of the paper; `model` is merged over it.
//! - **Identity.** A run is named by a hash of its effective configuration without folder and device. Two studies that
//!   declare the same configuration share the run. A run folder is an ordinary one, so a killed run goes on from its newest
//!   checkpoint and ends with the same bits.
//! - **Ledger.** Every measurement is a line of JSON in one file, with its settings, commit, command, device and seed. A line is
//!   appended by one write; half a line, which a kill leaves, is dropped. What is in the ledger is neither trained nor
//!   measured again, even if the run folder is gone. Speeds belong to the shape of a model, not to a run: they are
//!   measured after all training of a study, with all its models in turn.
//! - **Learning rates** follow from a sweep at the smallest size by one rule for both families (study `rates`). The sweep's
//!   runs are runs; the rate is computed from the ledger.
//! - **Report.** Figures and `report.md` are computed from declaration and ledger alone, byte for byte the same.
//! - **Claims** have a test with three results. Intervals come from the deviation between seeds, pooled over all points of the
//!   study. The ratio of speeds at equal loss is interpolated within the losses that both families reach, and never
//!   extrapolated.

mod check;
mod claim;
mod clock;
mod corner;
mod declaration;
mod equal_loss;
mod error;
mod execute;
mod figure;
mod identity;
mod ledger;
mod measure;
mod measurement;
mod merge;
mod plan;
mod points;
mod published;
mod rates;
mod report;
mod run;
mod shape;
mod statistics;

pub use claim::Confidence;
pub use clock::Clock;
pub use declaration::Study;
pub use error::StudyError;
pub use execute::{Ended, Laboratory, Observer, Settings, StudyEvent};
pub use ledger::{Ledger, LedgerLock, Row};
pub use plan::{Here, PlannedRun, StudyPlan, plan};
pub use rates::Rates;
pub use report::Report;
pub use run::{Labels, Run};
