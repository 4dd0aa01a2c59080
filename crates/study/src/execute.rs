//! Running a study: what the ledger lacks is trained and measured.

mod runs;
mod texts;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::rc::Rc;

use block_transformer_checkpoint::RunFolder;
use block_transformer_device::DeviceName;
use block_transformer_files::FileError;
use block_transformer_training::RunEvent;
use burn::tensor::Device;
use burn::train::Interrupter;
use serde_json::Value;

use crate::clock::Clock;
use crate::declaration::{RATES, Study};
use crate::error::StudyError;
use crate::ledger::{Ledger, Row};
use crate::measure::{self, Subject};
use crate::measurement::{Measurement, TRAIN};
use crate::rates::Rates;
use crate::run::Run;
use texts::Texts;

/// Where and how studies are run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The scale.
    pub scale: String,
    /// Folder of the run folders.
    pub out: PathBuf,
    /// The ledger.
    pub ledger: PathBuf,
    /// The text of the corpus: a path or the name of a recipe. `None` if nothing has to be trained.
    pub corpus: Option<String>,
    /// The validation text: a file, or a folder of texts. `None` for the held-out documents of the corpus.
    pub validation: Option<PathBuf>,
    /// Folder of prepared corpora and downloads.
    pub data: PathBuf,
    /// Folder of task files.
    pub eval_data: PathBuf,
    /// The device.
    pub device: DeviceName,
    /// Names of measurements that are left out this time.
    pub skip: Vec<String>,
    /// Names or identities of the runs; empty for all.
    pub only: Vec<String>,
    /// The clock.
    pub clock: Clock,
    /// The commit of the program, for the ledger.
    pub commit: String,
    /// The command without paths, for the ledger.
    pub command: String,
}

/// Progress of a study.
#[derive(Clone, Debug)]
pub enum StudyEvent {
    /// A run begins or goes on; the number of the run, counted from 1, and the number of all runs.
    Run {
        /// The name of the run.
        name: String,
        /// The identity of the run.
        id: String,
        /// The number of the run.
        number: usize,
        /// All runs.
        of: usize,
    },
    /// An event of the run's training.
    Training(RunEvent),
    /// A measurement has begun.
    Measuring {
        /// The name of the measurement.
        measurement: &'static str,
        /// The run or the shape.
        subject: String,
    },
    /// A measurement is in the ledger.
    Measured(Row),
}

/// Receives progress.
pub type Observer = Rc<RefCell<dyn FnMut(&StudyEvent)>>;

/// Runs studies.
pub struct Laboratory {
    pub(crate) settings: Settings,
    pub(crate) device: Device,
    pub(crate) observer: Observer,
    pub(crate) interrupter: Interrupter,
    /// Prepared corpora by their tokenizer.
    texts: BTreeMap<String, Rc<Texts>>,
}

/// How a study ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything is in the ledger.
    Done,
    /// It was interrupted.
    Interrupted,
}

impl Laboratory {
    /// A laboratory on `device`, which must be the one that the settings name.
    pub fn new(
        settings: Settings,
        device: Device,
        observer: Observer,
        interrupter: Interrupter,
    ) -> Self {
        Self { settings, device, observer, interrupter, texts: BTreeMap::new() }
    }

    /// Trains and measures what the ledger lacks. A study whose learning rates follow from a sweep runs the sweep
    /// first.
    ///
    /// # Errors
    /// Those of [`check`](Self::check), when a run fails, the ledger or a text cannot be used, or no run has a wanted
    /// name.
    pub fn run(&mut self, study: &Study) -> Result<Ended, StudyError> {
        self.check(study)?;
        let mut ledger = Ledger::open(&self.settings.ledger)?;
        let scale = self.settings.scale.clone();
        let mut rates = Rates::of(&ledger, &scale)?;
        if rates.is_none() && study.uses_rates(&scale) {
            let sweep = Study::open(RATES)?;
            let runs = sweep.runs(&scale, None)?;
            if self.all(&sweep, &runs, &runs, &mut ledger)? == Ended::Interrupted {
                return Ok(Ended::Interrupted);
            }
            rates = Rates::of(&ledger, &scale)?;
            // now that the rates are known, runs can be compared
            self.check(study)?;
        }
        let runs = study.runs(&scale, rates.as_ref())?;
        if let Some(run) = runs.iter().find(|run| run.is_open) {
            let (family, sweep) =
                (block_transformer_zoo::FamilyConfig::family(&run.config.model), RATES);
            return Err(StudyError::NoRate { family: family.into(), sweep: sweep.into() });
        }
        let wanted = study.select(&runs, &self.settings.only)?;
        if self.all(study, &wanted, &runs, &mut ledger)? == Ended::Interrupted {
            return Ok(Ended::Interrupted);
        }
        ledger.finish()?;
        Ok(Ended::Done)
    }

    /// Trains and measures `wanted` of the runs `all`.
    fn all(
        &mut self,
        study: &Study,
        wanted: &[Run],
        all: &[Run],
        ledger: &mut Ledger,
    ) -> Result<Ended, StudyError> {
        let mut measurements = Vec::new();
        for (name, settings) in study.measurements(&self.settings.scale) {
            let parsed =
                Measurement::parse(&name, &settings).map_err(|reason| study.invalid(reason))?;
            if !self.settings.skip.contains(&name) {
                measurements.push(parsed);
            }
        }
        self.check_validation(wanted, &measurements, ledger)?;
        for run in wanted {
            if self.is_done(run, &measurements, ledger) {
                continue;
            }
            self.begins(run, wanted);
            if self.one(run, all, &measurements, ledger)? == Ended::Interrupted {
                return Ok(Ended::Interrupted);
            }
        }
        for measurement in measurements.iter().filter(|one| one.is_of_shape()) {
            if self.interrupter.should_stop() {
                return Ok(Ended::Interrupted);
            }
            self.shapes(wanted, measurement, ledger)?;
        }
        Ok(Ended::Done)
    }

    fn is_done(&self, run: &Run, measurements: &[Measurement], ledger: &Ledger) -> bool {
        let of_run = measurements.iter().filter(|one| !one.is_of_shape());
        let has = |one: &Measurement| ledger.get(&run.id, one.name(), &one.settings(run)).is_some();
        ledger.get(&run.id, TRAIN, &serde_json::Value::Null).is_some()
            && of_run.into_iter().all(has)
    }

    /// A measurement that needs a validation text is refused before anything is trained.
    fn check_validation(
        &self,
        wanted: &[Run],
        measurements: &[Measurement],
        ledger: &Ledger,
    ) -> Result<(), StudyError> {
        let mut needles = measurements.iter().filter(|one| matches!(one, Measurement::Needle(_)));
        let lacks = |one: &Measurement| {
            let has = |run: &Run| ledger.get(&run.id, one.name(), &one.settings(run)).is_some();
            !wanted.iter().all(has)
        };
        let has_texts = self.settings.validation.is_some() || self.settings.corpus.is_none();
        match needles.any(lacks) && !has_texts {
            true => {
                Err(StudyError::NoCorpus("a validation text, in which needles are hidden".into()))
            }
            false => Ok(()),
        }
    }

    /// Trains a run and measures it.
    fn one(
        &mut self,
        run: &Run,
        all: &[Run],
        measurements: &[Measurement],
        ledger: &mut Ledger,
    ) -> Result<Ended, StudyError> {
        // a process of a killed `--jobs` may still train it
        let _lock = self.lock(run)?;
        *ledger = Ledger::open(&self.settings.ledger)?;
        if self.is_done(run, measurements, ledger) {
            return Ok(Ended::Done);
        }
        let texts = self.check_texts(run, ledger)?;
        let subject = Subject { run, corpus: &texts.corpus, text: &texts.identity };
        let is_known = ledger.get(&run.id, TRAIN, &Value::Null).is_some();
        if !(is_known && self.is_trained(run)) {
            if self.source(run, all)? == Ended::Interrupted {
                return Ok(Ended::Interrupted);
            }
            let Some(row) = measure::train(self, &subject)? else { return Ok(Ended::Interrupted) };
            if !is_known {
                self.append(row, ledger)?;
            }
        }
        for measurement in measurements.iter().filter(|one| !one.is_of_shape()) {
            if self.interrupter.should_stop() {
                return Ok(Ended::Interrupted);
            }
            if ledger.get(&run.id, measurement.name(), &measurement.settings(run)).is_none() {
                self.measuring(measurement.name(), &run.id);
                let row = measure::of_run(self, &subject, measurement)?;
                self.append(row, ledger)?;
            }
        }
        Ok(Ended::Done)
    }

    /// Whether the trained model is in the run's folder, which can be deleted once everything is measured.
    fn is_trained(&self, run: &Run) -> bool {
        let folder = RunFolder::new(&self.settings.out.join(&run.id));
        folder.checkpoint(run.config.steps).is_dir()
    }

    /// Trains the run that `run` begins with again if its folder is gone. What it measured is in the ledger.
    fn source(&mut self, run: &Run, all: &[Run]) -> Result<Ended, StudyError> {
        let is_source = |other: &&Run| run.from.as_ref() == Some(&other.id);
        let Some(source) = all.iter().find(is_source) else { return Ok(Ended::Done) };
        if self.is_trained(source) {
            return Ok(Ended::Done);
        }
        let _lock = self.lock(source)?;
        if self.is_trained(source) {
            return Ok(Ended::Done);
        }
        if self.source(source, all)? == Ended::Interrupted {
            return Ok(Ended::Interrupted);
        }
        self.begins(source, all);
        let texts = self.texts(&source.config.tokenizer, &source.config.corpus)?;
        let subject = Subject { run: source, corpus: &texts.corpus, text: &texts.identity };
        let trained = measure::train(self, &subject)?;
        Ok(if trained.is_some() { Ended::Done } else { Ended::Interrupted })
    }

    /// Waits until no other process trains the run.
    fn lock(&self, run: &Run) -> Result<File, StudyError> {
        let folder = self.settings.out.join("locks");
        std::fs::create_dir_all(&folder).map_err(FileError::write(&folder))?;
        let path = folder.join(&run.id);
        let file = File::create(&path).map_err(FileError::write(&path))?;
        file.lock().map_err(FileError::write(&path))?;
        Ok(file)
    }

    /// Measures the shapes of runs.
    fn shapes(
        &mut self,
        runs: &[Run],
        measurement: &Measurement,
        ledger: &mut Ledger,
    ) -> Result<(), StudyError> {
        let mut missing: Vec<&Run> = Vec::new();
        for run in runs {
            let settings = measurement.settings(run);
            let same =
                |other: &&Run| other.shape == run.shape && measurement.settings(other) == settings;
            let is_known = ledger.get(&run.shape, measurement.name(), &settings).is_some();
            if !is_known && !missing.iter().any(same) {
                missing.push(run);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        self.measuring(measurement.name(), &format!("{} shapes", missing.len()));
        for row in measure::of_shapes(self, &missing, measurement)? {
            self.append(row, ledger)?;
        }
        Ok(())
    }

    fn append(&self, row: Row, ledger: &mut Ledger) -> Result<(), StudyError> {
        ledger.append(row.clone())?;
        self.observe(&StudyEvent::Measured(row));
        Ok(())
    }

    /// Reports that a run of `runs` begins.
    fn begins(&self, run: &Run, runs: &[Run]) {
        let number = runs.iter().position(|other| other.labels == run.labels).unwrap_or(0) + 1;
        let (name, id, of) = (run.name(), run.id.clone(), runs.len());
        self.observe(&StudyEvent::Run { name, id, number, of });
    }

    fn measuring(&self, measurement: &'static str, subject: &str) {
        self.observe(&StudyEvent::Measuring { measurement, subject: subject.into() });
    }

    fn observe(&self, event: &StudyEvent) {
        (self.observer.borrow_mut())(event);
    }

    /// A row of the ledger.
    pub(crate) fn row(&self, run: &str, measurement: &str, values: Value) -> Row {
        Row {
            run: run.into(),
            measurement: measurement.into(),
            settings: Value::Null,
            values,
            seed: None,
            device: self.settings.device.to_string(),
            seconds: 0.0,
            text: String::new(),
            commit: self.settings.commit.clone(),
            command: self.settings.command.clone(),
        }
    }
}
