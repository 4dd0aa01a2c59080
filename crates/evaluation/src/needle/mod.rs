//! Needle in a haystack: a sentence with a number is hidden in a long text, and the model is asked for the
//! number. Samples and prompts have the form of the published Block Transformer's `needle/needle.py`.

#[cfg(feature = "plot")]
mod figure;
mod grid;
mod items;

pub use grid::{NeedleCell, NeedleGrid, NeedleReport};
pub use items::{Haystack, NEEDLE, NeedleSettings, needle_metrics};
