//! Figures of a study, drawn from the ledger.

use std::path::Path;

use block_transformer_plot::{AxisScale, Bars, Note, Plot, PlotError, PlotLine, Style};
use serde::Deserialize;
use serde_json::Value;

use crate::corner::legend_place;
use crate::points::{Mean, Point, View};
use crate::published::{PublishedModel, published};
use crate::statistics::{Pooled, mean};

/// A figure.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figure {
    /// The name of its files.
    pub name: String,
    pub title: String,
    /// A metric, or an axis as `axis.NAME`. Without it, `y` is a list by place or position.
    pub x: Option<String>,
    /// A metric.
    pub y: String,
    x_label: String,
    y_label: String,
    #[serde(default)]
    x_scale: Scale,
    #[serde(default)]
    y_scale: Scale,
    /// Axes whose values distinguish lines.
    #[serde(default)]
    pub series: Vec<String>,
    /// An axis whose values are written beside the points.
    pub note: Option<String>,
    /// Whether points of a series are joined by a line.
    #[serde(default)]
    joined: bool,
    /// The side on which x is better; the points that no other point beats are joined.
    front: Option<Better>,
    /// Names of the published values for x and y.
    published: Option<[String; 2]>,
    /// A sentence below the figure.
    #[serde(default)]
    pub caption: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scale {
    #[default]
    Linear,
    Log2,
    Log10,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Better {
    Left,
    Right,
}

impl From<Scale> for AxisScale {
    fn from(scale: Scale) -> Self {
        match scale {
            Scale::Linear => Self::Linear,
            Scale::Log2 => Self::Log2,
            Scale::Log10 => Self::Log10,
        }
    }
}

/// The distance between marks of several series at one name, as a part of the distance between two names.
const BESIDE: f64 = 0.1;
/// The same for lines.
const BESIDE_LINES: f64 = 0.04;
/// Points of a line without marks per error bar.
const PER_BAR: usize = 4;
/// The most points of a line with marks.
const MARKS: usize = 24;

/// A line of a figure before it is drawn.
struct Series {
    label: String,
    points: Vec<Placed>,
}

struct Placed {
    at: (f64, f64),
    half: Option<f64>,
    note: Option<String>,
}

impl Figure {
    /// Draws the figure as `NAME.svg` and `NAME.png` in `folder`. Returns false if nothing in it is measured.
    pub(crate) fn write(&self, view: &View<'_>, folder: &Path) -> Result<bool, PlotError> {
        let Some(plot) = self.plot(view) else { return Ok(false) };
        for ending in ["svg", "png"] {
            plot.write(&folder.join(format!("{}.{ending}", self.name)))?;
        }
        Ok(true)
    }

    fn plot(&self, view: &View<'_>) -> Option<Plot> {
        let names = self.x_names(view);
        let mut series = self.series(view, &names);
        if !names.is_empty() {
            // marks of several series at one name stand beside each other
            let are_lines = self.joined || self.x.is_none();
            let beside = if are_lines { BESIDE_LINES } else { BESIDE };
            let middle = (series.len().max(1) - 1) as f64 / 2.0;
            for (i, series) in series.iter_mut().enumerate() {
                let by = beside * (i as f64 - middle);
                series.points.iter_mut().for_each(|placed| placed.at.0 += by);
            }
        }
        if series.is_empty() {
            return None;
        }
        let mut plot = Plot {
            title: self.title.clone(),
            x_label: self.x_label.clone(),
            y_label: self.y_label.clone(),
            x_scale: self.x_scale.into(),
            y_scale: self.y_scale.into(),
            x_names: names,
            ..Plot::default()
        };
        for series in &series {
            let line = plot.lines.len();
            let points = series.points.iter().map(|placed| placed.at).collect();
            let is_long = self.x.is_none() && series.points.len() > MARKS;
            let style = match (self.joined || self.x.is_none(), is_long) {
                (true, true) => Style::Solid,
                (true, false) => Style::Marked,
                (false, _) => Style::Dots,
            };
            plot.lines.push(PlotLine { label: series.label.clone(), points, style });
            let edges = series.points.iter().filter_map(|placed| {
                let ((x, y), half) = (placed.at, placed.half?);
                Some((x, y - half, y + half))
            });
            plot.bars.push(Bars { line, edges: edges.collect() });
            let notes = series.points.iter().filter_map(|placed| {
                Some(Note { line, at: placed.at, text: placed.note.clone()? })
            });
            plot.notes.extend(notes);
            let published = self.published(&series.label);
            if !published.is_empty() {
                let line = plot.lines.len();
                let points = published.iter().map(|(_, at)| *at).collect();
                let label = format!("{}, published (recalled)", series.label);
                plot.lines.push(PlotLine { label, points, style: Style::Hollow });
                let notes =
                    published.into_iter().map(|(name, at)| Note { line, at, text: name.into() });
                plot.notes.extend(notes);
            }
        }
        if let Some(better) = self.front {
            let all: Vec<(f64, f64)> = series
                .iter()
                .flat_map(|series| series.points.iter().map(|placed| placed.at))
                .collect();
            let label = "Pareto front".into();
            plot.lines.push(PlotLine { label, points: front(&all, better), style: Style::Front });
        }
        plot.legend = legend_place(&plot);
        Some(plot)
    }

    /// The values of the axis on x that are not numbers, in the order of the declaration.
    fn x_names(&self, view: &View<'_>) -> Vec<String> {
        if self.x.is_none() {
            return self.places(view);
        }
        let Some(axis) = self.x_axis() else { return Vec::new() };
        let labels: Vec<&String> =
            view.points.iter().filter_map(|point| point.labels.get(axis)).collect();
        if labels.iter().all(|label| label.parse::<f64>().is_ok()) {
            return Vec::new();
        }
        let mut names: Vec<String> = Vec::new();
        for label in labels {
            if !names.contains(label) {
                names.push(label.clone());
            }
        }
        names
    }

    /// The places of the longest list by place, counted from 1; empty for lists by position.
    fn places(&self, view: &View<'_>) -> Vec<String> {
        let runs = view.points.iter().flat_map(|point| &point.runs);
        let lists = runs.filter_map(|run| view.json(run, &self.y)?.as_array());
        let by_place = lists.filter(|list| list.iter().all(Value::is_number));
        let most = by_place.map(Vec::len).max().unwrap_or(0);
        (1..=most).map(|place| place.to_string()).collect()
    }

    fn x_axis(&self) -> Option<&str> {
        self.x.as_deref()?.strip_prefix("axis.")
    }

    fn series(&self, view: &View<'_>, names: &[String]) -> Vec<Series> {
        let mut all: Vec<Series> = Vec::new();
        for point in &view.points {
            let words = self.series.iter().filter_map(|axis| {
                let value = point.labels.get(axis)?;
                let is_number = value.parse::<f64>().is_ok();
                Some(if is_number {
                    format!("{} {value}", axis.replace('_', " "))
                } else {
                    value.clone()
                })
            });
            let label = words.collect::<Vec<_>>().join(", ");
            let placed = match &self.x {
                Some(x) => self.point(view, point, x, names).into_iter().collect(),
                None => self.curve(view, point),
            };
            if placed.is_empty() {
                continue;
            }
            match all.iter_mut().find(|series| series.label == label) {
                Some(series) => series.points.extend(placed),
                None => all.push(Series { label, points: placed }),
            }
        }
        if self.joined {
            all.iter_mut()
                .for_each(|series| series.points.sort_by(|a, b| a.at.0.total_cmp(&b.at.0)));
        }
        all
    }

    fn point(&self, view: &View<'_>, point: &Point, x: &str, names: &[String]) -> Option<Placed> {
        let Mean { value: y, half, .. } = view.mean(point, &self.y)?;
        let x = match self.x_axis() {
            None => view.mean(point, x)?.value,
            Some(axis) => {
                let label = point.labels.get(axis)?;
                let index = names.iter().position(|name| name == label).map(|index| index as f64);
                index.or_else(|| label.parse().ok())?
            }
        };
        let note = self.note.as_ref().and_then(|axis| point.labels.get(axis)).cloned();
        Some(Placed { at: (x, y), half, note })
    }

    /// The mean of a list over the seeds of a point: values by place, or `[first, last, value]` by position.
    fn curve(&self, view: &View<'_>, point: &Point) -> Vec<Placed> {
        let lists = self.lists(view, point);
        let Some(first) = lists.first() else { return Vec::new() };
        let every = if first.len() > MARKS { PER_BAR } else { 1 };
        let placed = first.iter().enumerate().map(|(i, &(x, _))| {
            let values: Vec<f64> = lists.iter().filter_map(|list| Some(list.get(i)?.1)).collect();
            let half = (i % every == 0)
                .then(|| self.deviation_at(view, x).half(&[values.len()]))
                .flatten();
            Placed { at: (x, mean(&values)), half, note: None }
        });
        placed.collect()
    }

    /// The lists of the seeds of a point, as x and value.
    fn lists(&self, view: &View<'_>, point: &Point) -> Vec<Vec<(f64, f64)>> {
        let lists = point.runs.iter().filter_map(|run| view.json(run, &self.y)?.as_array());
        lists.map(|list| list.iter().enumerate().filter_map(place).collect()).collect()
    }

    /// The deviation between seeds at `x`, pooled over the points whose lists have a value there.
    fn deviation_at(&self, view: &View<'_>, x: f64) -> Pooled {
        let groups = view.points.iter().map(|point| {
            let lists = self.lists(view, point);
            let at = |list: &Vec<(f64, f64)>| Some(list.iter().find(|(own, _)| *own == x)?.1);
            lists.iter().filter_map(at).collect::<Vec<f64>>()
        });
        let groups: Vec<Vec<f64>> = groups.filter(|group| !group.is_empty()).collect();
        Pooled::of(groups.iter().map(Vec::as_slice))
    }

    /// The published models of a family with their points.
    fn published(&self, family: &str) -> Vec<(&'static str, (f64, f64))> {
        let Some([x, y]) = &self.published else { return Vec::new() };
        let of_family = published().model.iter().filter(|model| model.family == family);
        let point = |model: &'static PublishedModel| {
            let size = model.name.split(' ').next_back()?;
            Some((size, (*model.values.get(x)?, *model.values.get(y)?)))
        };
        of_family.filter_map(point).collect()
    }

    /// Whether published values are drawn in it.
    pub(crate) fn has_published(&self) -> bool {
        self.published.is_some()
    }
}

/// The place of an element of a list and its value.
fn place((i, value): (usize, &Value)) -> Option<(f64, f64)> {
    if let Some(value) = value.as_f64() {
        return Some((i as f64, value));
    }
    let [first, last, value] = value.as_array()?.as_slice() else { return None };
    Some((f64::midpoint(first.as_f64()?, last.as_f64()?), value.as_f64()?))
}

/// The points that no other point beats in both coordinates, by x; a lower y is better.
fn front(points: &[(f64, f64)], better: Better) -> Vec<(f64, f64)> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    if better == Better::Left {
        sorted.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)));
    }
    // from the best x on, a point must have a lower y than all before it
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for point in sorted.into_iter().rev() {
        if kept.last().is_none_or(|last| point.1 < last.1) {
            kept.push(point);
        }
    }
    kept.sort_by(|a, b| a.0.total_cmp(&b.0));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_has_the_points_that_no_other_beats() {
        let points = [(1.0, 5.0), (2.0, 6.0), (2.0, 4.0), (3.0, 4.5), (4.0, 1.0)];
        assert_eq!(front(&points, Better::Left), [(1.0, 5.0), (2.0, 4.0), (4.0, 1.0)]);
        assert_eq!(front(&points, Better::Right), [(4.0, 1.0)]);
        let falling = [(1.0, 1.0), (2.0, 2.0), (1.5, 3.0)];
        assert_eq!(front(&falling, Better::Right), [(1.0, 1.0), (2.0, 2.0)]);
    }
}
