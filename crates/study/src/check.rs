//! What a declaration says about its own runs: a name that nothing has would make a claim or a figure empty.

use std::collections::{BTreeMap, BTreeSet};

use block_transformer_files::nearest;
use toml::Value;

use crate::claim::{Claim, Where};
use crate::declaration::{Grid, Study};
use crate::error::StudyError;
use crate::ledger::Ledger;
use crate::measurement::{Measurement, TRAIN};
use crate::rates::Rates;
use crate::run::Run;

/// The values of a measurement that a metric can name.
struct Values {
    measurement: &'static str,
    /// Numbers, and tables of numbers.
    numbers: &'static [&'static str],
    /// Lists by place or position.
    lists: &'static [&'static str],
}

const MEASURED: [Values; 6] = [
    Values {
        measurement: "loss",
        numbers: &["nats", "tokens", "windows", "window_nats", "within_nats", "beyond_nats"],
        lists: &["by_place", "by_position"],
    },
    Values {
        measurement: "position",
        numbers: &["windows", "window_nats", "within_nats", "beyond_nats"],
        lists: &["by_place", "by_position"],
    },
    Values {
        measurement: "needle",
        numbers: &["acc", "guessing", "nats", "by_length", "by_depth"],
        lists: &["cells"],
    },
    // their values have names of the declaration
    Values { measurement: "tasks", numbers: &[], lists: &[] },
    Values { measurement: "decode", numbers: &[], lists: &[] },
    Values { measurement: "speed", numbers: &["tokens_per_second", "min", "max"], lists: &[] },
];
const TRAINED: Values = Values {
    measurement: TRAIN,
    numbers: &[
        "steps",
        "tokens",
        "train_loss",
        "held_out_loss",
        "skipped_steps",
        "tokens_per_second",
        "parameters",
        "non_embedding",
        "token_flops",
        "training_flops",
        "kv_bytes_per_token",
    ],
    lists: &[],
};

/// What a metric must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    List,
}

impl Study {
    /// The names of the measurements that a study can have.
    pub fn measurement_names() -> impl Iterator<Item = &'static str> {
        MEASURED.iter().map(|values| values.measurement)
    }

    /// Checks the declaration at a scale: every name of a scale, measurement, axis or value in it is that of
    /// something, and no two runs are the same. Learning rates that follow from a sweep are those of the ledger;
    /// runs that have none yet are not compared.
    ///
    /// # Errors
    /// The first mistake, or that the study has no runs at this scale.
    pub fn check(&self, scale: &str, ledger: &Ledger) -> Result<(), StudyError> {
        let invalid = |reason: String| self.invalid(reason);
        self.check_scales().map_err(invalid)?;
        self.check_measurements().map_err(invalid)?;
        self.check_values(scale).map_err(invalid)?;
        self.check_metrics().map_err(invalid)?;
        self.check_figures().map_err(invalid)?;
        self.claims.iter().try_for_each(|claim| self.check_claim(claim)).map_err(invalid)?;
        let runs = self.runs(scale, Rates::of(ledger, scale)?.as_ref())?;
        distinct(&runs).map_err(invalid)?;
        for (name, settings) in self.measurements(scale) {
            Measurement::parse(&name, &settings).map_err(invalid)?;
        }
        Ok(())
    }

    fn check_scales(&self) -> Result<(), String> {
        let known: Vec<&str> = self.common.scale.keys().map(String::as_str).collect();
        let tables = self.scale.keys().map(|scale| (format!("scale.{scale}"), scale));
        let grids = self.grids.iter().flat_map(|grid| &grid.scales);
        let grids = grids.map(|scale| (format!("grid: scales: {scale:?}"), scale));
        match tables.chain(grids).find(|(_, scale)| !known.contains(&scale.as_str())) {
            Some((key, _)) => {
                Err(format!("{key}: there is no such scale; the scales are {}", known.join(", ")))
            }
            None => Ok(()),
        }
    }

    /// Measurements that are declared under a name that none has.
    fn check_measurements(&self) -> Result<(), String> {
        let own = self.measure.keys().map(|name| (format!("measure.{name}"), name));
        let scaled = self.scale.iter().flat_map(|(scale, tables)| {
            tables.measure.keys().map(move |name| (format!("scale.{scale}.measure.{name}"), name))
        });
        let is_unknown = |name: &str| Self::measurement_names().all(|known| known != name);
        match own.chain(scaled).find(|(_, name)| is_unknown(name)) {
            Some((key, _)) => {
                let known: Vec<&str> = Self::measurement_names().collect();
                Err(format!(
                    "{key}: there is no such measurement; the measurements are {}",
                    known.join(", ")
                ))
            }
            None => Ok(()),
        }
    }

    /// Every value has keys if another value of its axis has, and every own table of keys belongs to a value.
    fn check_values(&self, scale: &str) -> Result<(), String> {
        for (axis, value) in self.grids.iter().filter(|grid| grid.is_at(scale)).flat_map(labels) {
            let declared = self.values_of(scale, axis);
            if !declared.is_empty() && !declared.contains(&*value) {
                let known: Vec<&str> = declared.into_iter().collect();
                return Err(format!(
                    "grid: the value {value:?} of the axis {axis} is not declared at the scale {scale}; declare it \
                     as [values.{axis}.{value:?}], or use one of {}",
                    known.join(", ")
                ));
            }
        }
        let own = [("values".to_string(), &self.values)].into_iter();
        let scaled =
            self.scale.iter().map(|(name, at)| (format!("scale.{name}.values"), &at.values));
        for (key, tables) in own.chain(scaled) {
            for (axis, values) in tables {
                let known =
                    self.labels_of(axis).map_err(|reason| format!("{key}.{axis}: {reason}"))?;
                let values = values.as_table().into_iter().flat_map(|values| values.keys());
                if let Some(value) = values.into_iter().find(|value| !known.contains(*value)) {
                    return Err(format!(
                        "{key}.{axis}.{value:?}: no grid has this value; {}",
                        list(&known)
                    ));
                }
            }
        }
        Ok(())
    }

    /// The metrics of columns, claims and the rule of learning rates.
    fn check_metrics(&self) -> Result<(), String> {
        let columns = self.columns.iter().map(|column| {
            (format!("columns {:?}: metric = {:?}", column.head, column.metric), &*column.metric)
        });
        let claims = self.claims.iter().flat_map(|claim| {
            let key = |metric: &str| format!("claim {:?}: {metric:?}", claim.claim);
            claim.metrics().map(move |metric| (key(metric), metric))
        });
        let rates = self.rates.iter().map(|rule| ("rates.metric".to_string(), &*rule.metric));
        for (key, metric) in columns.chain(claims).chain(rates) {
            self.metric(metric, Kind::Number).map_err(|reason| format!("{key}: {reason}"))?;
        }
        Ok(())
    }

    fn check_figures(&self) -> Result<(), String> {
        for (i, figure) in self.figures.iter().enumerate() {
            let name = &figure.name;
            if self.figures[..i].iter().any(|other| other.name == *name) {
                return Err(format!("figure {name}: another figure has this name"));
            }
            let at = |key: &str| {
                let key = format!("figure {name}: {key}");
                move |reason: String| format!("{key}: {reason}")
            };
            match figure.x.as_deref().map(|x| (x, x.strip_prefix("axis."))) {
                None => {}
                Some((x, Some(axis))) => {
                    self.labels_of(axis).map_err(at(&format!("x = {x:?}")))?;
                }
                Some((x, None)) => {
                    self.metric(x, Kind::Number).map_err(at(&format!("x = {x:?}")))?;
                }
            }
            let kind = if figure.x.is_some() { Kind::Number } else { Kind::List };
            self.metric(&figure.y, kind).map_err(at(&format!("y = {:?}", figure.y)))?;
            for axis in &figure.series {
                self.labels_of(axis).map_err(at("series"))?;
            }
            if let Some(axis) = &figure.note {
                self.labels_of(axis).map_err(at("note"))?;
            }
        }
        Ok(())
    }

    /// At some scale, a run has the labels of each part of a claim.
    fn check_claim(&self, claim: &Claim) -> Result<(), String> {
        let at = |key: &str| {
            let key = format!("claim {:?}: {key}", claim.claim);
            move |reason: String| format!("{key}: {reason}")
        };
        if let Some(axis) = claim.axis() {
            self.labels_of(axis).map_err(at("axis"))?;
        }
        for (key, wanted) in claim.labels() {
            self.has(&wanted, claim.axis()).map_err(at(key))?;
        }
        match claim.factor() {
            Some(factor) if !(factor.is_finite() && factor > 0.0) => {
                Err(at("factor")(format!("{factor} must be a number above 0")))
            }
            _ => Ok(()),
        }
    }

    /// Whether a grid has these labels, and the axis.
    fn has(&self, wanted: &Where, axis: Option<&str>) -> Result<(), String> {
        for (axis, value) in wanted {
            let (known, value) = (self.labels_of(axis)?, label(value));
            if !known.contains(&value) {
                return Err(format!("no run has {axis} = {value:?}; {}", list(&known)));
            }
        }
        let fits = |grid: &Grid| {
            let has = |(axis, value): (&String, &Value)| {
                let mut values = grid.axes.get(axis).into_iter().flatten();
                values.any(|own| label(own) == label(value))
            };
            wanted.iter().all(has) && axis.is_none_or(|axis| grid.axes.contains_key(axis))
        };
        match self.grids.iter().any(fits) {
            true => Ok(()),
            false => Err("no run has all of these labels".into()),
        }
    }

    /// The labels of an axis in the grids of all scales.
    fn labels_of(&self, axis: &str) -> Result<BTreeSet<String>, String> {
        if axis == "seed" {
            return Err(
                "the runs of all seeds are one point, and have no label of this axis".into()
            );
        }
        let all = || self.grids.iter().flat_map(labels);
        let own: BTreeSet<String> =
            all().filter(|(name, _)| *name == axis).map(|(_, value)| value).collect();
        if own.is_empty() {
            let known: BTreeSet<&str> = all().map(|(name, _)| name).collect();
            let known = known.into_iter().filter(|name| *name != "seed").collect::<Vec<_>>();
            return Err(format!(
                "no grid has the axis {axis:?}; the axes are {}",
                known.join(", ")
            ));
        }
        Ok(own)
    }

    fn metric(&self, metric: &str, kind: Kind) -> Result<(), String> {
        let Some((name, path)) = metric.split_once('.') else {
            return Err("must be MEASUREMENT.VALUE, such as \"loss.nats\"".into());
        };
        let needs = |measurement: &str| match self.measure.contains_key(measurement) {
            true => Ok(()),
            false => Err(format!("needs `{measurement} = {{}}` in [measure]")),
        };
        if metric == "training.seconds" {
            return needs("speed");
        }
        let Some(values) = MEASURED.iter().chain([&TRAINED]).find(|one| one.measurement == name)
        else {
            let known = Self::measurement_names().chain([TRAIN, "training.seconds"]);
            return Err(format!(
                "there is no such measurement; did you mean {:?}?",
                nearest(name, known).unwrap_or_default()
            ));
        };
        if name != TRAIN {
            needs(name)?;
        }
        if values.numbers.is_empty() {
            return Ok(());
        }
        let known = if kind == Kind::List { values.lists } else { values.numbers };
        let value = path.split('.').next().unwrap_or_default();
        match known.contains(&value) {
            true => Ok(()),
            false if known.is_empty() => {
                Err(format!("a figure without x needs a list, and {name} has none"))
            }
            false => Err(format!(
                "{name} has no {} {value:?}; it has {}",
                if kind == Kind::List { "list" } else { "number" },
                known.join(", ")
            )),
        }
    }
}

/// The axes of a grid with each of their labels.
fn labels(grid: &Grid) -> impl Iterator<Item = (&str, String)> {
    grid.axes
        .iter()
        .flat_map(|(axis, values)| values.iter().map(|value| (axis.as_str(), label(value))))
}

fn label(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

fn list(known: &BTreeSet<String>) -> String {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    format!("its values are {}", known.join(", "))
}

/// Runs with other labels differ in something else as well.
fn distinct(runs: &[Run]) -> Result<(), String> {
    let mut seen: BTreeMap<(&str, String), &Run> = BTreeMap::new();
    for run in runs.iter().filter(|run| !run.is_open) {
        let read = run.read.as_ref().map(ToString::to_string).unwrap_or_default();
        if let Some(other) = seen.insert((&run.id, read), run) {
            return Err(format!(
                "grid: the runs {:?} and {:?} have other labels and the same configuration: the keys of an axis are \
                 replaced by those of another one",
                other.name(),
                run.name()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
