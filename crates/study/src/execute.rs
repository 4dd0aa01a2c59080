//! Running a study: what the ledger lacks is trained and measured.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::rc::Rc;

use block_transformer_datasets::{
    CorpusRequest, PreparedCorpus, ReadOptions, SHARD_TOKENS, TokenizerChoice, prepare_corpus,
};
use block_transformer_device::DeviceName;
use block_transformer_files::{FileError, nearest};
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
use crate::points::View;
use crate::rates::Rates;
use crate::run::Run;

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
    corpora: BTreeMap<String, PreparedCorpus>,
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
        Self { settings, device, observer, interrupter, corpora: BTreeMap::new() }
    }

    /// Trains and measures what the ledger lacks. A study whose learning rates follow from a sweep runs the sweep
    /// first.
    ///
    /// # Errors
    /// When a run fails, the ledger or a text cannot be used, or no run has a wanted name.
    pub fn run(&mut self, study: &Study) -> Result<Ended, StudyError> {
        let mut ledger = Ledger::open(&self.settings.ledger)?;
        let scale = self.settings.scale.clone();
        let mut rates = Rates::of(&ledger, &scale)?;
        if rates.is_none() && study.uses_rates(&scale) {
            let sweep = Study::open(RATES)?;
            let runs = sweep.runs(&scale, None)?;
            if self.all(&sweep, &runs, &mut ledger)? == Ended::Interrupted {
                return Ok(Ended::Interrupted);
            }
            rates = Rates::of(&ledger, &scale)?;
        }
        let runs = study.runs(&scale, rates.as_ref())?;
        if let Some(run) = runs.iter().find(|run| run.is_open) {
            let (family, sweep) =
                (block_transformer_zoo::FamilyConfig::family(&run.config.model), RATES);
            return Err(StudyError::NoRate { family: family.into(), sweep: sweep.into() });
        }
        let wanted = self.wanted(study, &runs)?;
        if self.all(study, &wanted, &mut ledger)? == Ended::Interrupted {
            return Ok(Ended::Interrupted);
        }
        Ok(Ended::Done)
    }

    /// The runs of `only`, with the runs that they begin with.
    fn wanted(&self, study: &Study, runs: &[Run]) -> Result<Vec<Run>, StudyError> {
        let only = &self.settings.only;
        if only.is_empty() {
            return Ok(runs.to_vec());
        }
        let mut ids = BTreeSet::new();
        for name in only {
            let fits = |run: &&Run| run.id == *name || run.name() == *name;
            let found = runs.iter().find(fits).ok_or_else(|| {
                let names: Vec<String> = runs.iter().map(Run::name).collect();
                let nearest = nearest(name, names.iter().map(String::as_str)).unwrap_or_default();
                StudyError::NoRun {
                    study: study.name.clone(),
                    name: name.clone(),
                    nearest: nearest.to_string(),
                }
            })?;
            ids.extend(found.from.clone());
            ids.insert(found.id.clone());
        }
        Ok(runs.iter().filter(|run| ids.contains(&run.id)).cloned().collect())
    }

    fn all(
        &mut self,
        study: &Study,
        runs: &[Run],
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
        for (i, run) in runs.iter().enumerate() {
            let event = StudyEvent::Run {
                name: run.name(),
                id: run.id.clone(),
                number: i + 1,
                of: runs.len(),
            };
            if self.is_done(run, &measurements, ledger) {
                continue;
            }
            self.observe(&event);
            if self.one(run, &measurements, ledger)? == Ended::Interrupted {
                return Ok(Ended::Interrupted);
            }
        }
        for measurement in measurements.iter().filter(|one| one.is_of_shape()) {
            if self.interrupter.should_stop() {
                return Ok(Ended::Interrupted);
            }
            self.shapes(runs, measurement, ledger)?;
        }
        Ok(Ended::Done)
    }

    fn is_done(&self, run: &Run, measurements: &[Measurement], ledger: &Ledger) -> bool {
        let of_run = measurements.iter().filter(|one| !one.is_of_shape());
        let has = |one: &Measurement| ledger.get(&run.id, one.name(), &one.settings(run)).is_some();
        ledger.get(&run.id, TRAIN, &serde_json::Value::Null).is_some()
            && of_run.into_iter().all(has)
    }

    /// Trains a run and measures it.
    fn one(
        &mut self,
        run: &Run,
        measurements: &[Measurement],
        ledger: &mut Ledger,
    ) -> Result<Ended, StudyError> {
        // a process of a killed `--jobs` may still train it
        let _lock = self.lock(run)?;
        *ledger = Ledger::open(&self.settings.ledger)?;
        if self.is_done(run, measurements, ledger) {
            return Ok(Ended::Done);
        }
        let corpus = self.corpus(&run.config.tokenizer, &run.config.corpus)?;
        let text = format!("{}-{:08x}", corpus.info.train.tokens, corpus.info.tokenizer);
        if let Some(row) = ledger.rows().iter().find(|row| row.run == run.id && row.text != text) {
            return Err(StudyError::OtherText {
                ledger: ledger.path().into(),
                run: row.run.clone(),
                path: corpus.dir,
            });
        }
        let subject = Subject { run, corpus: &corpus, text: &text };
        let trained = ledger.get(&run.id, TRAIN, &Value::Null).is_some();
        let Some(row) = measure::train(self, &subject)? else { return Ok(Ended::Interrupted) };
        if !trained {
            self.append(row, ledger)?;
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

    fn measuring(&self, measurement: &'static str, subject: &str) {
        self.observe(&StudyEvent::Measuring { measurement, subject: subject.into() });
    }

    fn observe(&self, event: &StudyEvent) {
        (self.observer.borrow_mut())(event);
    }

    /// The corpus, prepared with a tokenizer.
    fn corpus(
        &mut self,
        tokenizer: &TokenizerChoice,
        name: &str,
    ) -> Result<PreparedCorpus, StudyError> {
        let key = serde_json::to_string(tokenizer)?;
        if let Some(corpus) = self.corpora.get(&key) {
            return Ok(corpus.clone());
        }
        let Some(path) = self.settings.corpus.clone() else {
            return Err(StudyError::NoCorpus(format!("{name:?}")));
        };
        let request = CorpusRequest {
            corpus: std::slice::from_ref(&path),
            options: &ReadOptions::default(),
            shard_tokens: SHARD_TOKENS,
            tokenizer,
            data: &self.settings.data,
            out: None,
        };
        let corpus = prepare_corpus(&request, &mut |_| ())?;
        self.corpora.insert(key, corpus.clone());
        Ok(corpus)
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

impl Study {
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
