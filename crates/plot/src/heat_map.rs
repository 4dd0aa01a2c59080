//! Heat maps of shares from 0 to 1.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::draw::{FONT, INK, Picture};

/// Values by row and column, one panel beside the other.
#[derive(Clone, Debug, Default)]
pub struct HeatMap {
    /// The title above the panels.
    pub title: String,
    /// The name of the columns.
    pub x_label: String,
    /// The name of the rows.
    pub y_label: String,
    /// The names of the columns.
    pub x_ticks: Vec<String>,
    /// The names of the rows, from above.
    pub y_ticks: Vec<String>,
    /// The panels.
    pub panels: Vec<HeatPanel>,
}

/// A panel of a heat map.
#[derive(Clone, Debug, Default)]
pub struct HeatPanel {
    /// The title above the panel.
    pub title: String,
    /// Values from 0 to 1, `[row][column]`; values that are not finite are not drawn.
    pub values: Vec<Vec<f64>>,
}

/// The colour of 1; that of 0 is white.
const FULL: RGBColor = RGBColor(0, 114, 178);

impl Picture for HeatMap {
    fn draw_on<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        area.fill(&WHITE)?;
        let area =
            area.margin(10, 0, 0, 0).titled(&self.title, (FONT, 24).into_font().color(&INK))?;
        let panels = area.split_evenly((1, self.panels.len().max(1)));
        for (i, (panel, area)) in self.panels.iter().zip(&panels).enumerate() {
            let area = area.titled(&panel.title, (FONT, 18).into_font().color(&INK))?;
            self.draw_panel(panel, i == 0, &area)?;
        }
        Ok(())
    }
}

impl HeatMap {
    fn draw_panel<B: DrawingBackend>(
        &self,
        panel: &HeatPanel,
        first: bool,
        area: &DrawingArea<B, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let (width, height) = area.dim_in_pixel();
        let (left, right, top, bottom) = (78, 12, 6, 64);
        let (columns, rows) = (self.x_ticks.len().max(1) as i32, self.y_ticks.len().max(1) as i32);
        let cell_width = (width as i32 - left - right).max(columns) / columns;
        let cell_height = (height as i32 - top - bottom).max(rows) / rows;
        let text =
            |size: i32, h: HPos, v: VPos| (FONT, size).into_font().color(&INK).pos(Pos::new(h, v));
        for (row, values) in panel.values.iter().enumerate() {
            let y = top + row as i32 * cell_height;
            for (column, value) in values.iter().enumerate().filter(|(_, value)| value.is_finite())
            {
                let x = left + column as i32 * cell_width;
                let corners = [(x, y), (x + cell_width, y + cell_height)];
                let share = value.clamp(0.0, 1.0);
                area.draw(&Rectangle::new(corners, FULL.mix(share).filled()))?;
                area.draw(&Rectangle::new(corners, INK.mix(0.3).stroke_width(1)))?;
                let style = text(15, HPos::Center, VPos::Center);
                let style = if share > 0.6 { style.color(&WHITE) } else { style };
                let middle = (x + cell_width / 2, y + cell_height / 2);
                area.draw(&Text::new(format!("{value:.2}"), middle, style))?;
            }
        }
        for (row, tick) in self.y_ticks.iter().enumerate() {
            let at = (left - 8, top + row as i32 * cell_height + cell_height / 2);
            area.draw(&Text::new(tick.clone(), at, text(15, HPos::Right, VPos::Center)))?;
        }
        let below = top + rows * cell_height;
        for (column, tick) in self.x_ticks.iter().enumerate() {
            let at = (left + column as i32 * cell_width + cell_width / 2, below + 8);
            area.draw(&Text::new(tick.clone(), at, text(15, HPos::Center, VPos::Top)))?;
        }
        let at = (left + columns * cell_width / 2, below + 32);
        area.draw(&Text::new(self.x_label.clone(), at, text(16, HPos::Center, VPos::Top)))?;
        if first {
            let style = text(16, HPos::Center, VPos::Top).transform(FontTransform::Rotate270);
            let at = (4, top + rows * cell_height / 2);
            area.draw(&Text::new(self.y_label.clone(), at, style))?;
        }
        Ok(())
    }
}
