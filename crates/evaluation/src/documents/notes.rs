//! Remarks that the reader of a report needs.

use crate::documents::checkpoint::CheckpointInfo;
use crate::documents::report::{CheckpointReport, PositionReport};

/// Remarks on the checkpoints, on the positions that are compared, and on books without a window.
pub(crate) fn notes(report: &PositionReport) -> Vec<String> {
    let mut notes = Vec::new();
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
    let short: Vec<&str> = report
        .books
        .iter()
        .filter(|book| book.windows == 0)
        .map(|book| book.name.as_str())
        .collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::report::BookReport;
    use crate::documents::windows::Windows;

    fn checkpoint(label: &str, block_length: usize, trained_context: usize) -> CheckpointReport {
        CheckpointReport {
            info: CheckpointInfo {
                label: label.into(),
                folder: "folder".into(),
                weights: String::new(),
                family: String::new(),
                block_length,
                parameters: 1,
                step: 1,
                trained_context,
            },
            beyond_trained_context: trained_context < 16,
            documents: None,
            common_loss: None,
            difference: None,
            by_place: Vec::new(),
            fall: None,
            fall_difference: None,
            curve: Default::default(),
            smoothed: Vec::new(),
        }
    }

    #[test]
    fn contexts_first_blocks_and_short_books_are_remarked() {
        let book = |name: &str, windows| BookReport {
            name: name.into(),
            tokens: 20,
            bytes: 20,
            words: 4,
            windows,
            unused_tokens: 4,
        };
        let report = PositionReport {
            windows: Windows { context: 16, stride: 16 },
            resamples: 1,
            common_from: 4,
            books: vec![book("long", 1), book("tiny", 0)],
            checkpoints: vec![checkpoint("b", 4, 16), checkpoint("v", 1, 8)],
            baseline: "v".into(),
            octaves: Vec::new(),
        };
        let notes = notes(&report).join("\n");
        assert!(notes.contains("v was trained with 8 tokens of context"), "{notes}");
        assert!(!notes.contains("b was trained"), "{notes}");
        assert!(notes.contains("b predicts nothing for the first 4 positions"), "{notes}");
        assert!(notes.contains("positions 4 to 15"), "{notes}");
        assert!(notes.contains("1 of 2 books") && notes.contains("tiny"), "{notes}");
    }
}
