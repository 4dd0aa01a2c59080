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
    /// Filled marks without a line.
    Dots,
    /// Hollow marks without a line in the colour of the line before it, for values of other origin.
    Hollow,
    /// A thin dashed line in the colour of the text, for a front through points of several lines.
    Front,
}

/// The scale of an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AxisScale {
    /// A linear scale.
    #[default]
    Linear,
    /// A logarithmic scale with ticks at powers of two, for positive values.
    Log2,
    /// A logarithmic scale with ticks at 1, 2 and 5 times powers of ten, for positive values.
    Log10,
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
    /// The other corner that rising lines leave free.
    UpperLeft,
}

/// An area around a line, in a pale shade of its colour.
#[derive(Clone, Debug)]
pub struct Ribbon {
    /// Index of the line.
    pub line: usize,
    /// x, lower and upper y.
    pub edges: Vec<(f64, f64, f64)>,
}

/// Error bars in the colour of a line.
#[derive(Clone, Debug)]
pub struct Bars {
    /// Index of the line.
    pub line: usize,
    /// x, lower and upper y.
    pub edges: Vec<(f64, f64, f64)>,
}

/// A short text to the right of a point, in the colour of a line.
#[derive(Clone, Debug)]
pub struct Note {
    /// Index of the line.
    pub line: usize,
    /// The point.
    pub at: (f64, f64),
    /// The text.
    pub text: String,
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
    /// The names at x = 0, 1, 2 and so on, in place of numbers; empty for numbers.
    pub x_names: Vec<String>,
    /// The scale of the x axis.
    pub x_scale: AxisScale,
    /// The scale of the y axis.
    pub y_scale: AxisScale,
    /// Areas, drawn behind the lines.
    pub ribbons: Vec<Ribbon>,
    /// Error bars, drawn behind the marks.
    pub bars: Vec<Bars>,
    /// Texts beside points.
    pub notes: Vec<Note>,
    /// Lines in drawing order.
    pub lines: Vec<PlotLine>,
    /// The place of the legend.
    pub legend: Corner,
}
