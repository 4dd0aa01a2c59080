//! The description of a plot.

/// A line in a plot.
#[derive(Clone, Debug)]
pub struct PlotLine {
    /// Its name in the legend.
    pub label: String,
    /// x and y; points that are not finite are not drawn.
    pub points: Vec<(f64, f64)>,
    /// The style in which it is drawn.
    pub style: Style,
}

/// The style of a line.
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
    /// A dashed line in a colour of its own, for a level.
    Level,
}

/// The scale of an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AxisScale {
    /// A linear scale.
    #[default]
    Linear,
    /// A logarithmic scale with ticks at powers of two, for positive values.
    Log2,
}

/// The place of the legend: a corner of the plot, or beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Corner {
    /// The corner that falling lines leave free.
    #[default]
    UpperRight,
    /// The corner that lines falling from the top leave free.
    LowerLeft,
    /// The corner that rising lines leave free.
    LowerRight,
    /// On the right of the plot, for lines that leave no corner free.
    Beside,
}

/// An area around a line, in a pale shade of its colour.
#[derive(Clone, Debug)]
pub struct Ribbon {
    /// Index of the line.
    pub line: usize,
    /// x, lower and upper y.
    pub edges: Vec<(f64, f64, f64)>,
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
    pub x_scale: AxisScale,
    /// The scale of the y axis.
    pub y_scale: AxisScale,
    /// Areas, drawn behind the lines.
    pub ribbons: Vec<Ribbon>,
    /// Lines in drawing order.
    pub lines: Vec<PlotLine>,
    /// The place of the legend.
    pub legend: Corner,
}
