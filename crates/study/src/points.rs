//! Points of a study, and their values in the ledger.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::declaration::Study;
use crate::ledger::{Ledger, Row};
use crate::measurement::{Measurement, TRAIN};
use crate::run::{Labels, Run, name};
use crate::statistics::{Pooled, mean};

/// Runs that differ in their seed only.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    /// The labels without the seed.
    pub labels: Labels,
    /// The runs, one per seed; at least one.
    pub runs: Vec<Run>,
}

impl Point {
    pub(crate) fn name(&self) -> String {
        name(&self.labels)
    }

    /// Whether the point has these labels.
    pub(crate) fn fits(&self, wanted: &BTreeMap<String, toml::Value>) -> bool {
        wanted.iter().all(|(axis, value)| {
            let label = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            self.labels.get(axis) == Some(&label)
        })
    }
}

/// Groups runs into points, in the order of their first runs.
pub(crate) fn points(runs: &[Run]) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    for run in runs {
        let labels: Labels = run
            .labels
            .iter()
            .filter(|(axis, _)| *axis != "seed")
            .map(|(a, v)| (a.clone(), v.clone()))
            .collect();
        match points.iter_mut().find(|point| point.labels == labels) {
            Some(point) => point.runs.push(run.clone()),
            None => points.push(Point { labels, runs: vec![run.clone()] }),
        }
    }
    points
}

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mean {
    pub value: f64,
    /// Seeds.
    pub count: usize,
    /// Half of the 95% interval; `None` if it is not known.
    pub half: Option<f64>,
}

/// The measurements of a study at a scale.
#[derive(Clone, Debug)]
pub(crate) struct View<'a> {
    ledger: &'a Ledger,
    settings: BTreeMap<String, toml::Table>,
    pub points: Vec<Point>,
}

impl<'a> View<'a> {
    pub(crate) fn new(study: &Study, scale: &str, ledger: &'a Ledger, runs: &[Run]) -> Self {
        Self { ledger, settings: study.measurements(scale), points: points(runs) }
    }

    /// The row of a measurement of a run.
    pub(crate) fn row(&self, run: &Run, measurement: &str) -> Option<&'a Row> {
        if run.is_open {
            return None;
        }
        if measurement == TRAIN {
            return self.ledger.get(&run.id, TRAIN, &Value::Null);
        }
        let measurement = Measurement::parse(measurement, self.settings.get(measurement)?).ok()?;
        let subject = if measurement.is_of_shape() { &run.shape } else { &run.id };
        self.ledger.get(subject, measurement.name(), &measurement.settings(run))
    }

    /// The value of a metric, such as `loss.nats`, of a run.
    pub(crate) fn json(&self, run: &Run, metric: &str) -> Option<&'a Value> {
        let (measurement, path) = metric.split_once('.')?;
        let values = &self.row(run, measurement)?.values;
        path.split('.').try_fold(values, |value, part| value.get(part))
    }

    fn value(&self, run: &Run, metric: &str) -> Option<f64> {
        match metric {
            // at the speed that was measured alone, because other work may have slowed the training
            "training.seconds" => {
                Some(run.tokens() as f64 / self.value(run, "speed.tokens_per_second")?)
            }
            metric => self.json(run, metric)?.as_f64(),
        }
    }

    /// The values of a metric of all measured seeds of a point.
    pub(crate) fn values(&self, point: &Point, metric: &str) -> Vec<f64> {
        point.runs.iter().filter_map(|run| self.value(run, metric)).collect()
    }

    /// The deviation of a metric between seeds, pooled over all points.
    pub(crate) fn pooled(&self, metric: &str) -> Pooled {
        let groups: Vec<Vec<f64>> =
            self.points.iter().map(|point| self.values(point, metric)).collect();
        Pooled::of(groups.iter().map(Vec::as_slice).filter(|group| !group.is_empty()))
    }

    /// The point with the largest share of the squared deviations of a metric between seeds, and its share.
    pub(crate) fn most_deviating(&self, metric: &str) -> Option<(&Point, f64)> {
        let pooled = self.pooled(metric);
        let shares = self.points.iter().map(|point| {
            let values = self.values(point, metric);
            (point, if values.is_empty() { 0.0 } else { pooled.share(&values) })
        });
        shares.filter(|(_, share)| share.is_finite()).max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The mean of a metric over the measured seeds of a point.
    pub(crate) fn mean(&self, point: &Point, metric: &str) -> Option<Mean> {
        let values = self.values(point, metric);
        let count = values.len();
        let half = || self.pooled(metric).half(&[count]);
        (count > 0).then(|| Mean { value: mean(&values), count, half: half() })
    }
}
