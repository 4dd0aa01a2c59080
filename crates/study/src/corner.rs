//! The place of the legend of a plot.

use block_transformer_plot::{AxisScale, Corner, Plot};

/// The part of the width and of the height that a legend takes.
const LEGEND: (f64, f64) = (0.42, 0.35);

/// Returns a corner in which a legend hides no point; beside the plot if there is none.
pub(crate) fn legend_place(plot: &Plot) -> Corner {
    let place = |scale: AxisScale, value: f64| match scale {
        AxisScale::Linear => value,
        AxisScale::Log2 | AxisScale::Log10 => value.ln(),
    };
    let points = plot.lines.iter().flat_map(|line| line.points.iter());
    let placed = points.map(|&(x, y)| (place(plot.x_scale, x), place(plot.y_scale, y)));
    let points: Vec<(f64, f64)> = placed.filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let range = |of: fn(&(f64, f64)) -> f64| {
        let values = points.iter().map(of);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let (xs, ys) = (range(|point| point.0), range(|point| point.1));
    let share = |value: f64, (low, high): (f64, f64)| {
        if high > low { (value - low) / (high - low) } else { 0.5 }
    };
    let hidden = |right: bool, upper: bool| {
        let is_in = |&&(x, y): &&(f64, f64)| {
            let (x, y) = (share(x, xs), share(y, ys));
            let (x, y) = (if right { 1.0 - x } else { x }, if upper { 1.0 - y } else { y });
            x < LEGEND.0 && y < LEGEND.1
        };
        points.iter().filter(is_in).count()
    };
    let corners = [
        (Corner::UpperRight, hidden(true, true)),
        (Corner::LowerLeft, hidden(false, false)),
        (Corner::LowerRight, hidden(true, false)),
        (Corner::UpperLeft, hidden(false, true)),
    ];
    let best = corners.into_iter().min_by_key(|(_, hidden)| *hidden);
    best.filter(|(_, hidden)| *hidden == 0).map_or(Corner::Beside, |(corner, _)| corner)
}
