//! The report of a check.

use std::fmt::Write;

use crate::part::Part;
use crate::result::{PartResult, PartState};
use crate::settings::CheckSettings;

/// Returns the report as Markdown.
pub(crate) fn report(settings: &CheckSettings, results: &[PartResult]) -> String {
    let mut text = format!(
        "# Check of {}{}\n\nblock-transformer {}, {} {}.\n",
        settings.device,
        if settings.quick { ", quick" } else { "" },
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
    );
    // writing to a string cannot fail
    for note in notes(settings) {
        let _ = write!(text, "\n{note}\n");
    }
    text += "\n| part | result | seconds | limit | |\n|---|---|---:|---:|---|\n";
    for PartResult { part, state, seconds, limit, summary, .. } in results {
        let summary = summary.replace('|', "\\|");
        let _ = writeln!(text, "| {part} | {state} | {seconds:.1} | {limit:.0} | {summary} |");
    }
    let all = Part::all(settings);
    if results.len() < all.len() {
        let _ = write!(text, "\n{} of {} parts have run.\n", results.len(), all.len());
    }
    for (part, result) in all.into_iter().zip(results) {
        let _ = write!(text, "\n## {}: {}\n\n", part.title(settings), result.state);
        let _ = writeln!(text, "{}", result.summary);
        if !result.markdown.is_empty() {
            let _ = write!(text, "\n{}\n", result.markdown.trim_end());
        }
        if result.state != PartState::Passed && !result.tail.is_empty() {
            let _ = write!(text, "\nThe last lines of `{}.log`:\n\n```text\n", result.part);
            result.tail.iter().for_each(|line| {
                let _ = writeln!(text, "{line}");
            });
            text += "```\n";
        }
    }
    text
}

/// Returns what a reader must know about the numbers.
fn notes(settings: &CheckSettings) -> Vec<String> {
    let mut notes = Vec::new();
    if settings.is_dry() {
        notes.push(
            "**All numbers are meaningless: the CUDA driver of this run computes nothing \
             (DRY_CUDA_ZERO_READS is set). Only whether kernels compile and launch can be seen.**"
                .into(),
        );
    }
    if settings.device.is_processor() {
        notes.push(format!(
            "**{} is not a GPU: speeds are those of a processor.**",
            settings.device
        ));
    }
    notes.push(
        "Not checked: speeds in bf16. Matrix products of f32 values have operands that NVIDIA GPUs cut to TF32; \
         `docs/gpu.md` derives the tolerances."
            .into(),
    );
    notes
}
