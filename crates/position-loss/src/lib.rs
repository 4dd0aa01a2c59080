//! Loss by position in long documents (the paper's PG19 figure), and the perplexity of documents.
//!
//! A book is cut into windows, and the loss at each position of a window is averaged over all windows
//! of all books: what falls along a window is what a model makes of context. Beside it, whole books
//! are scored with every token predicted once. [`evaluate`] does both for several checkpoints into a
//! folder that survives being killed; [`Meter`] does one book. [`Repeats`] makes documents whose best
//! possible loss by position is known.

mod bands;
mod books;
mod bootstrap;
mod documents;
mod error;
mod figure;
mod folder;
mod measure;
mod notes;
mod output;
mod repeats;
mod report;
mod run;
mod samples;
mod subject;
mod windows;

pub use books::{Book, BookIdentity, Tokens};
pub use documents::DocumentReport;
pub use error::PositionLossError;
pub use folder::{BookRow, EvaluationFolder, Settings};
pub use measure::{Measures, Meter, Tally};
pub use repeats::Repeats;
pub use report::{BookReport, CheckpointReport, Curve, Estimate, Fall, Octave, Report};
pub use run::{Watch, evaluate};
pub use subject::{About, Subjects};
pub use windows::Windows;
