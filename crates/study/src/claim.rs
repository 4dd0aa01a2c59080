//! Claims, and what the measurements say about them.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use toml::{Table, Value};

use crate::equal_loss::{Measured, Ratio, ratio};
use crate::points::{Mean, Point, View};

/// Labels of points.
pub(crate) type Where = BTreeMap<String, Value>;

/// A claim with the test that decides it.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Table")]
pub(crate) struct Claim {
    /// The claim in words.
    pub claim: String,
    /// What the paper says about it.
    pub paper: String,
    /// The metric that decides it; with `equal-loss`, the one that is compared.
    metric: String,
    test: Test,
}

/// The keys that every claim has.
#[derive(Deserialize)]
struct Common {
    claim: String,
    #[serde(default)]
    paper: String,
    metric: String,
}

/// The test of a claim, with its own keys.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "test", rename_all = "kebab-case", deny_unknown_fields)]
enum Test {
    /// The mean of the points `a` is below that of the points `b`.
    Below { a: Where, b: Where },
    /// Along the axis, each value is above the one before it.
    Rises {
        axis: String,
        #[serde(default, rename = "where")]
        of: Where,
    },
    /// The point with this value of the axis is below all others.
    Lowest {
        axis: String,
        value: Value,
        #[serde(default, rename = "where")]
        of: Where,
    },
    /// At equal loss, the metric of the points `a` is more than `factor` times that of the points `b`.
    EqualLoss {
        loss: String,
        a: Where,
        b: Where,
        #[serde(default = "one")]
        factor: f64,
    },
}

fn one() -> f64 {
    1.0
}

/// An unknown key is an error, which serde's `flatten` would not find.
impl TryFrom<Table> for Claim {
    type Error = String;

    fn try_from(mut table: Table) -> Result<Self, String> {
        let keys = ["claim", "paper", "metric"];
        let common = keys.iter().filter_map(|key| Some((key.to_string(), table.remove(*key)?)));
        let common = Common::deserialize(Value::Table(common.collect()));
        let Common { claim, paper, metric } =
            common.map_err(|error| format!("claim: {}", error.message()))?;
        let test = Test::deserialize(Value::Table(table));
        let test = test.map_err(|error| format!("claim {claim:?}: {}", error.message()))?;
        Ok(Self { claim, paper, metric, test })
    }
}

/// What the measurements say about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidence {
    /// The 95% interval is on the side of the claim.
    Holds,
    /// The 95% interval is on the other side.
    DoesNotHold,
    /// The interval contains both, or is not known.
    Undecided,
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::DoesNotHold => "does not hold",
            Self::Undecided => "undecided at this scale",
        })
    }
}

/// The result of a test.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub confidence: Confidence,
    /// The numbers.
    pub because: String,
}

impl Verdict {
    fn undecided(because: impl Into<String>) -> Self {
        Self { confidence: Confidence::Undecided, because: because.into() }
    }
}

/// A difference of two means with half of its 95% interval.
struct Difference {
    value: f64,
    half: Option<f64>,
}

impl Difference {
    /// The confidence that it is below 0.
    fn is_negative(&self) -> Confidence {
        match self.half {
            Some(half) if self.value + half < 0.0 => Confidence::Holds,
            Some(half) if self.value - half > 0.0 => Confidence::DoesNotHold,
            _ => Confidence::Undecided,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.half {
            Some(half) => write!(f, "{:+.4} ± {half:.4}", self.value),
            None => {
                write!(f, "{:+.4}, without an interval because no point has two seeds", self.value)
            }
        }
    }
}

impl Claim {
    /// The metrics that decide it.
    pub(crate) fn metrics(&self) -> impl Iterator<Item = &str> {
        let loss = match &self.test {
            Test::EqualLoss { loss, .. } => Some(loss.as_str()),
            _ => None,
        };
        [&*self.metric].into_iter().chain(loss)
    }

    /// The metric whose deviation between seeds decides it.
    pub(crate) fn between_seeds(&self) -> &str {
        match &self.test {
            Test::EqualLoss { loss, .. } => loss,
            _ => &self.metric,
        }
    }

    /// The labels of the points that it is about, by key.
    pub(crate) fn labels(&self) -> Vec<(&'static str, Where)> {
        match &self.test {
            Test::Below { a, b } | Test::EqualLoss { a, b, .. } => {
                vec![("a", a.clone()), ("b", b.clone())]
            }
            Test::Rises { of, .. } => vec![("where", of.clone())],
            Test::Lowest { axis, value, of } => {
                let mut labels = of.clone();
                labels.insert(axis.clone(), value.clone());
                vec![("value", labels), ("where", of.clone())]
            }
        }
    }

    /// The axis along which points are compared.
    pub(crate) fn axis(&self) -> Option<&str> {
        match &self.test {
            Test::Rises { axis, .. } | Test::Lowest { axis, .. } => Some(axis),
            Test::Below { .. } | Test::EqualLoss { .. } => None,
        }
    }

    /// Whether it compares at equal loss.
    pub(crate) fn is_of_equal_loss(&self) -> bool {
        matches!(self.test, Test::EqualLoss { .. })
    }

    /// The factor of a comparison of speeds.
    pub(crate) fn factor(&self) -> Option<f64> {
        match &self.test {
            Test::EqualLoss { factor, .. } => Some(*factor),
            _ => None,
        }
    }

    /// Tests the claim.
    pub(crate) fn verdict(&self, view: &View<'_>) -> Verdict {
        match &self.test {
            Test::Below { a, b } => self.below(view, a, b),
            Test::Rises { axis, of } => self.rises(view, axis, of),
            Test::Lowest { axis, value, of } => self.lowest(view, axis, value, of),
            Test::EqualLoss { loss, a, b, factor } => self.equal_loss(view, loss, (a, b), *factor),
        }
    }

    fn difference(&self, view: &View<'_>, a: &Mean, b: &Mean) -> Difference {
        let half = view.pooled(&self.metric).half(&[a.count, b.count]);
        Difference { value: a.value - b.value, half }
    }

    fn below(&self, view: &View<'_>, a: &Where, b: &Where) -> Verdict {
        // each point of `a` is compared with the point of `b` that agrees with it in all other axes
        let of_b: Vec<&Point> = view.points.iter().filter(|point| point.fits(b)).collect();
        let rest = |point: &Point| -> Vec<(String, String)> {
            let own = point.labels.iter();
            let rest = own.filter(|(axis, _)| !a.contains_key(*axis) && !b.contains_key(*axis));
            rest.map(|(axis, value)| (axis.clone(), value.clone())).collect()
        };
        let mut compared = Vec::new();
        for point in view.points.iter().filter(|point| point.fits(a)) {
            let Some(partner) = of_b.iter().find(|other| rest(other) == rest(point)) else {
                continue;
            };
            let means = (view.mean(point, &self.metric), view.mean(partner, &self.metric));
            let (Some(of_a), Some(of_b)) = means else {
                return Verdict::undecided(format!(
                    "{} or {} is not measured",
                    point.name(),
                    partner.name()
                ));
            };
            let difference = self.difference(view, &of_a, &of_b);
            compared.push((
                format!("{} against {}: {difference}", point.name(), partner.name()),
                difference,
            ));
        }
        joined(compared)
    }

    /// The points with these labels and their means, by the axis in the order of the declaration.
    fn along<'v>(&self, view: &'v View<'_>, of: &Where) -> Result<Vec<(&'v Point, Mean)>, Verdict> {
        let points = view.points.iter().filter(|point| point.fits(of));
        let means = points.map(|point| {
            let mean = view.mean(point, &self.metric);
            mean.map(|mean| (point, mean))
                .ok_or_else(|| Verdict::undecided(format!("{} is not measured", point.name())))
        });
        means.collect()
    }

    fn rises(&self, view: &View<'_>, axis: &str, of: &Where) -> Verdict {
        let along = match self.along(view, of) {
            Ok(along) => along,
            Err(verdict) => return verdict,
        };
        let label = |point: &Point| point.labels.get(axis).cloned().unwrap_or_default();
        let pairs = along.windows(2).filter_map(|pair| {
            let [(before, less), (after, more)] = pair else { return None };
            let difference = self.difference(view, less, more);
            let text = format!("{} to {}: {:+.4}", label(before), label(after), -difference.value);
            let text = match difference.half {
                Some(half) => format!("{text} ± {half:.4}"),
                None => text,
            };
            Some((text, difference))
        });
        joined(pairs.collect())
    }

    fn lowest(&self, view: &View<'_>, axis: &str, value: &Value, of: &Where) -> Verdict {
        let along = match self.along(view, of) {
            Ok(along) => along,
            Err(verdict) => return verdict,
        };
        let wanted = Where::from([(axis.to_string(), value.clone())]);
        let Some((best, mean)) = along.iter().find(|(point, _)| point.fits(&wanted)) else {
            return Verdict::undecided(format!("no point has {axis} = {value}"));
        };
        let others = along.iter().filter(|(point, _)| point.labels != best.labels);
        let compared = others.map(|(point, other)| {
            let difference = self.difference(view, mean, other);
            (format!("against {}: {difference}", point.name()), difference)
        });
        joined(compared.collect())
    }

    fn equal_loss(
        &self,
        view: &View<'_>,
        loss: &str,
        (a, b): (&Where, &Where),
        factor: f64,
    ) -> Verdict {
        let models = |of: &Where| -> Vec<Measured> {
            let points = view.points.iter().filter(|point| point.fits(of));
            let model = |point: &Point| {
                let (loss, speed) =
                    (view.mean(point, loss)?, view.mean(point, &self.metric)?.value);
                // a measurement in rounds has the values of the slowest and the fastest beside it
                let parent = self.metric.rsplit_once('.').map_or("", |(parent, _)| parent);
                let round = |name: &str| view.mean(point, &format!("{parent}.{name}"));
                let rounds = match (round("min"), round("max")) {
                    (Some(min), Some(max)) => (min.value, max.value),
                    _ => (speed, speed),
                };
                Some(Measured { loss, speed, rounds })
            };
            points.filter_map(model).collect()
        };
        match ratio(&models(a), &models(b)) {
            None => Verdict::undecided("fewer than two models of a family are measured"),
            Some(Ratio::Apart { losses: [of_a, of_b] }) => Verdict::undecided(format!(
                "the losses do not overlap ({:.3} to {:.3} against {:.3} to {:.3}), and nothing is extrapolated",
                of_a.0, of_a.1, of_b.0, of_b.1
            )),
            Some(Ratio::Found { losses, middle, range, is_bounded, with_intervals }) => {
                let confidence = match with_intervals && is_bounded {
                    true if range.0 > factor => Confidence::Holds,
                    true if range.1 < factor => Confidence::DoesNotHold,
                    _ => Confidence::Undecided,
                };
                let interval = if !with_intervals {
                    "without an interval, because no point has two seeds".into()
                } else if is_bounded {
                    format!("from {:.2} to {:.2}", range.0, range.1)
                } else {
                    "without an interval, because moved by their intervals the losses of the families do not overlap".into()
                };
                let because = format!(
                    "{middle:.2} times ({interval}), at losses from {:.3} to {:.3}",
                    losses.0, losses.1
                );
                Verdict { confidence, because }
            }
        }
    }
}

/// Joins comparisons that must all be negative.
fn joined(compared: Vec<(String, Difference)>) -> Verdict {
    if compared.is_empty() {
        return Verdict::undecided("nothing to compare");
    }
    let all: Vec<Confidence> =
        compared.iter().map(|(_, difference)| difference.is_negative()).collect();
    let confidence = if all.contains(&Confidence::DoesNotHold) {
        Confidence::DoesNotHold
    } else if all.iter().all(|one| *one == Confidence::Holds) {
        Confidence::Holds
    } else {
        Confidence::Undecided
    };
    let texts: Vec<String> = compared.into_iter().map(|(text, _)| text).collect();
    Verdict { confidence, because: texts.join("; ") }
}

#[cfg(test)]
mod tests;
