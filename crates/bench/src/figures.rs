//! Plots of decoding speed, and comparisons of models with and without blocks.

use std::collections::BTreeMap;
use std::path::Path;

use block_transformer_plot::{Corner, Line, Plot, Scale, Style};

use crate::error::BenchError;
use crate::format::number;
use crate::report::BenchRow;

/// Compares models with blocks and models without at the same workload, one sentence per pair.
pub fn ratios(rows: &[BenchRow]) -> Vec<String> {
    let line = |(block, vanilla): (&BenchRow, &BenchRow)| {
        let mut line = format!(
            "{}: {} x {} decodes {} times as many tokens per second as {} x {} (roofline {}, predicted {})",
            block.work,
            block.batch,
            block.model,
            number(block.rate.median / vanilla.rate.median),
            vanilla.batch,
            vanilla.model,
            number(block.roofline.median / vanilla.roofline.median),
            number(block.predicted.median / vanilla.predicted.median),
        );
        if let (Some(block), Some(vanilla)) = (block.sequence_bytes, vanilla.sequence_bytes) {
            let times = vanilla as f64 / block as f64;
            line += &format!("; its keys and values are {} times smaller", number(times));
        }
        line
    };
    pairs(rows).map(line).collect()
}

/// Pairs each row of a model with blocks with the rows of models without blocks at the same
/// workload, and at the same batch if one was measured.
fn pairs(rows: &[BenchRow]) -> impl Iterator<Item = (&BenchRow, &BenchRow)> {
    rows.iter().filter(|row| row.block_length > 1).flat_map(move |block| {
        let same_work = move |row: &&BenchRow| row.block_length == 1 && row.work == block.work;
        let same_batch = rows.iter().any(|row| same_work(&row) && row.batch == block.batch);
        let of_work = rows.iter().filter(same_work);
        of_work
            .filter(move |row| row.batch == block.batch || !same_batch)
            .map(move |row| (block, row))
    })
}

/// Draws the plots that have enough points, as SVG and PNG, in the folder `dir`. Returns their names
/// without extension.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(rows: &[BenchRow], dir: &Path) -> Result<Vec<&'static str>, BenchError> {
    let mut drawn = Vec::new();
    let plots = [
        ("throughput-over-batch", over_batch(rows)),
        ("throughput-over-context", over_context(rows)),
        ("ratio-over-context", ratio_over_context(rows)),
        ("loss-and-throughput", frontier(rows)),
    ];
    for (name, plot) in plots {
        let Some(plot) = plot else { continue };
        for extension in ["svg", "png"] {
            plot.write(&dir.join(format!("{name}.{extension}")))?;
        }
        drawn.push(name);
    }
    Ok(drawn)
}

/// Returns a line per key with the speed, and one with the roofline.
fn lines(
    rows: &[BenchRow],
    key: impl Fn(&BenchRow) -> Option<String>,
    x: impl Fn(&BenchRow) -> f64,
) -> Vec<Line> {
    let mut keys: Vec<String> = rows.iter().filter_map(&key).collect();
    let mut seen = Vec::new();
    keys.retain(|key| {
        let new = !seen.contains(key);
        seen.push(key.clone());
        new
    });
    let mut lines = Vec::new();
    for of in keys {
        let mut of_key: Vec<&BenchRow> =
            rows.iter().filter(|row| key(row).as_ref() == Some(&of)).collect();
        of_key.sort_by(|a, b| x(a).total_cmp(&x(b)));
        let points = |y: fn(&BenchRow) -> f64| of_key.iter().map(|row| (x(row), y(row))).collect();
        let measured = points(|row| row.rate.median);
        let most = points(|row| row.roofline.median);
        lines.push(Line { label: of.clone(), points: measured, style: Style::Marked });
        lines.push(Line { label: format!("{of}, roofline"), points: most, style: Style::Dashed });
    }
    lines.retain(|line| line.points.len() > 1);
    lines
}

/// Returns whether a model was measured after one context with several batches.
fn has_batches(rows: &[BenchRow]) -> bool {
    let same = |a: &BenchRow, b: &BenchRow| {
        a.model == b.model && a.context == b.context && a.batch != b.batch
    };
    rows.iter().any(|a| a.context.is_some() && rows.iter().any(|b| same(a, b)))
}

fn throughput(title: &str, x_label: &str, lines: Vec<Line>, legend: Corner) -> Option<Plot> {
    (!lines.is_empty()).then(|| Plot {
        title: title.into(),
        x_label: x_label.into(),
        y_label: "tokens per second".into(),
        x_scale: Scale::Log2,
        y_scale: Scale::Log2,
        lines,
        legend,
        ..Plot::default()
    })
}

fn over_batch(rows: &[BenchRow]) -> Option<Plot> {
    let several = |row: &BenchRow| {
        let like = |other: &&BenchRow| other.model == row.model && other.work == row.work;
        rows.iter().filter(like).count() > 1
    };
    let key = |row: &BenchRow| several(row).then(|| format!("{}, {}", row.model, row.work));
    let lines = lines(rows, key, |row| row.batch as f64);
    throughput("Decoding, by batch", "sequences together", lines, Corner::LowerRight)
}

fn over_context(rows: &[BenchRow]) -> Option<Plot> {
    let batches = has_batches(rows);
    let key = |row: &BenchRow| {
        row.context?;
        Some(if batches { format!("{} x {}", row.batch, row.model) } else { row.model.clone() })
    };
    let lines = lines(rows, key, |row| row.context.unwrap_or(0) as f64);
    throughput("Decoding, by context", "tokens of context", lines, Corner::LowerLeft)
}

fn ratio_over_context(rows: &[BenchRow]) -> Option<Plot> {
    let batches = has_batches(rows);
    // per pair of models, the measured ratio and the ratio of the rooflines
    let mut all: BTreeMap<String, [Vec<(f64, f64)>; 2]> = BTreeMap::new();
    for (block, vanilla) in pairs(rows) {
        let Some(context) = block.context else { continue };
        let batch = if batches { format!("batch {}, ", block.batch) } else { String::new() };
        let label = format!("{batch}{} over {}", block.model, vanilla.model);
        let [measured, allowed] = all.entry(label).or_default();
        measured.push((context as f64, block.rate.median / vanilla.rate.median));
        allowed.push((context as f64, block.roofline.median / vanilla.roofline.median));
    }
    let mut lines = Vec::new();
    for (label, [measured, allowed]) in all {
        let sorted = |mut points: Vec<(f64, f64)>| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            points
        };
        let allow = format!("{label}, roofline");
        lines.push(Line { label, points: sorted(measured), style: Style::Marked });
        lines.push(Line { label: allow, points: sorted(allowed), style: Style::Dashed });
    }
    lines.retain(|line| line.points.len() > 1);
    (!lines.is_empty()).then(|| Plot {
        title: "Block over vanilla, by context".into(),
        x_label: "tokens of context".into(),
        y_label: "ratio of tokens per second".into(),
        x_scale: Scale::Log2,
        lines,
        legend: Corner::LowerRight,
        ..Plot::default()
    })
}

/// Loss over throughput, with a point per checkpoint and workload.
fn frontier(rows: &[BenchRow]) -> Option<Plot> {
    let points = rows.iter().filter_map(|row| {
        let points = vec![(row.rate.median, row.loss?)];
        let label = format!("{}, {} x {}", row.model, row.batch, row.work);
        Some(Line { label, points, style: Style::Marked })
    });
    let lines: Vec<Line> = points.collect();
    (lines.len() > 1).then(|| Plot {
        title: "Loss and throughput".into(),
        x_label: "tokens per second".into(),
        y_label: "validation loss, nats per token".into(),
        x_scale: Scale::Log2,
        lines,
        ..Plot::default()
    })
}
