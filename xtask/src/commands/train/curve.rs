//! The loss curve of a run.

use block_transformer_plot::{Plot, PlotLine, Style, smoothed};
use block_transformer_training::MetricsRow;

/// Training and validation loss by step, with the loss of token frequencies as a level.
pub(super) fn plot(title: &str, rows: &[MetricsRow], frequency_loss: f64) -> Plot {
    let trained = rows.iter().filter(|row| !row.skipped);
    let train: Vec<(f64, f64)> = trained.map(|row| (row.step as f64, row.loss)).collect();
    let validation = rows.iter().filter_map(|row| Some((row.step as f64, row.validation_loss?)));
    let window = (rows.len() as f64 / 30.0).max(2.0);
    let frequencies = format!("token frequencies alone ({frequency_loss:.2})");
    let ends = [train.first(), train.last()].into_iter().flatten();
    let level = ends.map(|&(step, _)| (step, frequency_loss)).collect();
    let line = |label: &str, points, style| PlotLine { label: label.into(), points, style };
    Plot {
        title: title.into(),
        x_label: "step".into(),
        y_label: "loss (nats per token)".into(),
        lines: vec![
            line("training", train.clone(), Style::Faint),
            line("training, smoothed", smoothed(&train, window), Style::Solid),
            line("validation", validation.collect(), Style::Marked),
            line(&frequencies, level, Style::Level),
        ],
        ..Plot::default()
    }
}
