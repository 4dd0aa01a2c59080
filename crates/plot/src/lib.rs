//! Line plots as SVG and PNG.
//!
//! The font is built in, so a plot looks the same on a machine that has none.

mod draw;

use std::path::{Path, PathBuf};

/// A line of a plot.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub label: String,
    /// x and y; points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub style: Style,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// A solid line.
    #[default]
    Solid,
    /// Thin and pale, for raw values behind a smoothed line.
    Faint,
    /// A solid line with a mark at each point.
    Marked,
    /// Dashes in the colour of the line before, which it is a bound or a prediction of.
    Dashed,
}

/// How values are spread over an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    #[default]
    Linear,
    /// Each doubling as wide as the next, ticks at powers of two; values must be positive.
    Log2,
}

/// A corner of the plot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Corner {
    /// Free where lines fall.
    #[default]
    UpperRight,
    /// Free where lines fall from the top.
    LowerLeft,
    /// Free where lines rise.
    LowerRight,
}

/// An area around a line, in a pale shade of its colour.
#[derive(Clone, Debug)]
pub struct Ribbon {
    /// Index of the line.
    pub line: usize,
    /// x, lower and upper y.
    pub edges: Vec<(f64, f64, f64)>,
}

/// A level drawn across the whole plot.
#[derive(Clone, Debug)]
pub struct Level {
    /// Its name in the legend.
    pub label: String,
    /// Where it is on the y axis.
    pub y: f64,
}

/// A plot of lines over a common x axis.
#[derive(Clone, Debug, Default)]
pub struct Plot {
    /// Above the plot.
    pub title: String,
    /// Below the x axis.
    pub x_label: String,
    /// Beside the y axis.
    pub y_label: String,
    /// How x values are spread.
    pub x_scale: Scale,
    /// How y values are spread.
    pub y_scale: Scale,
    /// Areas behind the lines.
    pub ribbons: Vec<Ribbon>,
    /// In drawing order.
    pub lines: Vec<Line>,
    /// Dashed levels.
    pub levels: Vec<Level>,
    /// Where the legend is.
    pub legend: Corner,
}

/// A plot that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct PlotError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

impl Plot {
    /// Writes the plot to `path`; a half-written file never takes the place of a whole one.
    ///
    /// # Errors
    /// When the extension is neither `svg` nor `png`, or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), PlotError> {
        let error = |reason: String| PlotError { path: path.into(), reason };
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let beside = path.with_extension(format!("partial.{extension}"));
        let drawn = match extension {
            "svg" => draw::svg(self)
                .and_then(|svg| std::fs::write(&beside, svg).map_err(|e| e.to_string())),
            "png" => draw::png(self, &beside),
            _ => return Err(error("a plot is written as .svg or .png".into())),
        };
        let written =
            drawn.and_then(|()| std::fs::rename(&beside, path).map_err(|e| e.to_string()));
        written.map_err(|reason| {
            // the partial file may not exist
            let _ = std::fs::remove_file(&beside);
            error(reason)
        })
    }
}

/// Exponential moving average of `points` over about `window` of them, without the bias of its start.
pub fn smoothed(points: &[(f64, f64)], window: f64) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / window.max(1.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let average = |&(x, y): &(f64, f64)| {
        sum = sum * keep + y;
        weight = weight * keep + 1.0;
        (x, sum / weight)
    };
    points.iter().map(average).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_a_constant_and_evens_out_a_saw() {
        let flat: Vec<_> = (0..5).map(|i| (f64::from(i), 2.0)).collect();
        assert!(smoothed(&flat, 4.0).iter().all(|p| (p.1 - 2.0).abs() < 1e-12));
        let saw: Vec<_> = (0..200).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        assert!((smoothed(&saw, 20.0)[199].1 - 0.5).abs() < 0.05);
    }

    #[test]
    fn a_logarithmic_axis_has_its_ticks_at_powers_of_two_and_ribbons_a_shade() {
        let dir = tempfile::tempdir().unwrap();
        let points: Vec<(f64, f64)> = (1..2000).map(|x| (f64::from(x), 19.0)).collect();
        let edges = points.iter().map(|&(x, y)| (x, y - 1.0, y + 1.0)).chain([(0.0, 18.0, 20.0)]);
        let ribbon = Ribbon { line: 0, edges: edges.collect() };
        let line = Line { label: "loss".into(), points, style: Style::Solid };
        let plot = Plot {
            x_scale: Scale::Log2,
            ribbons: vec![ribbon],
            lines: vec![line],
            ..Plot::default()
        };
        let path = dir.path().join("a.svg");
        plot.write(&path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        let written = |text: &str| svg.lines().any(|line| line.trim() == text);
        assert!([1, 2, 4, 64, 1024].iter().all(|x| written(&x.to_string())), "{svg}");
        assert!(!written("200") && !written("1000"));
        assert!(svg.contains("<polygon"));
    }

    #[test]
    fn both_formats_are_written_whatever_the_points() {
        let dir = std::env::temp_dir().join(format!("zoo-plot-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for points in
            [vec![], vec![(1.0, f64::NAN)], vec![(1.0, 2.0)], vec![(1.0, 2.0), (9.0, 1.0)]]
        {
            let line = Line { label: "loss".into(), points, style: Style::Marked };
            let level = Level { label: "level <&>".into(), y: 1.5 };
            let plot = Plot {
                title: "t".into(),
                lines: vec![line],
                levels: vec![level],
                ..Plot::default()
            };
            for name in ["a.svg", "a.png"] {
                plot.write(&dir.join(name)).unwrap();
            }
            assert!(std::fs::read_to_string(dir.join("a.svg")).unwrap().contains("<svg"));
            assert!(std::fs::read(dir.join("a.png")).unwrap().starts_with(b"\x89PNG"));
        }
        assert!(Plot::default().write(&dir.join("a.gif")).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
