//! `cargo xtask study`

mod jobs;
mod plan;
mod progress;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::rc::Rc;

use anyhow::{Error, Result, anyhow, ensure};
use block_transformer_collectives::Collective;
use block_transformer_device::DeviceName;
use block_transformer_study::{
    Clock, Ended, Laboratory, Ledger, Observer, Settings, Study, StudyError,
};
use burn::train::Interrupter;
use clap::builder::PossibleValuesParser;

use crate::commands::prepare::with_flags;
use crate::commands::train::Signals;
use crate::counts::positive;
use crate::{device, job, paths, program};

/// The clock of tests: every duration is a prediction, so that a ledger has the same bytes each time.
const CLOCK: &str = "BLOCK_TRANSFORMER_STUDY_CLOCK";

/// Arguments of `study`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Study: one that --list names, or the path of a .toml file
    name: Option<String>,
    /// Sizes, tokens and repetitions of the runs: cpu (two cores, hours), gpu (one GPU, hours) or paper
    #[arg(long, default_value = "cpu", value_parser = ["cpu", "gpu", "paper"])]
    scale: String,
    /// List the studies
    #[arg(long)]
    list: bool,
    /// Print runs, tokens and predicted hours, and train nothing; without a name, those of all studies
    #[arg(long)]
    plan: bool,
    /// FLOP/s of training on this machine, for --plan [default: a few steps of each shape are measured]
    #[arg(long, value_name = "FLOPS", requires = "plan", value_parser = flops)]
    flops: Option<f64>,
    /// Run only this run, by its name in --plan or its identity; repeat it for several
    #[arg(long, value_name = "RUN")]
    only: Vec<String>,
    /// Runs that are trained at the same time, each by a process of its own with a part of the cores
    #[arg(long, value_name = "N", default_value = "1", value_parser = positive())]
    jobs: usize,
    /// Write the report and its figures from the ledger, and train nothing
    #[arg(long, conflicts_with_all = ["only", "plan"])]
    figures_only: bool,
    /// Leave out this measurement (loss, position, needle, tasks, decode, speed) until a later call; repeat it for
    /// several. Speeds are worth measuring only while nothing else runs
    #[arg(long, value_name = "MEASUREMENT", value_parser = measurements(), hide_possible_values = true)]
    skip: Vec<String>,
    /// Text of the corpus: a recipe, a text file, a folder or a prepared folder
    #[arg(long)]
    corpus: Option<String>,
    /// Validation text: a file, or a folder of .txt files [default: the held-out part of the corpus]
    #[arg(long, value_name = "PATH")]
    validation: Option<PathBuf>,
    /// Folder of the run folders
    #[arg(long, value_name = "DIR", default_value = "runs/studies")]
    out: PathBuf,
    /// Ledger of all measurements
    #[arg(long, value_name = "FILE", default_value = "runs/studies/ledger.jsonl")]
    ledger: PathBuf,
    /// Folder of the reports: each study has a folder in it
    #[arg(long, value_name = "DIR", default_value = "runs/studies/reports")]
    report: PathBuf,
    /// Folder of prepared corpora and downloads
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Folder of task files
    #[arg(long, value_name = "DIR", default_value = "data/eval")]
    eval_data: PathBuf,
    /// Device to compute on
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
    /// For the processes of --jobs: no report
    #[arg(long, hide = true)]
    worker: bool,
}

impl Args {
    /// Runs a study, or what of it the ledger lacks. The exit code is 130 if it was interrupted.
    pub(crate) fn run(self) -> Result<ExitCode> {
        if self.list {
            return list();
        }
        let Some(name) = &self.name else {
            ensure!(
                self.plan,
                "NAME: give the study to run; --list names them, and --plan plans all of them"
            );
            ensure!(self.only.is_empty(), "NAME: give the study that --only names a run of");
            let all = Study::all().map_err(in_flags)?;
            let planned =
                |study: &Study| !study.is_test && study.scales().contains(&self.scale.as_str());
            let all: Vec<Study> = all.into_iter().filter(planned).collect();
            return plan::print(&all, &self);
        };
        let study = Study::open(name).map_err(in_flags)?;
        if self.plan {
            return plan::print(&[study], &self);
        }
        if self.figures_only {
            self.check_ledger(&study)?;
            self.report(&study)?;
            return Ok(ExitCode::SUCCESS);
        }
        self.check_paths()?;
        let (signals, ranks) = (Signals::listen()?, job::join()?);
        // the processes of a study write its ledger together
        let leads = !self.worker && ranks.rank() == 0;
        let _lock = leads.then(|| Ledger::lock(&self.ledger)).transpose().map_err(in_flags)?;
        if self.execute(&study, &signals, &*ranks)? == Ended::Interrupted {
            say!("interrupted; the same command goes on from there");
            return Ok(ExitCode::from(signals.code(&*ranks)?));
        }
        if leads {
            self.report(&study)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Checks that the ledger holds something of the study, and the declaration.
    fn check_ledger(&self, study: &Study) -> Result<()> {
        paths::input_file("--ledger", &self.ledger, "give the ledger of a study that was run")?;
        let ledger = Ledger::open(&self.ledger).map_err(in_flags)?;
        study.check(&self.scale, &ledger).map_err(in_flags)?;
        study.check_measured(&self.scale, &ledger).map_err(in_flags)
    }

    fn check_paths(&self) -> Result<()> {
        paths::output_folder("--out", &self.out)?;
        paths::output_folder("--ledger", paths::parent(&self.ledger))?;
        paths::cache_folder("--data", &self.data)?;
        if let Some(corpus) = &self.corpus {
            // a word is a recipe, and a pattern names several files
            let path = Path::new(corpus);
            if path.components().count() > 1 || path.extension().is_some() {
                let is_pattern = corpus.contains(['*', '?', '[']);
                let remedy = "give a recipe, a text file, a folder or a prepared folder";
                ensure!(
                    is_pattern || path.exists(),
                    "--corpus {corpus}: there is no such file; {remedy}"
                );
            }
        }
        if let Some(validation) = &self.validation {
            paths::existing(
                "--validation",
                validation,
                "give a text file, or a folder of .txt files",
            )?;
        }
        Ok(())
    }

    fn settings(&self) -> Settings {
        let clock = match std::env::var(CLOCK).as_deref() {
            Ok("predicted") => Clock::Predicted,
            _ => Clock::Real,
        };
        Settings {
            scale: self.scale.clone(),
            out: self.out.clone(),
            ledger: self.ledger.clone(),
            corpus: self.corpus.clone(),
            validation: self.validation.clone(),
            data: self.data.clone(),
            eval_data: self.eval_data.clone(),
            device: self.device,
            skip: self.skip.clone(),
            only: self.only.clone(),
            clock,
            commit: commit(),
            command: self.command(),
        }
    }

    /// The command without paths and without flags that change no measurement.
    fn command(&self) -> String {
        let name = self.name.as_deref().unwrap_or_default();
        // the name of a file, without the folder that it is in
        let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
        format!("study {name} --scale {}", self.scale)
    }

    fn execute(&self, study: &Study, signals: &Signals, ranks: &dyn Collective) -> Result<Ended> {
        let (settings, interrupter) = (self.settings(), &signals.interrupter);
        // each process checks it again, but before that others may have begun
        let mut laboratory = self.laboratory(settings.clone(), interrupter)?;
        laboratory.check(study).map_err(|error| self.named(error))?;
        let ended = if ranks.size() > 1 {
            jobs::share(self, study, &settings, interrupter, ranks)?
        } else if self.jobs > 1 {
            jobs::run(self, study, &settings, interrupter)?
        } else {
            Ended::Done
        };
        // what is left, such as speeds, which other work would change
        if ended == Ended::Interrupted || ranks.rank() > 0 {
            return Ok(ended);
        }
        laboratory.run(study).map_err(|error| self.named(error))
    }

    fn laboratory(&self, settings: Settings, interrupter: &Interrupter) -> Result<Laboratory> {
        let device = device::open(self.device)?;
        let observer: Observer = Rc::new(std::cell::RefCell::new(progress::print));
        Ok(Laboratory::new(settings, device, observer, interrupter.clone()))
    }

    /// Trains and measures in this process.
    fn work(&self, study: &Study, settings: Settings, interrupter: &Interrupter) -> Result<Ended> {
        let mut laboratory = self.laboratory(settings, interrupter)?;
        laboratory.run(study).map_err(|error| self.named(error))
    }

    /// Adds to an error of a run the flag that remedies it.
    fn named(&self, error: StudyError) -> Error {
        match error {
            error @ StudyError::NoCorpus(_) => {
                let flag = if self.corpus.is_none() { "--corpus" } else { "--validation" };
                anyhow!("{flag}: {error}")
            }
            error => in_flags(error),
        }
    }

    fn report(&self, study: &Study) -> Result<()> {
        let ledger = Ledger::open(&self.ledger).map_err(in_flags)?;
        let out = self.report.join(&study.name);
        paths::output_folder("--report", &out)?;
        let report = study.report(&self.scale, &ledger, &out).map_err(in_flags)?;
        for (claim, confidence) in &report.claims {
            say!("{confidence}: {claim}");
        }
        let (done, all) = report.runs;
        let figures = match &report.figures[..] {
            [] => "without figures".into(),
            [figure] => format!("with the figure {figure}"),
            figures => format!("with the figures {}", figures.join(", ")),
        };
        say!("{} of {done} of {all} runs, {figures}", report.path.display());
        Ok(())
    }
}

/// Parses a number of FLOP/s.
fn flops(text: &str) -> Result<f64, String> {
    let flops = text.parse::<f64>().ok().filter(|flops| flops.is_finite() && *flops > 0.0);
    flops.ok_or_else(|| "must be a number above 0, such as 1e12".into())
}

/// Parses the name of a measurement.
fn measurements() -> PossibleValuesParser {
    PossibleValuesParser::new(Study::measurement_names())
}

/// Prints the studies.
fn list() -> Result<ExitCode> {
    for study in Study::all().map_err(in_flags)? {
        say!("{:<14} {} ({})", study.name, study.title, study.scales().join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// The commit of an installed program, which has no checkout.
const COMMIT: &str = "BLOCK_TRANSFORMER_COMMIT";

/// The commit that the environment states, that of the checkout that the program runs in, or the version.
fn commit() -> String {
    if let Ok(commit) = std::env::var(COMMIT) {
        return commit;
    }
    let version = || format!("version {}", env!("CARGO_PKG_VERSION"));
    if program::name() == env!("CARGO_BIN_NAME") {
        return version();
    }
    let folder = env!("CARGO_MANIFEST_DIR");
    let output =
        Command::new("git").args(["-C", folder, "rev-parse", "--short=10", "HEAD"]).output();
    let text = output.ok().filter(|output| output.status.success());
    let text = text.and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(version, |text| text.trim().to_string())
}

/// Adds to an error the flag that remedies it.
fn in_flags(error: StudyError) -> Error {
    match error {
        error @ StudyError::NoRuns { .. } => anyhow!("--scale: {error}"),
        error @ StudyError::NoRun { .. } => anyhow!("--only: {error}"),
        error @ (StudyError::Ledger { .. }
        | StudyError::LedgerInUse(_)
        | StudyError::NothingMeasured { .. }
        | StudyError::OtherText { .. }
        | StudyError::OtherDevice { .. }) => anyhow!("--ledger {error}"),
        StudyError::Dataset(error) => with_flags(error),
        error => error.into(),
    }
}
