//! The runs of a study that are wanted, measured or missing.

use std::collections::BTreeSet;

use block_transformer_files::nearest;

use super::Settings;
use crate::declaration::Study;
use crate::error::StudyError;
use crate::ledger::Ledger;
use crate::measurement::TRAIN;
use crate::points::View;
use crate::rates::Rates;
use crate::run::Run;

impl Study {
    /// Those of `runs` whose name or identity is in `only`, with the runs that they begin with; all if `only` is
    /// empty.
    ///
    /// # Errors
    /// When no run has one of the names.
    pub fn select(&self, runs: &[Run], only: &[String]) -> Result<Vec<Run>, StudyError> {
        if only.is_empty() {
            return Ok(runs.to_vec());
        }
        let mut names = BTreeSet::new();
        for name in only {
            let fits = |run: &&Run| run.id == *name || run.name() == *name;
            let found = runs.iter().filter(fits).collect::<Vec<_>>();
            if found.is_empty() {
                let known: Vec<String> = runs.iter().map(Run::name).collect();
                let nearest = nearest(name, known.iter().map(String::as_str)).unwrap_or_default();
                return Err(StudyError::NoRun {
                    study: self.name.clone(),
                    name: name.clone(),
                    nearest: nearest.to_string(),
                });
            }
            names.extend(found.into_iter().map(|run| run.name()));
        }
        // a run comes after the one that it begins with
        let mut sources = BTreeSet::new();
        for run in runs.iter().rev() {
            if names.contains(&run.name()) || sources.contains(&run.id) {
                names.insert(run.name());
                sources.extend(run.from.clone());
            }
        }
        Ok(runs.iter().filter(|run| names.contains(&run.name())).cloned().collect())
    }

    /// Checks that the ledger holds a measurement of the study at a scale.
    ///
    /// # Errors
    /// When it holds none, or the study is not valid at this scale.
    pub fn check_measured(&self, scale: &str, ledger: &Ledger) -> Result<(), StudyError> {
        let runs = self.runs(scale, Rates::of(ledger, scale)?.as_ref())?;
        let known = runs.iter().filter(|run| !run.is_open);
        let known: BTreeSet<&str> = known.flat_map(|run| [&*run.id, &*run.shape]).collect();
        match ledger.rows().iter().any(|row| known.contains(&*row.run)) {
            true => Ok(()),
            false => Err(StudyError::NothingMeasured {
                ledger: ledger.path().into(),
                study: self.name.clone(),
                scale: scale.into(),
            }),
        }
    }

    /// The names of the runs whose training or measurements the ledger lacks, in the order in which they can be
    /// trained, for several processes that train them. A run that begins with another comes in a later group.
    ///
    /// # Errors
    /// When the study is not valid at this scale.
    pub fn missing(&self, settings: &Settings) -> Result<Vec<Vec<Run>>, StudyError> {
        let ledger = Ledger::open(&settings.ledger)?;
        let rates = Rates::of(&ledger, &settings.scale)?;
        let runs = self.runs(&settings.scale, rates.as_ref())?;
        let view = View::new(self, &settings.scale, &ledger, &runs);
        let names: Vec<String> = self.measurements(&settings.scale).into_keys().collect();
        let of_run = |name: &&String| !matches!(name.as_str(), "decode" | "speed");
        let lacks = |run: &&Run| {
            let measured = names.iter().filter(of_run).filter(|name| !settings.skip.contains(name));
            view.row(run, TRAIN).is_none()
                || measured.into_iter().any(|name| view.row(run, name).is_none())
        };
        let is_wanted = |run: &&Run| {
            settings.only.is_empty()
                || settings.only.iter().any(|name| *name == run.id || *name == run.name())
        };
        let missing = runs.iter().filter(is_wanted).filter(lacks);
        let (first, second) = missing.cloned().partition(|run: &Run| run.from.is_none());
        Ok(vec![first, second])
    }
}
