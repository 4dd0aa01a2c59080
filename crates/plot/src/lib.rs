//! Line plots, scatter plots and heat maps as SVG and PNG.
//!
//! The font is built in, so that a plot does not depend on the fonts of the machine. It is Ubuntu
//! Light, under the Ubuntu Font Licence (`fonts/UFL.txt`).

mod axis;
mod draw;
mod heat_map;
mod plot;
mod smooth;
mod write;

pub use heat_map::{HeatMap, HeatPanel};
pub use plot::{AxisScale, Bars, Corner, Note, Plot, PlotLine, Ribbon, Style};
pub use smooth::smoothed;
pub use write::PlotError;
