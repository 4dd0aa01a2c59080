//! Drawing with plotters.

use std::error::Error;
use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::axis::Axis;
use crate::plot::{AxisScale, Corner, Plot, Ribbon, Style};

const WIDTH: u32 = 960;
const HEIGHT: u32 = 600;
pub(crate) const FONT: &str = "sans-serif";
/// The smallest and the largest width of a legend beside a plot.
const LEGEND: [u32; 2] = [250, 430];
/// The width of a letter of a legend, and of what is beside its text, both with some room.
const LETTER: u32 = 8;
const LEGEND_MARK: u32 = 70;
const FONT_FILE: &[u8] = include_bytes!("../fonts/Ubuntu-Light.ttf");
/// Colours that can be told apart in print and by the colour-blind (Okabe and Ito), and grey.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(110, 110, 110),
];
/// Radius of a mark without a line.
const MARK: i32 = 5;
pub(crate) const INK: RGBColor = RGBColor(40, 40, 40);

type Drawn<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A picture that can be drawn on any area.
pub(crate) trait Picture {
    /// Draws the picture.
    fn draw_on<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>>;
}

impl Picture for Plot {
    fn draw_on<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        draw_chart(self, area)
    }
}

/// Returns the picture as an SVG file.
pub(crate) fn svg(plot: &impl Picture) -> Drawn<Vec<u8>> {
    let mut text = String::new();
    draw(plot, SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area())?;
    Ok(text.into_bytes())
}

/// Returns the picture as a PNG file.
pub(crate) fn png(plot: &impl Picture) -> Drawn<Vec<u8>> {
    let mut pixels = vec![0; (WIDTH * HEIGHT) as usize * 3];
    draw(plot, BitMapBackend::with_buffer(&mut pixels, (WIDTH, HEIGHT)).into_drawing_area())?;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, WIDTH, HEIGHT);
    encoder.set_color(png::ColorType::Rgb);
    // areas of one colour compress best without a filter
    encoder.set_compression(png::Compression::Best);
    encoder.set_filter(png::FilterType::NoFilter);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(file)
}

fn draw<B: DrawingBackend>(plot: &impl Picture, area: DrawingArea<B, Shift>) -> Drawn<()>
where
    B::ErrorType: 'static,
{
    static FONTS: Once = Once::new();
    FONTS.call_once(|| {
        // if the font cannot be parsed, drawing text reports it
        let _ = register_font(FONT, FontStyle::Normal, FONT_FILE);
    });
    plot.draw_on(&area)?;
    Ok(area.present()?)
}

fn draw_chart<B: DrawingBackend>(
    plot: &Plot,
    area: &DrawingArea<B, Shift>,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    area.fill(&WHITE)?;
    let (xs, ys) = plot.ranges();
    let beside = plot.legend == Corner::Beside;
    let letters = plot.lines.iter().map(|line| line.label.chars().count()).max().unwrap_or(0);
    let legend = (LEGEND_MARK + LETTER * letters as u32).clamp(LEGEND[0], LEGEND[1]);
    let mut chart = ChartBuilder::on(area)
        .caption(&plot.title, (FONT, 24).into_font().color(&INK))
        .margin(16)
        .margin_right(if beside { legend } else { 28 })
        .x_label_area_size(52)
        .y_label_area_size(68)
        .build_cartesian_2d(plot.x_axis(xs), Axis::new(plot.y_scale, ys))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.12))
        .axis_style(INK)
        .x_labels(if plot.x_scale == AxisScale::Log2 { 16 } else { 10 })
        .x_desc(&plot.x_label)
        .y_desc(&plot.y_label)
        .axis_desc_style((FONT, 18).into_font().color(&INK))
        .label_style((FONT, 16).into_font().color(&INK))
        .x_label_formatter(&|x| plot.x_tick(*x))
        .y_labels(if plot.y_scale == AxisScale::Log2 { 16 } else { 10 })
        .y_label_formatter(&|y| plot.y_scale.tick(*y))
        .draw()?;
    for ribbon in &plot.ribbons {
        let colour = COLOURS[ribbon.line % COLOURS.len()].mix(0.2);
        chart.draw_series([Polygon::new(plot.outline(ribbon), colour)])?;
    }
    for bars in &plot.bars {
        let colour = colours(plot).nth(bars.line).unwrap_or(INK);
        for &(x, low, high) in &bars.edges {
            let ends: Vec<_> = plot.placed(&[(x, low), (x, high)]).collect();
            let [low, high] = ends[..] else { continue };
            chart.draw_series([PathElement::new([low, high], colour.stroke_width(1))])?;
            let cap = |at| {
                EmptyElement::at(at) + PathElement::new([(-4, 0), (4, 0)], colour.stroke_width(1))
            };
            chart.draw_series([low, high].map(cap))?;
        }
    }
    // the short dashed line in the legend
    let dashed = |style: ShapeStyle| {
        move |(x, y): (i32, i32)| {
            let dash = |at: i32| PathElement::new([(x + at, y), (x + at + 9, y)], style);
            EmptyElement::at((0, 0)) + dash(0) + dash(15)
        }
    };
    for (i, (line, colour)) in plot.lines.iter().zip(colours(plot)).enumerate() {
        let style = match line.style {
            Style::Front => INK.mix(0.6).stroke_width(1),
            Style::Faint => colour.mix(0.6).stroke_width(1),
            _ => colour.stroke_width(2),
        };
        let points: Vec<_> = plot.placed(&line.points).collect();
        let is_mark = matches!(line.style, Style::Dots | Style::Hollow);
        let inner = if line.style == Style::Dots { colour } else { WHITE };
        let mark = move |at: (i32, i32)| {
            let circle = |radius, colour: RGBColor| Circle::new(at, radius, colour.filled());
            EmptyElement::at((0, 0)) + circle(MARK, colour) + circle(MARK - 2, inner)
        };
        let is_dashed = matches!(line.style, Style::Dashed | Style::Level | Style::Front);
        if beside {
            // plotters draws no legend outside of the axes, and the last tick needs some room
            let at = ((WIDTH - legend) as i32 + 24, 64 + 22 * i as i32);
            if is_dashed {
                area.draw(&dashed(style)(at))?;
            } else if is_mark {
                area.draw(&mark((at.0 + 12, at.1)))?;
            } else {
                area.draw(&PathElement::new([at, (at.0 + 24, at.1)], style))?;
            }
            let text = (FONT, 16).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(line.label.as_str(), (at.0 + 34, at.1), text))?;
        }
        if is_dashed {
            let dashes = DashedLineSeries::new(points, 8, 6, style);
            chart.draw_series(dashes)?.label(&line.label).legend(dashed(style));
            continue;
        }
        if is_mark {
            let outer = points.iter().map(|&at| Circle::new(at, MARK, colour.filled()));
            chart.draw_series(outer)?.label(&line.label).legend(move |(x, y)| mark((x + 12, y)));
            chart
                .draw_series(points.iter().map(|&at| Circle::new(at, MARK - 2, inner.filled())))?;
            continue;
        }
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(&line.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
        // a line through one point would not be visible
        if line.style == Style::Marked || points.len() == 1 {
            chart.draw_series(points.iter().map(|&at| Circle::new(at, 3, colour.filled())))?;
        }
    }
    let beside = |text: &str, colour: RGBColor| {
        let style = (FONT, 14).into_font().color(&colour).pos(Pos::new(HPos::Left, VPos::Bottom));
        Text::new(text.to_string(), (10, -5), style)
    };
    for note in &plot.notes {
        let colour = colours(plot).nth(note.line).unwrap_or(INK);
        let at = [note.at];
        let text = |at| EmptyElement::at(at) + beside(&note.text, colour);
        chart.draw_series(plot.placed(&at).map(text).collect::<Vec<_>>())?;
    }
    let position = match plot.legend {
        Corner::UpperRight => SeriesLabelPosition::UpperRight,
        Corner::LowerLeft => SeriesLabelPosition::LowerLeft,
        Corner::LowerRight => SeriesLabelPosition::LowerRight,
        Corner::UpperLeft => SeriesLabelPosition::UpperLeft,
        Corner::Beside => return Ok(()),
    };
    if plot.lines.iter().all(|line| line.label.is_empty()) {
        return Ok(());
    }
    chart
        .configure_series_labels()
        .position(position)
        .legend_area_size(34)
        .margin(12)
        .background_style(WHITE.mix(0.85))
        .border_style(INK.mix(0.3))
        .label_font((FONT, 16).into_font().color(&INK))
        .draw()
}

/// Returns the colours of the lines.
fn colours(plot: &Plot) -> impl Iterator<Item = RGBColor> {
    plot.lines.iter().scan(0, |colours, line| {
        let is_of_line_before = matches!(line.style, Style::Dashed | Style::Hollow | Style::Front);
        *colours += usize::from(!is_of_line_before || *colours == 0);
        Some(COLOURS[(*colours - 1) % COLOURS.len()])
    })
}

impl Plot {
    /// Returns the points that can be drawn.
    pub(crate) fn placed(&self, points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
        let placed = points.iter().map(|&(x, y)| (self.x_scale.place(x), self.y_scale.place(y)));
        placed.filter(|(x, y)| x.is_finite() && y.is_finite())
    }

    /// Returns the outline of a ribbon: along its upper edge, and back along its lower edge.
    pub(crate) fn outline(&self, ribbon: &Ribbon) -> Vec<(f64, f64)> {
        let upper: Vec<_> = ribbon.edges.iter().map(|&(x, _, high)| (x, high)).collect();
        let lower: Vec<_> = ribbon.edges.iter().rev().map(|&(x, low, _)| (x, low)).collect();
        self.placed(&upper).chain(self.placed(&lower)).collect()
    }
}
