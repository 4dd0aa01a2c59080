//! Plots of decoding speed, and comparisons of models with and without blocks.

use std::path::Path;

use block_transformer_plot::{AxisScale, Corner, Plot, PlotError, PlotLine, Style};
use block_transformer_zoo::BLOCK_FAMILY;

use crate::format::number;
use crate::output::draw_plots;
use crate::report::BenchRow;

/// Compares block models with vanilla models at the same workload, in one sentence per pair.
pub fn ratios(rows: &[BenchRow]) -> Vec<String> {
    let line = |(block, vanilla): (&BenchRow, &BenchRow)| {
        let mut line = format!(
            "workload {}: {} with batch {} decodes {} times as many tokens per second as {} with \
             batch {} (ratio of the rooflines {}, of the predicted speeds {})",
            block.work,
            block.model,
            block.batch,
            number(block.rate.median / vanilla.rate.median),
            vanilla.model,
            vanilla.batch,
            number(block.roofline.median / vanilla.roofline.median),
            number(block.predicted.median / vanilla.predicted.median),
        );
        if let (Some(block), Some(vanilla)) = (block.sequence_bytes, vanilla.sequence_bytes) {
            let times = vanilla as f64 / block as f64;
            line += &format!("; keys and values per sequence are {} times smaller", number(times));
        }
        line
    };
    pairs(rows).map(line).collect()
}

/// Pairs each row of a block model with every row of a vanilla model at the same workload. If some
/// of those vanilla rows have the same batch size as the block row, only they are used.
fn pairs(rows: &[BenchRow]) -> impl Iterator<Item = (&BenchRow, &BenchRow)> {
    rows.iter().filter(|row| row.family == BLOCK_FAMILY).flat_map(move |block| {
        let same_work = move |row: &&BenchRow| row.family != BLOCK_FAMILY && row.work == block.work;
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
pub fn draw(rows: &[BenchRow], dir: &Path) -> Result<Vec<&'static str>, PlotError> {
    let plots = [
        ("throughput-over-batch", over_batch(rows)),
        ("throughput-over-context", over_context(rows)),
        ("ratio-over-context", ratio_over_context(rows)),
        ("loss-and-throughput", frontier(rows)),
    ];
    draw_plots(plots, dir)
}

/// Returns two lines for each label that has at least two points: the measured values and their
/// limits. A point consists of a label, an `x`, a measured value and its limit.
fn lines(points: impl Iterator<Item = (String, f64, [f64; 2])>) -> Vec<PlotLine> {
    let mut lines: Vec<PlotLine> = Vec::new();
    for (label, x, [measured, limit]) in points {
        let roofline = format!("{label}, roofline");
        for (label, y, style) in
            [(label, measured, Style::Marked), (roofline, limit, Style::Dashed)]
        {
            match lines.iter_mut().find(|line| line.label == label) {
                Some(line) => line.points.push((x, y)),
                None => lines.push(PlotLine { label, points: vec![(x, y)], style }),
            }
        }
    }
    lines.retain(|line| line.points.len() > 1);
    lines.iter_mut().for_each(|line| line.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    lines
}

fn speeds(row: &BenchRow) -> [f64; 2] {
    [row.rate.median, row.roofline.median]
}

/// Returns whether some model was measured with more than one batch size at the same context
/// length.
fn has_batches(rows: &[BenchRow]) -> bool {
    let same = |a: &BenchRow, b: &BenchRow| {
        a.model == b.model && a.context == b.context && a.batch != b.batch
    };
    rows.iter().any(|a| a.context.is_some() && rows.iter().any(|b| same(a, b)))
}

fn throughput(title: &str, x_label: &str, lines: Vec<PlotLine>, legend: Corner) -> Option<Plot> {
    (!lines.is_empty()).then(|| Plot {
        title: title.into(),
        x_label: x_label.into(),
        y_label: "tokens per second".into(),
        x_scale: AxisScale::Log2,
        y_scale: AxisScale::Log2,
        lines,
        legend,
        ..Plot::default()
    })
}

fn over_batch(rows: &[BenchRow]) -> Option<Plot> {
    let several = |row: &&BenchRow| {
        let like = |other: &&BenchRow| other.model == row.model && other.work == row.work;
        rows.iter().filter(like).count() > 1
    };
    let point =
        |row: &BenchRow| (format!("{}, {}", row.model, row.work), row.batch as f64, speeds(row));
    let lines = lines(rows.iter().filter(several).map(point));
    throughput("Decoding, by batch", "batch size (sequences)", lines, Corner::LowerRight)
}

fn over_context(rows: &[BenchRow]) -> Option<Plot> {
    let batches = has_batches(rows);
    let point = |row: &BenchRow| {
        let batch = if batches { format!(", batch {}", row.batch) } else { String::new() };
        Some((format!("{}{batch}", row.model), row.context? as f64, speeds(row)))
    };
    let lines = lines(rows.iter().filter_map(point));
    throughput("Decoding, by context", "tokens of context", lines, Corner::LowerLeft)
}

fn ratio_over_context(rows: &[BenchRow]) -> Option<Plot> {
    let batches = has_batches(rows);
    let point = |(block, vanilla): (&BenchRow, &BenchRow)| {
        let batch = if batches { format!("batch {}, ", block.batch) } else { String::new() };
        let ([rate, roofline], [of_rate, of_roofline]) = (speeds(block), speeds(vanilla));
        Some((
            format!("{batch}{} over {}", block.model, vanilla.model),
            block.context? as f64,
            [rate / of_rate, roofline / of_roofline],
        ))
    };
    let lines = lines(pairs(rows).filter_map(point));
    let title = "Block over vanilla, by context";
    Some(Plot {
        y_label: "ratio of tokens per second".into(),
        y_scale: AxisScale::Linear,
        ..throughput(title, "tokens of context", lines, Corner::LowerRight)?
    })
}

/// Loss against throughput, with one point per checkpoint, workload and batch size.
fn frontier(rows: &[BenchRow]) -> Option<Plot> {
    let points = rows.iter().filter_map(|row| {
        let points = vec![(row.rate.median, row.loss?)];
        let label = format!("{}, {}, batch {}", row.model, row.work, row.batch);
        Some(PlotLine { label, points, style: Style::Marked })
    });
    let lines: Vec<PlotLine> = points.collect();
    (lines.len() > 1).then(|| Plot {
        title: "Loss and throughput".into(),
        x_label: "tokens per second".into(),
        y_label: "validation loss, nats per token".into(),
        x_scale: AxisScale::Log2,
        lines,
        ..Plot::default()
    })
}
