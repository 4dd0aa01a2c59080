//! Places, ticks and ranges of axes.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;

use crate::plot::{AxisScale, Plot, Style};

/// Ticks of a logarithmic axis within a power of ten.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];
/// Those of an axis over less than that.
const FINE_STEPS: [f64; 12] = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
/// The largest number of ticks of a logarithmic axis.
const MOST_TICKS: usize = 12;
/// The room at each end of an axis with names, as a part of the distance between two names.
const NAME_ROOM: f64 = 0.5;

impl AxisScale {
    /// Returns the place of a value on the axis.
    pub(crate) fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log2 => value.log2(),
            Self::Log10 => value.log10(),
        }
    }

    /// Returns the label of the tick at `place`.
    pub(crate) fn tick(self, place: f64) -> String {
        match self {
            Self::Linear => number(place),
            Self::Log2 => number(place.exp2()),
            Self::Log10 => short(10_f64.powf(place)),
        }
    }

    /// Returns the places of the ticks of a logarithmic axis over `range`, if the drawing library does not choose
    /// them.
    pub(crate) fn ticks(self, range: &Range<f64>) -> Option<Vec<f64>> {
        if self == Self::Log2 {
            // a point at the end of the range may miss it by rounding
            let (first, last) = ((range.start - 1e-9).ceil(), (range.end + 1e-9).floor());
            let powers = (last - first) as usize + 1;
            let ticks = (0..powers).step_by(powers.div_ceil(MOST_TICKS));
            return (powers > 1).then(|| ticks.map(|i| first + i as f64).collect());
        }
        if self == Self::Linear {
            return None;
        }
        let powers = range.start.floor() as i32..=range.end.ceil() as i32;
        let all = |steps: &[f64]| -> Vec<f64> {
            let of_power =
                |power: i32| steps.iter().map(move |step| step.log10() + f64::from(power));
            let places = powers.clone().flat_map(of_power);
            // a point at an end of the range may miss it by rounding
            let (first, last) = (range.start - 1e-9, range.end + 1e-9);
            places.filter(|place| (first..=last).contains(place)).collect()
        };
        let fine = all(&STEPS);
        Some(match fine.len() {
            0..2 => all(&FINE_STEPS),
            few if few <= MOST_TICKS => fine,
            _ => all(&STEPS[..1]),
        })
    }
}

/// An axis whose ticks are chosen by its scale, or by the drawing library.
pub(crate) struct Axis {
    range: RangedCoordf64,
    ticks: Option<Vec<f64>>,
}

impl Axis {
    pub(crate) fn new(scale: AxisScale, range: Range<f64>) -> Self {
        Self { ticks: scale.ticks(&range), range: range.into() }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.range.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match &self.ticks {
            None => self.range.key_points(hint),
            Some(_) if hint.weight().allow_light_points() => Vec::new(),
            Some(ticks) => ticks.clone(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.range()
    }
}

impl Plot {
    /// Returns the x axis.
    pub(crate) fn x_axis(&self, range: Range<f64>) -> Axis {
        match self.x_names.len() {
            0 => Axis::new(self.x_scale, range),
            names => {
                let ticks = Some((0..names).map(|i| i as f64).collect());
                Axis { range: range.into(), ticks }
            }
        }
    }

    /// Returns the label of the tick at `place` of the x axis.
    pub(crate) fn x_tick(&self, place: f64) -> String {
        if self.x_names.is_empty() {
            return self.x_scale.tick(place);
        }
        let index = place.round();
        let is_name = (place - index).abs() < 1e-9 && index >= 0.0;
        let name = is_name.then(|| self.x_names.get(index as usize)).flatten();
        name.cloned().unwrap_or_default()
    }

    /// Returns the ranges of the axes: all points, and some room around them.
    pub(crate) fn ranges(&self) -> (Range<f64>, Range<f64>) {
        let lines = self.lines.iter().flat_map(|line| self.placed(&line.points));
        let ribbons = self.ribbons.iter().flat_map(|ribbon| self.outline(ribbon));
        let ends = self
            .bars
            .iter()
            .flat_map(|bars| bars.edges.iter().flat_map(|&(x, low, high)| [(x, low), (x, high)]));
        let ends: Vec<_> = ends.collect();
        let points: Vec<(f64, f64)> = lines.chain(ribbons).chain(self.placed(&ends)).collect();
        let xs = span(points.iter().map(|p| p.0));
        let ys = span(points.iter().map(|p| p.1));
        let room = 0.06 * (ys.end - ys.start);
        let xs = match self.x_names.len() {
            0 => {
                let width = xs.end - xs.start;
                // a note stands to the right of its point, and a mark on both sides
                let (left, right) = match (self.notes.is_empty(), self.has_marks()) {
                    (false, _) => (0.04, 0.12),
                    (true, true) => (0.03, 0.03),
                    (true, false) => (0.0, 0.0),
                };
                xs.start - left * width..xs.end + right * width
            }
            names => -NAME_ROOM..names as f64 - NAME_ROOM,
        };
        (xs, ys.start - room..ys.end + room)
    }
}

impl Plot {
    /// Whether marks or error bars stand at points.
    fn has_marks(&self) -> bool {
        let is_mark = |style| matches!(style, Style::Marked | Style::Dots | Style::Hollow);
        !self.bars.is_empty() || self.lines.iter().any(|line| is_mark(line.style))
    }
}

/// Returns a range from the smallest to the largest value. It is never empty.
fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    match (low.is_finite(), low < high) {
        (false, _) => 0.0..1.0,
        (true, false) => low - 0.5..low + 0.5,
        (true, true) => low..high,
    }
}

/// Formats a tick with at most three decimals.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Formats a tick with the suffixes of large numbers.
fn short(value: f64) -> String {
    for (unit, suffix) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= 0.999 * unit && value < 1e15 {
            return number(value / unit) + suffix;
        }
    }
    if !(1e-3..1e15).contains(&value) { format!("{value:.0e}") } else { number(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_axis_has_ticks_at_one_two_and_five() {
        let ticks = |range| {
            let places = AxisScale::Log10.ticks(&range).unwrap();
            places.into_iter().map(|place| AxisScale::Log10.tick(place)).collect::<Vec<_>>()
        };
        assert_eq!(ticks(2.9..4.1), ["1k", "2k", "5k", "10k"]);
        assert_eq!(ticks(-1.01..0.0), ["0.1", "0.2", "0.5", "1"]);
        assert_eq!(ticks(20_f64.log10()..50_f64.log10()), ["20", "50"]);
        assert_eq!(ticks(-2.05..-1.75), ["0.009", "0.01", "0.012", "0.015"]);
        assert_eq!(ticks(12.0..18.1), ["1T", "10T", "100T", "1e15", "1e16", "1e17", "1e18"]);
    }

    #[test]
    fn a_binary_axis_has_ticks_at_its_powers_and_ends() {
        let ticks = |range| AxisScale::Log2.ticks(&range);
        assert_eq!(ticks(1.0..4.0).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(ticks(-0.5..1.2).unwrap(), [0.0, 1.0]);
        assert_eq!(ticks(0.0..24.0).unwrap().len(), 9);
        assert_eq!((ticks(2.1..3.5), ticks(2.1..2.9)), (None, None));
    }
}
