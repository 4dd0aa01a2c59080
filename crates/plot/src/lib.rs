//! Line plots as SVG and PNG.
//!
//! The font is built in, so that a plot does not depend on the fonts of the machine. It is Ubuntu
//! Light, under the Ubuntu Font Licence (`fonts/UFL.txt`).

mod draw;
mod plot;
mod smooth;
mod write;

pub use plot::{AxisScale, Corner, Plot, PlotLine, Ribbon, Style};
pub use smooth::smoothed;
pub use write::PlotError;
