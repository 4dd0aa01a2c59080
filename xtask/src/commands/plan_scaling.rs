//! The tables and the plot of `plan --ranks`.

use block_transformer_bench::{number, size, table};
use block_transformer_cost::{AllReduce, StepTime};
use block_transformer_plot::{AxisScale, Corner, Plot, PlotLine, Style};
use block_transformer_zoo::{BLOCK_FAMILY, FamilyConfig};

use super::plan_ranks::{Curve, Point};

/// The main models of the paper and their vanilla partners, of which the plot of all presets is made.
const MAIN: [&str; 10] = [
    "block-33m",
    "vanilla-31m",
    "block-77m",
    "vanilla-70m",
    "block-170m",
    "vanilla-160m",
    "block-420m",
    "vanilla-410m",
    "block-1.0b",
    "block-1.4b",
];

/// The columns of each algorithm, without and with overlap.
const TIMES: [&str; 12] = [
    "ring", "comm.", "effic.", "overlap", "comm.", "effic.", "tree", "comm.", "effic.", "overlap",
    "comm.", "effic.",
];

/// Prints one preset by ranks, or several presets on `ranks` ranks with their efficiency by ranks.
pub(super) fn print(curves: &[Curve], ranks: usize) {
    let head = |first: &[&'static str]| [first, &TIMES].concat();
    if let [curve] = curves {
        say!("{}, {} of gradients:", curve.preset.name, size(curve.gradients));
        let rows = curve.points.iter().map(|point| {
            let first = vec![point.ranks.to_string(), point.sequences.to_string()];
            [first, times(point)].concat()
        });
        say!("{}\n", table(&head(&["ranks", "sequences", "compute"]), 0, rows).trim_fmt());
    } else {
        let on = |curve: &Curve| curve.points.iter().position(|point| point.ranks == ranks);
        say!("{ranks} ranks:");
        let rows = curves.iter().filter_map(|curve| {
            let point = &curve.points[on(curve)?];
            let first = vec![curve.preset.name.clone(), size(curve.gradients)];
            Some([first, times(point)].concat())
        });
        say!("{}\n", table(&head(&["preset", "gradients", "compute"]), 1, rows).trim_fmt());
        say!("efficiency by ranks, with overlap and the faster of ring and tree:");
        say!("{}\n", by_ranks(curves));
    }
    say!(
        "All figures are predicted. Ring and tree: the time of a step with this all-reduce, after the backward pass, or \
         overlapped with that of the last micro-batch. Comm.: the share of the step in which gradients are sent. \
         Effic.: sequences/s, divided by those of one rank times the ranks."
    );
}

/// Computation, then time, share of communication and efficiency of each algorithm without and with overlap.
fn times(point: &Point) -> Vec<String> {
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let cells = |time: &StepTime| {
        [false, true].map(|overlap| {
            let seconds = time.seconds(overlap);
            let shares = [time.communication_share(overlap), point.efficiency(seconds)];
            [duration(seconds), percent(shares[0]), percent(shares[1])]
        })
    };
    let compute = duration(point.times[0].compute);
    let of_times = point.times.iter().flat_map(cells).flatten();
    std::iter::once(compute).chain(of_times).collect()
}

/// A table of the efficiency of each preset by ranks.
fn by_ranks(curves: &[Curve]) -> String {
    let ranks = curves.first().map_or(&[][..], |curve| &curve.points);
    let ranks = ranks.iter().map(|point| point.ranks.to_string());
    let head: Vec<String> = std::iter::once("preset".into()).chain(ranks).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let rows = curves.iter().map(|curve| {
        let efficiency = curve.points.iter().map(|point| format!("{:.1}%", 100.0 * point.best()));
        std::iter::once(curve.preset.name.clone()).chain(efficiency).collect()
    });
    table(&head, 1, rows).trim_fmt()
}

fn duration(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{} ms", number(1e3 * seconds))
    } else {
        format!("{} s", number(seconds))
    }
}

/// Draws the efficiency by ranks: of one preset with each algorithm, or of several presets with the faster one.
pub(super) fn plot(curves: &[Curve], network: &str) -> Plot {
    let (title, lines) = match curves {
        [curve] => (format!("predicted efficiency of {}", curve.preset.name), of_algorithms(curve)),
        _ => {
            let title = "predicted efficiency with overlap, the faster of ring and tree";
            (title.into(), of_presets(curves))
        }
    };
    Plot {
        title,
        x_label: format!("ranks, joined by {network}"),
        y_label: "efficiency".into(),
        x_scale: AxisScale::Log2,
        legend: Corner::Beside,
        lines,
        ..Plot::default()
    }
}

fn of_algorithms(curve: &Curve) -> Vec<PlotLine> {
    let line = |(i, algorithm): (usize, AllReduce), overlap| {
        let efficiency =
            |point: &Point| (point.ranks as f64, point.efficiency(point.times[i].seconds(overlap)));
        let (with, style) = if overlap { ("", Style::Marked) } else { ("out", Style::Dashed) };
        let label = format!("{algorithm}, with{with} overlap");
        PlotLine { label, points: curve.points.iter().map(efficiency).collect(), style }
    };
    let algorithms = AllReduce::ALL.into_iter().enumerate();
    algorithms.flat_map(|of| [line(of, true), line(of, false)]).collect()
}

/// A line for each preset. A preset without blocks after one with blocks is dashed, in its colour.
fn of_presets(curves: &[Curve]) -> Vec<PlotLine> {
    let of_main = |curve: &&Curve| MAIN.contains(&curve.preset.name.as_str());
    let all = curves.len() == block_transformer_zoo::presets().len();
    let mut drawn: Vec<&Curve> = curves.iter().filter(|curve| !all || of_main(curve)).collect();
    if all {
        drawn.sort_by_key(|curve| MAIN.iter().position(|name| *name == curve.preset.name));
    }
    let mut after_block = false;
    let line = |curve: &Curve| {
        let is_block = curve.preset.model.family() == BLOCK_FAMILY;
        let style = if after_block && !is_block { Style::Dashed } else { Style::Marked };
        after_block = is_block;
        let points = curve.points.iter().map(|point| (point.ranks as f64, point.best()));
        PlotLine { label: curve.preset.name.clone(), points: points.collect(), style }
    };
    drawn.into_iter().map(line).collect()
}
