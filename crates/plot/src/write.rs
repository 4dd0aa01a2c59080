//! Plots as files.

use std::error::Error;
use std::path::{Path, PathBuf};

use block_transformer_files::FileError;

use crate::draw::{self, Picture};
use crate::heat_map::HeatMap;
use crate::plot::Plot;

/// A plot that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The extension of the file is neither `svg` nor `png`.
    #[error("{0}: a plot is written as .svg or .png")]
    Extension(PathBuf),
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
        write(self, path)
    }
}

impl HeatMap {
    /// Writes the heat map to `path`, completely or not at all.
    ///
    /// # Errors
    /// When the extension is neither `svg` nor `png`, or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), PlotError> {
        write(self, path)
    }
}

fn write(picture: &impl Picture, path: &Path) -> Result<(), PlotError> {
    let drawn = match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => draw::svg(picture),
        Some("png") => draw::png(picture),
        _ => return Err(PlotError::Extension(path.into())),
    };
    let bytes = drawn.map_err(|source| PlotError::Draw { path: path.into(), source })?;
    Ok(block_transformer_files::write(path, &bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heat_map::HeatPanel;
    use crate::plot::{AxisScale, Corner, PlotLine, Ribbon, Style};

    fn line(points: Vec<(f64, f64)>, style: Style) -> PlotLine {
        PlotLine { label: "loss <&>".into(), points, style }
    }

    #[test]
    fn a_logarithmic_axis_has_ticks_at_powers_of_two_and_a_ribbon_is_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let points: Vec<(f64, f64)> = (1..2000).map(|x| (f64::from(x), 19.0)).collect();
        let edges = points.iter().map(|&(x, y)| (x, y - 1.0, y + 1.0)).chain([(0.0, 18.0, 20.0)]);
        let ribbon = Ribbon { line: 0, edges: edges.collect() };
        let lines = vec![line(points, Style::Solid)];
        let x_scale = AxisScale::Log2;
        let plot = Plot { x_scale, ribbons: vec![ribbon], lines, ..Plot::default() };
        let path = dir.path().join("a.svg");
        plot.write(&path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        let written = |text: &str| svg.lines().any(|line| line.trim() == text);
        assert!([1, 2, 4, 64, 1024].iter().all(|x| written(&x.to_string())), "{svg}");
        assert!(!written("200") && !written("1000"));
        assert!(svg.contains("<polygon"));
    }

    #[test]
    fn a_heat_map_has_its_values_and_names() {
        let dir = tempfile::tempdir().unwrap();
        let panel = |title: &str| HeatPanel {
            title: title.into(),
            values: vec![vec![0.0, 1.0], vec![0.25, f64::NAN]],
        };
        let map = HeatMap {
            title: "all".into(),
            x_ticks: vec!["64".into(), "128".into()],
            y_ticks: vec!["0 %".into(), "100 %".into()],
            panels: vec![panel("one"), panel("two")],
            ..HeatMap::default()
        };
        let (svg, png) = (dir.path().join("a.svg"), dir.path().join("a.png"));
        map.write(&svg).unwrap();
        map.write(&png).unwrap();
        let text = std::fs::read_to_string(&svg).unwrap();
        let count = |of: &str| text.lines().filter(|line| line.trim() == of).count();
        for (of, times) in
            [("all", 1), ("two", 1), ("128", 2), ("100 %", 2), ("0.25", 2), ("NaN", 0)]
        {
            assert_eq!(count(of), times, "{of}: {text}");
        }
        HeatMap::default().write(&png).unwrap();
        assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn a_legend_beside_the_plot_leaves_the_lines_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.svg");
        let points = vec![(1.0, 2.0), (9.0, 1.0)];
        let lines = [Style::Marked, Style::Dashed].map(|style| line(points.clone(), style));
        let plot = Plot { lines: lines.into(), legend: Corner::Beside, ..Plot::default() };
        plot.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let elements: Vec<&str> = text.split("<").collect();
        let number = |element: &str, key: &str| {
            let value = element.split_once(key)?.1;
            value[..value.find(|c: char| !c.is_ascii_digit())?].parse::<u32>().ok()
        };
        let right = elements.iter().filter_map(|element| number(element, " cx=\"")).max().unwrap();
        let labels: Vec<u32> = elements
            .iter()
            .filter(|element| element.contains("loss &lt;"))
            .filter_map(|element| number(element, " x=\""))
            .collect();
        assert!(labels.len() == 2 && labels.iter().all(|&x| x > right), "{labels:?} {right}");
    }

    #[test]
    fn both_formats_are_written_for_any_points() {
        let dir = tempfile::tempdir().unwrap();
        let (svg, png) = (dir.path().join("a.svg"), dir.path().join("a.png"));
        let (one, two) = (vec![(1.0, 2.0)], vec![(1.0, 2.0), (9.0, 1.0)]);
        for points in [vec![], vec![(1.0, f64::NAN)], one, two] {
            let level = points.iter().map(|&(x, _)| (x, 1.5)).collect();
            let lines = vec![line(points, Style::Marked), line(level, Style::Level)];
            let plot = Plot { title: "t".into(), lines, ..Plot::default() };
            plot.write(&svg).unwrap();
            plot.write(&png).unwrap();
            assert!(std::fs::read_to_string(&svg).unwrap().contains("<svg"));
            assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
        }
        assert!(Plot::default().write(&dir.path().join("a.gif")).is_err());
    }
}
