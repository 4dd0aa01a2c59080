//! Plots of latency and speed over the load.

use std::path::Path;

use block_transformer_plot::{AxisScale, Corner, Plot, PlotError, PlotLine, Style};

use super::row::LoadRow;
use super::run::Load;
use crate::output::draw_plots;

/// The characters of a model's name in a legend.
const LONGEST_NAME: usize = 32;

/// Draws the plots that have enough points, as SVG and PNG, in the folder `dir`. Returns their names without
/// extension.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_load(rows: &[LoadRow], dir: &Path) -> Result<Vec<&'static str>, PlotError> {
    let (by_rate, by_streams) = ("requests per second (Poisson)", "streams");
    let plots = [
        (
            "latency-over-rate",
            plot(rows, by_rate, "time to the first token, s", rate, first_tokens),
        ),
        (
            "answers-over-rate",
            // none can be in the bounds, so that the axis begins at 0
            plot(rows, by_rate, "answers per second", rate, answers)
                .map(|plot| Plot { y_scale: AxisScale::Linear, ..plot }),
        ),
        (
            "latency-over-streams",
            plot(rows, by_streams, "time to the first token, s", streams, first_tokens),
        ),
        ("throughput-over-streams", plot(rows, by_streams, "tokens per second", streams, tokens)),
    ];
    draw_plots(plots, dir)
}

fn rate(row: &LoadRow) -> Option<f64> {
    match row.load {
        Load::Rate(rate) => Some(rate),
        Load::Streams(_) => None,
    }
}

fn streams(row: &LoadRow) -> Option<f64> {
    match row.load {
        Load::Streams(streams) => Some(streams as f64),
        Load::Rate(_) => None,
    }
}

/// The name of a line, its value, and its style.
type Value = (&'static str, f64, Style);

fn first_tokens(row: &LoadRow) -> Vec<Value> {
    vec![("median", row.ttft.p50, Style::Marked), ("99%", row.ttft.p99, Style::Dashed)]
}

fn answers(row: &LoadRow) -> Vec<Value> {
    let all = ("all", row.requests_per_second, Style::Marked);
    let good = row.goodput.map(|goodput| ("in the bounds", goodput, Style::Dashed));
    [all].into_iter().chain(good).collect()
}

fn tokens(row: &LoadRow) -> Vec<Value> {
    vec![("", row.tokens_per_second, Style::Marked)]
}

/// The end of a long name, which a legend has room for.
fn shortened(name: &str) -> String {
    let count = name.chars().count();
    if count <= LONGEST_NAME {
        return name.into();
    }
    let end: String = name.chars().skip(count + 1 - LONGEST_NAME).collect();
    format!("…{end}")
}

/// Returns a plot of the rows that have an x; `None` if no model has two of them.
fn plot(
    rows: &[LoadRow],
    x_label: &str,
    y_label: &str,
    x: fn(&LoadRow) -> Option<f64>,
    values: fn(&LoadRow) -> Vec<Value>,
) -> Option<Plot> {
    let mut lines: Vec<PlotLine> = Vec::new();
    for row in rows {
        let Some(x) = x(row) else { continue };
        for (name, y, style) in values(row) {
            let model = shortened(&row.model);
            let label = if name.is_empty() { model } else { format!("{model}, {name}") };
            match lines.iter_mut().find(|line| line.label == label) {
                Some(line) => line.points.push((x, y)),
                None => lines.push(PlotLine { label, points: vec![(x, y)], style }),
            }
        }
    }
    lines.retain(|line| line.points.len() > 1);
    lines.iter_mut().for_each(|line| line.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    (!lines.is_empty()).then(|| Plot {
        title: "Load over HTTP".into(),
        x_label: x_label.into(),
        y_label: y_label.into(),
        x_scale: AxisScale::Log10,
        y_scale: AxisScale::Log10,
        lines,
        legend: Corner::Beside,
        ..Plot::default()
    })
}
