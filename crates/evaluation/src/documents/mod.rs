//! Loss by position in long documents (the paper's PG19 figure), and the perplexity of documents.
//!
//! A book is cut into windows. The loss at each position of a window is averaged over all windows
//! of all books. This mean falls along the window for as long as the model makes use of more
//! context. In addition, whole books are scored with every token predicted once. [`evaluate`] does
//! both for several checkpoints and writes the results to a folder, from which a killed evaluation
//! can be resumed. [`BookScorer`] scores one book.

mod bands;
mod book;
mod checkpoint;
mod evaluate;
#[cfg(feature = "plot")]
mod figure;
mod folder;
mod measure;
mod notes;
mod output;
mod report;
mod samples;
mod session;
mod totals;
mod windows;

pub use book::{Book, BookIdentity, BookText};
pub use checkpoint::{CheckpointInfo, OpenCheckpoint, OpenCheckpoints, free_label};
pub use evaluate::{DocumentEvaluation, Observer, evaluate};
pub use folder::{DocumentSettings, EvaluationFolder};
pub use measure::{BookRow, BookScorer, Measures, Tally};
pub use report::{BookReport, CheckpointReport, Octave, PositionReport};
pub use samples::{Curve, Fall};
pub use totals::DocumentTotals;
pub use windows::Windows;
