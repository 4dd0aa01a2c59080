//! Line plots as SVG and PNG.
//!
//! The font is built in, so that a plot does not depend on the fonts of the machine. It is Ubuntu
//! Light, under the Ubuntu Font Licence (`fonts/UFL.txt`).

mod draw;

use std::error::Error;
use std::path::{Path, PathBuf};

use block_transformer_files::FileError;

/// A line in a plot.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub label: String,
    /// x and y; points that are not finite are not drawn.
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
    /// A thin and pale line, for raw values behind a smoothed line.
    Faint,
    /// A solid line with a mark at each point.
    Marked,
    /// A dashed line in the colour of the line before it, for a bound or a prediction of that line.
    Dashed,
}

/// The scale of an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// A linear scale.
    #[default]
    Linear,
    /// A logarithmic scale with ticks at powers of two, for positive values.
    Log2,
}

/// A corner of the plot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Corner {
    /// The corner that falling lines leave free.
    #[default]
    UpperRight,
    /// The corner that lines leave free which fall from the top.
    LowerLeft,
    /// The corner that rising lines leave free.
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
    /// Its place on the y axis.
    pub y: f64,
}

/// A plot of lines over a common x axis.
#[derive(Clone, Debug, Default)]
pub struct Plot {
    /// The title above the plot.
    pub title: String,
    /// The name of the x axis.
    pub x_label: String,
    /// The name of the y axis.
    pub y_label: String,
    /// The scale of the x axis.
    pub x_scale: Scale,
    /// The scale of the y axis.
    pub y_scale: Scale,
    /// Areas, drawn behind the lines.
    pub ribbons: Vec<Ribbon>,
    /// Lines in drawing order.
    pub lines: Vec<Line>,
    /// Dashed levels.
    pub levels: Vec<Level>,
    /// The place of the legend.
    pub legend: Corner,
}

/// A plot that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The extension of the file is neither `svg` nor `png`.
    #[error("{path}: a plot is written as .svg or .png")]
    Extension {
        /// The file.
        path: PathBuf,
    },
    /// The plot cannot be drawn or encoded.
    #[error("cannot draw {path}")]
    Draw {
        /// The file.
        path: PathBuf,
        /// The error of the drawing library.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Plot {
    /// Writes the plot to `path`, completely or not at all.
    ///
    /// # Errors
    /// When the extension is neither `svg` nor `png`, or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), PlotError> {
        let drawn = match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => draw::svg(self),
            Some("png") => draw::png(self),
            _ => return Err(PlotError::Extension { path: path.into() }),
        };
        let bytes = drawn.map_err(|source| PlotError::Draw { path: path.into(), source })?;
        Ok(block_transformer_files::write(path, &bytes)?)
    }
}

/// Returns the exponential moving average of `points` over about `window` points, corrected for the
/// bias at its start.
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
    fn smoothing_keeps_a_constant_and_flattens_a_sawtooth() {
        let flat: Vec<_> = (0..5).map(|i| (f64::from(i), 2.0)).collect();
        assert!(smoothed(&flat, 4.0).iter().all(|p| (p.1 - 2.0).abs() < 1e-12));
        let saw: Vec<_> = (0..200).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        assert!((smoothed(&saw, 20.0)[199].1 - 0.5).abs() < 0.05);
    }

    #[test]
    fn a_logarithmic_axis_has_ticks_at_powers_of_two_and_a_ribbon_is_drawn() {
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
    fn both_formats_are_written_for_any_points() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
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
    }
}
