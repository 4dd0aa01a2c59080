//! The picture: one panel per checkpoint.

use block_transformer_plot::{HeatMap, HeatPanel};

use crate::needle::grid::NeedleReport;

impl NeedleReport {
    /// The accuracy by length (x) and depth (y), one panel per checkpoint.
    pub fn figure(&self) -> HeatMap {
        let depths = self.settings.depths.len();
        let panels = self.checkpoints.iter().map(|grid| {
            let values = (0..depths).map(|depth| {
                let column = grid.cells.iter().skip(depth).step_by(depths);
                column.map(|cell| cell.acc).collect()
            });
            HeatPanel { title: grid.label.clone(), values: values.collect() }
        });
        HeatMap {
            title: format!(
                "Needle in a haystack: accuracy among {} numbers (guessing {:.2})",
                self.settings.options,
                1.0 / self.settings.options as f64
            ),
            x_label: "tokens of text".into(),
            y_label: "depth of the needle".into(),
            x_ticks: self.settings.lengths.iter().map(ToString::to_string).collect(),
            y_ticks: self.settings.depths.iter().map(|depth| format!("{depth} %")).collect(),
            panels: panels.collect(),
        }
    }
}
