//! Plots as files.

use std::error::Error;
use std::path::{Path, PathBuf};

use block_transformer_files::FileError;

use crate::draw;
use crate::plot::Plot;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::{Level, Line, Ribbon, Scale, Style};

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
