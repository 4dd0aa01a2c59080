//! The declarations of studies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use block_transformer_files::read_text_up_to;
use serde::Deserialize;
use toml::{Table, Value};

use crate::claim::Claim;
use crate::error::StudyError;
use crate::figure::Figure;

/// The declarations that belong to the project, in the order of the paper's questions.
const BUILT_IN: [(&str, &str); 12] = [
    ("rates", include_str!("../studies/rates.toml")),
    ("frontier", include_str!("../studies/frontier.toml")),
    ("budget", include_str!("../studies/budget.toml")),
    ("block-length", include_str!("../studies/block-length.toml")),
    ("allocation", include_str!("../studies/allocation.toml")),
    ("component-rates", include_str!("../studies/component-rates.toml")),
    ("components", include_str!("../studies/components.toml")),
    ("uptrain", include_str!("../studies/uptrain.toml")),
    ("context", include_str!("../studies/context.toml")),
    ("megabyte", include_str!("../studies/megabyte.toml")),
    ("optimizer", include_str!("../studies/optimizer.toml")),
    ("toy", include_str!("../studies/toy.toml")),
];
const COMMON: &str = include_str!("../studies/common.toml");
/// The largest declaration in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The study that measures learning rates for the others.
pub(crate) const RATES: &str = "rates";

/// A study: its runs, what is measured on them, figures and claims.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// The name: that of its file.
    #[serde(skip)]
    pub name: String,
    /// What errors name: the study or its file.
    #[serde(skip)]
    origin: String,
    /// The title of the report.
    pub title: String,
    /// The question that the study answers.
    pub question: String,
    /// What the corpus is. A flag says where it is.
    pub corpus: String,
    /// Whether its only purpose is to test the machinery.
    #[serde(default)]
    pub is_test: bool,
    /// Keys of runs by axis and value.
    #[serde(default)]
    pub(crate) values: Table,
    /// Keys at each scale.
    #[serde(default)]
    pub(crate) scale: BTreeMap<String, ScaleTables>,
    /// Names of measurements, with settings in place of those of the scale.
    #[serde(default)]
    pub(crate) measure: Table,
    #[serde(rename = "grid")]
    pub(crate) grids: Vec<Grid>,
    /// What the learning rate of other studies depends on.
    #[serde(default)]
    pub(crate) rates: Option<RateRule>,
    #[serde(default)]
    pub(crate) columns: Vec<Column>,
    #[serde(default, rename = "figure")]
    pub(crate) figures: Vec<Figure>,
    #[serde(default, rename = "claim")]
    pub(crate) claims: Vec<Claim>,
    #[serde(skip)]
    pub(crate) common: Common,
}

/// Values that all studies share.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Common {
    #[serde(default)]
    values: Table,
    pub(crate) scale: BTreeMap<String, ScaleTables>,
}

/// Values at a scale.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScaleTables {
    /// Keys of the training configuration of every run.
    #[serde(default)]
    train: Table,
    /// Keys of runs by axis and value.
    #[serde(default)]
    pub(crate) values: Table,
    /// Settings of measurements.
    #[serde(default)]
    pub(crate) measure: Table,
}

/// A grid of runs: every combination of the values of its axes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grid {
    /// Values by axis.
    pub axes: BTreeMap<String, Vec<Value>>,
    /// The scales at which the grid belongs to the study; empty for all.
    #[serde(default)]
    pub scales: Vec<String>,
    /// Keys of all its runs.
    #[serde(default)]
    pub set: Table,
}

/// The choice of a learning rate: the one with the lowest mean loss, for each family alone. A model of another
/// width gets it times `(width of the sweep / its own width) ^ power`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateRule {
    /// The loss.
    pub metric: String,
    /// The power of the width.
    pub power: f64,
}

/// A column of the table of a report.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Column {
    pub head: String,
    pub metric: String,
    /// Decimals; significant digits for values above 1000.
    #[serde(default = "three")]
    pub digits: usize,
}

fn three() -> usize {
    3
}

impl Study {
    /// The names of the studies of the project.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Every study of the project.
    ///
    /// # Errors
    /// When one is not valid.
    pub fn all() -> Result<Vec<Self>, StudyError> {
        Self::names().map(Self::open).collect()
    }

    /// The study called `name`, or the one in the file `name`, which ends in `.toml`.
    ///
    /// # Errors
    /// When there is none, or it is not valid.
    pub fn open(name: &str) -> Result<Self, StudyError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, &format!("study {name}"), text);
        }
        let path = Path::new(name);
        if path.extension().is_none_or(|extension| extension != "toml") {
            let known = Self::names().collect::<Vec<_>>().join(", ");
            return Err(StudyError::Unknown { name: name.into(), known });
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&stem, name, &read_text_up_to(path, MAX_BYTES)?)
    }

    /// Parses a declaration; `origin` names it in errors.
    pub(crate) fn parse(name: &str, origin: &str, text: &str) -> Result<Self, StudyError> {
        let invalid = |reason: String| StudyError::Declaration {
            origin: origin.into(),
            reason: reason.trim_end().into(),
        };
        let study = toml::from_str::<Self>(text).map_err(|error| invalid(error.to_string()))?;
        let common = toml::from_str::<Common>(COMMON);
        let common = common.map_err(|error| invalid(format!("common.toml: {error}")))?;
        Ok(Self { name: name.into(), origin: origin.into(), common, ..study })
    }

    /// The error about the declaration.
    pub(crate) fn invalid(&self, reason: impl Into<String>) -> StudyError {
        let reason: String = reason.into();
        StudyError::Declaration { origin: self.origin.clone(), reason: reason.trim_end().into() }
    }

    /// The tables at a scale: those that all studies share, then those of this study.
    fn at(&self, scale: &str) -> impl Iterator<Item = &ScaleTables> {
        [self.common.scale.get(scale), self.scale.get(scale)].into_iter().flatten()
    }

    /// The scales that are known.
    pub fn scales(&self) -> Vec<&str> {
        let grids = |scale: &str| self.grids.iter().any(|grid| grid.is_at(scale));
        self.common.scale.keys().map(String::as_str).filter(|scale| grids(scale)).collect()
    }

    /// The values of an axis that have keys at a scale.
    pub(crate) fn values_of(&self, scale: &str, axis: &str) -> BTreeSet<&str> {
        let scaled = self.at(scale).map(|tables| &tables.values);
        let all = [&self.common.values, &self.values].into_iter().chain(scaled);
        let tables = all.filter_map(|values| values.get(axis)?.as_table()).flatten();
        tables.filter(|(_, keys)| keys.is_table()).map(|(value, _)| value.as_str()).collect()
    }

    /// Keys of the training configuration of every run at a scale.
    pub(crate) fn train(&self, scale: &str) -> impl Iterator<Item = &Table> {
        self.at(scale).map(|tables| &tables.train)
    }

    /// The keys that a value of an axis sets at a scale, in the order in which they are merged.
    pub(crate) fn value<'a>(
        &'a self,
        scale: &'a str,
        axis: &'a str,
        value: &'a str,
    ) -> impl Iterator<Item = &'a Table> {
        let scaled = self.at(scale).map(|tables| &tables.values);
        let all = [&self.common.values, &self.values].into_iter().chain(scaled);
        all.filter_map(move |values| values.get(axis)?.get(value)?.as_table())
    }

    /// The measurements at a scale with their settings.
    pub(crate) fn measurements(&self, scale: &str) -> BTreeMap<String, Table> {
        let settings = |name: &str| {
            let mut merged = Table::new();
            let own = [Some(&self.measure)].into_iter().flatten();
            let tables = self.common.scale.get(scale).map(|tables| &tables.measure).into_iter();
            let scaled = self.scale.get(scale).map(|tables| &tables.measure).into_iter();
            for table in tables.chain(own).chain(scaled) {
                if let Some(Value::Table(settings)) = table.get(name) {
                    crate::merge::merge(&mut merged, settings);
                }
            }
            merged
        };
        self.measure.keys().map(|name| (name.clone(), settings(name))).collect()
    }
}

impl Grid {
    pub(crate) fn is_at(&self, scale: &str) -> bool {
        self.scales.is_empty() || self.scales.iter().any(|known| known == scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    /// A misspelt measurement, axis or key in a declaration of the project is found here.
    #[test]
    fn every_study_of_the_project_is_valid_at_its_scales() {
        for study in Study::all().unwrap() {
            assert!(!study.scales().is_empty(), "{}", study.name);
            for scale in study.scales() {
                study.check(scale, &Ledger::default()).unwrap();
            }
        }
    }

    #[test]
    fn studies_at_the_paper_s_scale_have_the_published_sizes() {
        let frontier = Study::open("frontier").unwrap();
        let runs = frontier.runs("paper", None).unwrap();
        let tokens = 300_000_000_000_u64;
        for (size, preset) in
            [("xs", "block-33m"), ("s", "block-77m"), ("m", "block-170m"), ("l", "block-420m")]
        {
            let run = runs
                .iter()
                .find(|run| run.labels["size"] == size && run.labels["family"] == "block")
                .unwrap();
            let preset = block_transformer_zoo::preset(preset).unwrap();
            assert_eq!(run.config.model, preset.model);
            assert_eq!(run.config.lr, preset.train.lr);
            assert!(run.tokens().abs_diff(tokens) < tokens / 1000, "{}", run.tokens());
        }
    }
}
