//! Speeds of two families at equal loss, by interpolation.

use crate::points::Mean;

/// A model: its loss with its interval, and its speed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    pub loss: Mean,
    pub speed: f64,
}

/// The ratio of speeds at equal loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ratio {
    /// The losses of the families have this range in common.
    Found {
        /// The range of losses.
        losses: (f64, f64),
        /// The ratio in the middle of the range.
        middle: f64,
        /// The smallest and largest ratio over the range, with both curves moved by the intervals of their losses.
        range: (f64, f64),
        /// Whether the intervals of the losses are known.
        with_intervals: bool,
    },
    /// The losses have no range in common, and nothing is extrapolated.
    Apart {
        /// The range of the losses of each family.
        losses: [(f64, f64); 2],
    },
}

/// Losses at which the ratio is computed, besides those of the models.
const LEVELS: usize = 32;

/// Returns the ratio of the speed of `a` to that of `b` at equal loss. Between two models of a family, the logarithm
/// of the speed is linear in the loss. `None` if a family has fewer than two models.
pub(crate) fn ratio(a: &[Measured], b: &[Measured]) -> Option<Ratio> {
    if a.len() < 2 || b.len() < 2 {
        return None;
    }
    let halves =
        [a, b].map(|models| models.iter().filter_map(|model| model.loss.half).fold(0.0, f64::max));
    let [a_curve, b_curve] = [a, b].map(|models| curve(models, 0.0));
    let ranges = [&a_curve, &b_curve].map(|curve| (curve[0].0, curve[curve.len() - 1].0));
    let (low, high) = (ranges[0].0.max(ranges[1].0), ranges[0].1.min(ranges[1].1));
    if low > high {
        return Some(Ratio::Apart { losses: ranges });
    }
    let at = |loss: f64, moved: [f64; 2]| {
        // a curve that is moved is read where it is known
        let [a, b] = [(a, moved[0]), (b, moved[1])].map(|(models, moved)| {
            let curve = curve(models, moved);
            interpolated(&curve, loss.clamp(curve[0].0, curve[curve.len() - 1].0))
        });
        a / b
    };
    let between = (0..=LEVELS).map(|i| low + (high - low) * i as f64 / LEVELS as f64);
    let own = a_curve.iter().chain(&b_curve).map(|&(loss, _)| loss);
    let levels: Vec<f64> = between.chain(own.filter(|loss| (low..=high).contains(loss))).collect();
    let [of_a, of_b] = halves;
    let moves = [[0.0, 0.0], [of_a, -of_b], [-of_a, of_b]];
    let ratios = levels.iter().flat_map(|&loss| moves.map(|moved| at(loss, moved)));
    let range = ratios.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), ratio| {
        (least.min(ratio), most.max(ratio))
    });
    let with_intervals =
        [a, b].iter().all(|models| models.iter().all(|model| model.loss.half.is_some()));
    let middle = at(f64::midpoint(low, high), [0.0, 0.0]);
    Some(Ratio::Found { losses: (low, high), middle, range, with_intervals })
}

/// Loss and logarithm of the speed, by loss, with the losses moved by `moved`.
fn curve(models: &[Measured], moved: f64) -> Vec<(f64, f64)> {
    let mut curve: Vec<(f64, f64)> =
        models.iter().map(|model| (model.loss.value + moved, model.speed.ln())).collect();
    curve.sort_by(|a, b| a.0.total_cmp(&b.0));
    curve
}

/// The speed at `loss`, which must be in the range of the curve.
fn interpolated(curve: &[(f64, f64)], loss: f64) -> f64 {
    let after = curve.iter().position(|&(at, _)| at >= loss).unwrap_or(curve.len() - 1).max(1);
    let ((x0, y0), (x1, y1)) = (curve[after - 1], curve[after]);
    let share = if x1 > x0 { (loss - x0) / (x1 - x0) } else { 0.0 };
    (y0 + share * (y1 - y0)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(points: &[(f64, f64)], half: Option<f64>) -> Vec<Measured> {
        let one =
            |&(value, speed): &(f64, f64)| Measured { loss: Mean { value, count: 2, half }, speed };
        points.iter().map(one).collect()
    }

    #[test]
    fn speeds_are_interpolated_where_the_losses_overlap() {
        // at any loss, `a` is four times as fast
        let slow = models(&[(3.0, 100.0), (2.0, 10.0)], Some(0.0));
        let fast = models(&[(3.5, 400.0 * 10_f64.sqrt()), (2.5, 400.0 / 10_f64.sqrt())], Some(0.0));
        let Some(Ratio::Found { losses, middle, range, .. }) = ratio(&fast, &slow) else {
            panic!()
        };
        assert_eq!(losses, (2.5, 3.0));
        for found in [middle, range.0, range.1] {
            assert!((found - 4.0).abs() < 1e-9, "{found}");
        }
        // an interval of 0.1 on both sides is 0.2 of a decade
        let [slow, fast] = [slow, fast].map(|mut models| {
            models.iter_mut().for_each(|model| model.loss.half = Some(0.1));
            models
        });
        let Some(Ratio::Found { range, .. }) = ratio(&fast, &slow) else { panic!() };
        assert!(
            range.0 <= 4.0 * 10_f64.powf(-0.2) + 1e-9 && range.1 >= 4.0 * 10_f64.powf(0.2) - 1e-9,
            "{range:?}"
        );
    }

    #[test]
    fn nothing_is_extrapolated() {
        let slow = models(&[(3.0, 100.0), (2.0, 10.0)], None);
        let fast = models(&[(4.0, 100.0), (3.1, 10.0)], None);
        let expected = Ratio::Apart { losses: [(3.1, 4.0), (2.0, 3.0)] };
        assert_eq!(ratio(&fast, &slow), Some(expected));
        assert_eq!(ratio(&fast[..1], &slow), None);
    }
}
