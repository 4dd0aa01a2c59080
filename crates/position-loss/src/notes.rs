//! What a reader of the results must know besides.

use crate::report::{CheckpointReport, Report};
use crate::subject::About;

/// Of the checkpoints, of what is compared, and of books left out.
pub(crate) fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    let context = report.windows.context;
    for CheckpointReport { about, beyond_trained_context, .. } in &report.checkpoints {
        let About { label, block_length, trained_context, .. } = about;
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
    let short: Vec<&str> = report
        .books
        .iter()
        .filter(|book| book.windows == 0)
        .map(|book| book.name.as_str())
        .collect();
    if !short.is_empty() {
        notes.push(format!(
            "{} of {} books are shorter than a window of {context} tokens and have no part in the \
             loss by position: {}.",
            short.len(),
            report.books.len(),
            short.join(", ")
        ));
    }
    notes
}
