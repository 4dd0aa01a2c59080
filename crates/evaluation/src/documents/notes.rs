//! Remarks that the reader of a report needs.

use crate::documents::checkpoint::CheckpointInfo;
use crate::documents::report::{CheckpointReport, PositionReport};

/// Remarks on the checkpoints, on the positions that are compared, and on books that are shorter
/// than a window.
pub(crate) fn notes(report: &PositionReport) -> Vec<String> {
    let mut notes = Vec::new();
    if !report.precision.is_f32() {
        notes.push(format!("Weights and KV caches: {}.", report.precision));
    }
    let context = report.windows.context;
    for CheckpointReport { info, beyond_trained_context, .. } in &report.checkpoints {
        let CheckpointInfo { label, block_length, trained_context, .. } = info;
        if *beyond_trained_context {
            notes.push(format!(
                "{label} was trained with {trained_context} tokens of context; positions from \
                 {trained_context} on are beyond it."
            ));
        }
        if *block_length > 1 {
            notes.push(format!(
                "{label} predicts nothing for the first {block_length} positions of a window: its \
                 curve starts at position {block_length}."
            ));
        }
    }
    if report.checkpoints.len() > 1 {
        let from = report.common_from;
        notes.push(format!(
            "Comparisons are over positions {from} to {}, which every checkpoint predicts.",
            context - 1
        ));
    }
    let short = report.books.iter().filter(|book| book.windows == 0);
    let short: Vec<&str> = short.map(|book| book.name.as_str()).collect();
    if !short.is_empty() {
        notes.push(format!(
            "{} of {} books are shorter than a window of {context} tokens and do not contribute \
             to the loss by position: {}.",
            short.len(),
            report.books.len(),
            short.join(", ")
        ));
    }
    notes
}
