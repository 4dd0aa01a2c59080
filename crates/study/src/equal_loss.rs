//! Speeds of two families at equal loss, by interpolation.

use crate::points::Mean;

/// A model: its loss with its interval, and its speed with the slowest and the fastest round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    pub loss: Mean,
    pub speed: f64,
    pub rounds: (f64, f64),
}

/// A speed of a model.
type Speed = fn(&Measured) -> f64;
const MEDIAN: Speed = |model| model.speed;
const SLOWEST: Speed = |model| model.rounds.0;
const FASTEST: Speed = |model| model.rounds.1;

/// The ratio of speeds at equal loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ratio {
    /// The losses of the families have this range in common.
    Found {
        /// The range of losses.
        losses: (f64, f64),
        /// The ratio in the middle of the range.
        middle: f64,
        /// The smallest and largest ratio over the losses in common, as measured and with both curves moved by the
        /// intervals of their losses, between the slowest round of one and the fastest of the other.
        range: (f64, f64),
        /// Whether the curves have losses in common however they are moved. If not, the ratio can be anything.
        is_bounded: bool,
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
    let [a_curve, b_curve] = [a, b].map(|models| curve(models, 0.0, MEDIAN));
    let ranges = [&a_curve, &b_curve].map(|curve| (curve[0].0, curve[curve.len() - 1].0));
    let (low, high) = common(&a_curve, &b_curve);
    if low > high {
        return Some(Ratio::Apart { losses: ranges });
    }
    let [of_a, of_b] = halves;
    let mut range = (f64::INFINITY, f64::NEG_INFINITY);
    let mut is_bounded = true;
    for moved in [[0.0, 0.0], [of_a, -of_b], [-of_a, of_b]] {
        for (speed_a, speed_b) in [(SLOWEST, FASTEST), (FASTEST, SLOWEST)] {
            let (a, b) = (curve(a, moved[0], speed_a), curve(b, moved[1], speed_b));
            let (low, high) = common(&a, &b);
            is_bounded &= low <= high;
            // none if the moved curves have no loss in common
            let between = (0..=LEVELS).map(|i| low + (high - low) * i as f64 / LEVELS as f64);
            let own = a.iter().chain(&b).map(|&(loss, _)| loss);
            for loss in between.chain(own).filter(|loss| (low..=high).contains(loss)) {
                let ratio = interpolated(&a, loss) / interpolated(&b, loss);
                range = (range.0.min(ratio), range.1.max(ratio));
            }
        }
    }
    let with_intervals =
        [a, b].iter().all(|models| models.iter().all(|model| model.loss.half.is_some()));
    let level = f64::midpoint(low, high);
    let middle = interpolated(&a_curve, level) / interpolated(&b_curve, level);
    Some(Ratio::Found { losses: (low, high), middle, range, is_bounded, with_intervals })
}

/// The losses that both curves reach: the lowest and the highest. The lowest is above the highest if there are none.
fn common(a: &[(f64, f64)], b: &[(f64, f64)]) -> (f64, f64) {
    (a[0].0.max(b[0].0), a[a.len() - 1].0.min(b[b.len() - 1].0))
}

/// Loss and logarithm of the speed, by loss, with the losses moved by `moved`.
fn curve(models: &[Measured], moved: f64, speed: Speed) -> Vec<(f64, f64)> {
    let mut curve: Vec<(f64, f64)> =
        models.iter().map(|model| (model.loss.value + moved, speed(model).ln())).collect();
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
        let one = |&(value, speed): &(f64, f64)| Measured {
            loss: Mean { value, count: 2, half },
            speed,
            rounds: (speed, speed),
        };
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
        // rounds of half and twice the speed
        let mut spread = fast.clone();
        spread.iter_mut().for_each(|model| model.rounds = (model.speed / 2.0, model.speed * 2.0));
        let Some(Ratio::Found { middle, range, .. }) = ratio(&spread, &slow) else { panic!() };
        for (found, expected) in [(middle, 4.0), (range.0, 2.0), (range.1, 8.0)] {
            assert!((found - expected).abs() < 1e-9, "{found}");
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

    /// Curves with few losses in common may have none if their losses are moved.
    #[test]
    fn a_ratio_is_bounded_only_where_moved_curves_overlap() {
        let bounded = |half: f64| {
            let slow = models(&[(3.0, 100.0), (2.0, 10.0)], Some(half));
            let fast = models(&[(4.0, 100.0), (2.9, 10.0)], Some(half));
            let Some(Ratio::Found { is_bounded, .. }) = ratio(&fast, &slow) else { panic!() };
            is_bounded
        };
        assert!(bounded(0.04));
        assert!(!bounded(0.06));
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
