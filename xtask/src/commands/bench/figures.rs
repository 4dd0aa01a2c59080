//! Plots of decoding, and what block models gain.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use block_transformer_plot::{Corner, Line, Plot, Scale, Style};

use super::report::{Row, number};

/// Lines that set block models against vanilla ones at the same work.
pub fn ratios(rows: &[Row]) -> Vec<String> {
    let line = |(block, vanilla): (&Row, &Row)| {
        let mut line = format!(
            "{}, {} x {} against {} x {}: {} times the tokens/s (peaks allow {}, predicted {})",
            block.work,
            block.batch,
            block.model,
            vanilla.batch,
            vanilla.model,
            number(block.rate.median / vanilla.rate.median),
            number(block.roofline.median / vanilla.roofline.median),
            number(block.predicted.median / vanilla.predicted.median),
        );
        if let (Some(block), Some(vanilla)) = (block.sequence_bytes, vanilla.sequence_bytes) {
            let times = vanilla as f64 / block as f64;
            line += &format!(", keys and values {} times smaller", number(times));
        }
        line
    };
    pairs(rows).map(line).collect()
}

/// Each block model's row with the vanilla ones of the same work: where batches were given, of the
/// same batch.
fn pairs(rows: &[Row]) -> impl Iterator<Item = (&Row, &Row)> {
    rows.iter().filter(|row| row.family == "block").flat_map(move |block| {
        let same_work = move |row: &&Row| row.family == "vanilla" && row.work == block.work;
        let same_batch = rows.iter().any(|row| same_work(&row) && row.batch == block.batch);
        let of_work = rows.iter().filter(same_work);
        of_work
            .filter(move |row| row.batch == block.batch || !same_batch)
            .map(move |row| (block, row))
    })
}

/// Draws what there are points enough for; says which files.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(rows: &[Row], dir: &Path) -> Result<String> {
    let mut drawn = String::new();
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
        drawn += &format!(", {name}.svg, .png");
    }
    Ok(drawn)
}

/// A line a model, or a model at one work, with what the peaks allow beside it.
fn lines(rows: &[Row], key: impl Fn(&Row) -> Option<String>, x: impl Fn(&Row) -> f64) -> Vec<Line> {
    let mut keys: Vec<String> = rows.iter().filter_map(&key).collect();
    let mut seen = Vec::new();
    keys.retain(|key| {
        let new = !seen.contains(key);
        seen.push(key.clone());
        new
    });
    let mut lines = Vec::new();
    for of in keys {
        let mut of_key: Vec<&Row> =
            rows.iter().filter(|row| key(row).as_ref() == Some(&of)).collect();
        of_key.sort_by(|a, b| x(a).total_cmp(&x(b)));
        let points = |y: fn(&Row) -> f64| of_key.iter().map(|row| (x(row), y(row))).collect();
        let measured = points(|row| row.rate.median);
        let most = points(|row| row.roofline.median);
        lines.push(Line { label: of.clone(), points: measured, style: Style::Marked });
        lines.push(Line {
            label: format!("{of}, peaks allow"),
            points: most,
            style: Style::Dashed,
        });
    }
    lines.retain(|line| line.points.len() > 1);
    lines
}

/// Whether a model was measured at one depth with several batches.
fn has_batches(rows: &[Row]) -> bool {
    let same =
        |a: &Row, b: &Row| a.model == b.model && a.context == b.context && a.batch != b.batch;
    rows.iter().any(|a| a.context.is_some() && rows.iter().any(|b| same(a, b)))
}

fn throughput(title: &str, x_label: &str, lines: Vec<Line>, legend: Corner) -> Option<Plot> {
    (!lines.is_empty()).then(|| Plot {
        title: title.into(),
        x_label: x_label.into(),
        y_label: "tokens a second".into(),
        x_scale: Scale::Log2,
        y_scale: Scale::Log2,
        lines,
        legend,
        ..Plot::default()
    })
}

fn over_batch(rows: &[Row]) -> Option<Plot> {
    let several = |row: &Row| {
        let like = |other: &&Row| other.model == row.model && other.work == row.work;
        rows.iter().filter(like).count() > 1
    };
    let key = |row: &Row| several(row).then(|| format!("{}, {}", row.model, row.work));
    let lines = lines(rows, key, |row| row.batch as f64);
    throughput("Decoding, by batch", "sequences together", lines, Corner::LowerRight)
}

fn over_context(rows: &[Row]) -> Option<Plot> {
    let batches = has_batches(rows);
    let key = |row: &Row| {
        row.context?;
        Some(if batches { format!("{} x {}", row.batch, row.model) } else { row.model.clone() })
    };
    let lines = lines(rows, key, |row| row.context.unwrap_or(0) as f64);
    throughput("Decoding, by context", "tokens of context", lines, Corner::LowerLeft)
}

fn ratio_over_context(rows: &[Row]) -> Option<Plot> {
    let batches = has_batches(rows);
    // a line of pairs, and what the peaks allow
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
        let allow = format!("{label}, peaks allow");
        lines.push(Line { label, points: sorted(measured), style: Style::Marked });
        lines.push(Line { label: allow, points: sorted(allowed), style: Style::Dashed });
    }
    lines.retain(|line| line.points.len() > 1);
    (!lines.is_empty()).then(|| Plot {
        title: "Block over vanilla, by context".into(),
        x_label: "tokens of context".into(),
        y_label: "ratio of tokens a second".into(),
        x_scale: Scale::Log2,
        lines,
        legend: Corner::LowerRight,
        ..Plot::default()
    })
}

/// Loss over throughput, a point a checkpoint at each work.
fn frontier(rows: &[Row]) -> Option<Plot> {
    let points = rows.iter().filter_map(|row| {
        let points = vec![(row.rate.median, row.loss?)];
        let label = format!("{}, {} x {}", row.model, row.batch, row.work);
        Some(Line { label, points, style: Style::Marked })
    });
    let lines: Vec<Line> = points.collect();
    (lines.len() > 1).then(|| Plot {
        title: "Loss and throughput".into(),
        x_label: "tokens a second".into(),
        y_label: "validation loss, nats a token".into(),
        x_scale: Scale::Log2,
        lines,
        ..Plot::default()
    })
}
