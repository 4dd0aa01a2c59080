//! Several runs at the same time: each in a process of its own with `--jobs`, or shared by the ranks of a job.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use block_transformer_collectives::{self as collectives, Collective};
use block_transformer_study::{Ended, Run, Settings, Study};
use burn::train::Interrupter;

use super::{Args, in_flags};

/// Time between two looks at the processes.
const POLL: Duration = Duration::from_millis(200);
/// Time that interrupted processes have to write a checkpoint.
const GRACE: Duration = Duration::from_secs(20);

/// Trains and measures the runs that the ledger lacks, except for speeds, which other work would change.
pub(super) fn run(
    args: &Args,
    study: &Study,
    settings: &Settings,
    interrupter: &Interrupter,
) -> Result<Ended> {
    for (study, settings) in &studies(study, settings)? {
        for group in study.missing(settings).map_err(in_flags)? {
            if all(args, &study.name, &group, interrupter)? == Ended::Interrupted {
                return Ok(Ended::Interrupted);
            }
        }
    }
    Ok(Ended::Done)
}

/// The studies whose runs are needed, with their settings. The runs of the sweep decide the identity of the others.
fn studies(study: &Study, settings: &Settings) -> Result<Vec<(Study, Settings)>> {
    let sweep = Study::open("rates").map_err(in_flags)?;
    let uses_sweep = study.uses_rates(&settings.scale) && study.name != sweep.name;
    let all = Settings { only: Vec::new(), ..settings.clone() };
    let sweep = uses_sweep.then_some((sweep, all));
    Ok(sweep.into_iter().chain([(study.clone(), settings.clone())]).collect())
}

/// Trains and measures the runs that the ledger lacks, except for speeds: each rank takes a part of them.
pub(super) fn share(
    args: &Args,
    study: &Study,
    settings: &Settings,
    interrupter: &Interrupter,
    ranks: &dyn Collective,
) -> Result<Ended> {
    for (study, settings) in &studies(study, settings)? {
        let groups = study.missing(settings).map_err(in_flags)?;
        // the ledger grows when all ranks have read it
        ranks.barrier()?;
        for group in groups {
            let only: Vec<String> =
                collectives::share(group.len(), ranks).map(|i| group[i].id.clone()).collect();
            let mut ended = Ended::Done;
            if !only.is_empty() {
                let mut skip = settings.skip.clone();
                skip.extend(["decode", "speed"].map(String::from));
                let settings = Settings { only, skip, ..settings.clone() };
                ended = args.work(study, settings, interrupter)?;
            }
            let flags = ranks.gather(vec![u8::from(ended == Ended::Interrupted)])?;
            if flags.concat().contains(&1) {
                return Ok(Ended::Interrupted);
            }
        }
    }
    Ok(Ended::Done)
}

fn all(args: &Args, study: &str, runs: &[Run], interrupter: &Interrupter) -> Result<Ended> {
    let mut waiting = runs.iter();
    let mut working: Vec<(String, Child)> = Vec::new();
    let (mut failed, mut stopped) = (None, None::<Instant>);
    loop {
        while working.len() < args.jobs && failed.is_none() && !interrupter.should_stop() {
            let Some(run) = waiting.next() else { break };
            say!("{}: a process of its own", run.name());
            working.push((run.name(), start(args, study, run)?));
        }
        if working.is_empty() {
            break;
        }
        thread::sleep(POLL);
        if interrupter.should_stop() {
            let since = *stopped.get_or_insert_with(Instant::now);
            if since.elapsed() > GRACE {
                // a killed run goes on from its newest checkpoint
                working.iter_mut().for_each(|(_, child)| drop(child.kill()));
            }
        }
        let mut still = Vec::new();
        for (name, mut child) in working {
            match child.try_wait().with_context(|| name.clone())? {
                None => still.push((name, child)),
                // an interrupted process ends without an error of its own
                Some(status) if status.success() || interrupter.should_stop() => {
                    say!("{name}: done");
                }
                Some(status) => failed = Some(format!("{name}: its process failed ({status})")),
            }
        }
        working = still;
    }
    match failed {
        Some(failed) => bail!("{failed}; its error is above"),
        None if interrupter.should_stop() => Ok(Ended::Interrupted),
        None => Ok(Ended::Done),
    }
}

/// Starts a process that trains and measures one run.
fn start(args: &Args, study: &str, run: &Run) -> Result<Child> {
    let program = std::env::current_exe().context("the path of this program")?;
    let mut command = Command::new(program);
    let study =
        if args.name.as_deref().is_some_and(|name| name.ends_with(".toml")) && study != "rates" {
            args.name.as_deref().unwrap_or(study)
        } else {
            study
        };
    command.args(["study", study, "--worker", "--scale", &args.scale, "--only", &run.id]);
    for (flag, path) in [
        ("--out", &args.out),
        ("--ledger", &args.ledger),
        ("--data", &args.data),
        ("--eval-data", &args.eval_data),
    ] {
        command.arg(flag).arg(path);
    }
    if let Some(corpus) = &args.corpus {
        command.arg("--corpus").arg(corpus);
    }
    if let Some(validation) = &args.validation {
        command.arg("--validation").arg(validation);
    }
    let device = args.device.to_string();
    command.args(["--device", &device, "--skip", "decode", "--skip", "speed"]);
    args.skip.iter().for_each(|name| {
        command.args(["--skip", name]);
    });
    let cores = thread::available_parallelism().map_or(1, usize::from);
    command.env("RAYON_NUM_THREADS", (cores / args.jobs).max(1).to_string());
    command.stdout(Stdio::null()).spawn().context("cannot start a process for a run")
}
