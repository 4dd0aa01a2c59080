//! `study --plan`

use std::process::ExitCode;

use anyhow::Result;
use block_transformer_bench::{number, table};
use block_transformer_study::{Here, Ledger, PlannedRun, Run, Study, StudyError, StudyPlan, plan};

use super::{Args, in_flags};
use crate::device;

/// Prints the plan of studies: of one, every run; of several, a line each.
pub(super) fn print(studies: &[Study], args: &Args) -> Result<ExitCode> {
    let ledger = Ledger::open(&args.ledger).map_err(in_flags)?;
    for study in studies {
        study.check(&args.scale, &ledger).map_err(in_flags)?;
    }
    let device;
    let here = match args.flops {
        Some(flops) => Here::Stated(flops),
        None => {
            device = device::open(args.device)?;
            Here::Measured(&device)
        }
    };
    let mut plans = plan(studies, &args.scale, &ledger, &here).map_err(in_flags)?;
    for (study, plan) in studies.iter().zip(&mut plans) {
        only(study, plan, args).map_err(in_flags)?;
    }
    if let [plan] = &plans[..] {
        let head = ["run", "identity", "tokens", "FLOPs", "hours here", "H100 hours", "trained"];
        say!("{}\n", table(&head, 2, plan.runs.iter().map(run)).trim_fmt());
    }
    let head = [
        "study",
        "runs",
        "shared",
        "trained",
        "tokens",
        "FLOPs",
        "hours here",
        "left here",
        "H100 hours",
    ];
    let mut rows: Vec<Vec<String>> = plans.iter().map(study).collect();
    if plans.len() > 1 {
        rows.push(total(&plans));
    }
    say!("{}\n", table(&head, 1, rows).trim_fmt());
    say!(
        "Shared: runs that a study above has as well; they count there. Hours here: training, {}, with an H100: the \
         phases of a step one after the other at its peaks, and the time of each launch, in the precision bf16. Evaluations \
         and speeds come on top. A study whose learning rates are not measured yet counts the runs of the sweep.",
        match args.flops {
            Some(_) => "at the stated FLOP/s",
            None =>
                "at the speed of a few measured steps, or at the highest measured FLOP/s where a step takes long",
        }
    );
    Ok(ExitCode::SUCCESS)
}

/// Keeps the runs of `--only`, those that they begin with, and those of the sweep that they need.
fn only(study: &Study, plan: &mut StudyPlan, args: &Args) -> Result<(), StudyError> {
    let count = study.runs(&args.scale, None)?.len();
    let own = plan.runs.split_off(plan.runs.len() - count);
    let runs: Vec<Run> = own.iter().map(|planned| planned.run.clone()).collect();
    let wanted = study.select(&runs, &args.only)?;
    let is_wanted =
        |planned: &PlannedRun| wanted.iter().any(|run| run.labels == planned.run.labels);
    plan.runs.extend(own.into_iter().filter(is_wanted));
    Ok(())
}

fn hours(seconds: f64) -> String {
    let hours = seconds / 3600.0;
    if hours < 100.0 { format!("{hours:.2}") } else { number(hours) }
}

fn run(planned: &PlannedRun) -> Vec<String> {
    let run = &planned.run;
    vec![
        run.name(),
        if run.is_open { "follows from the learning rate".into() } else { run.id.clone() },
        number(run.tokens() as f64),
        format!("{:.2e}", planned.flops),
        hours(planned.here),
        hours(planned.h100),
        if planned.is_done { "yes" } else { "no" }.into(),
    ]
}

fn study(plan: &StudyPlan) -> Vec<String> {
    let count =
        |of: fn(&PlannedRun) -> bool| plan.runs.iter().filter(|run| of(run)).count().to_string();
    let mut cells = vec![
        plan.study.clone(),
        plan.runs.len().to_string(),
        count(|run| run.is_shared),
        count(|run| run.is_done),
    ];
    cells.extend(sums(&|of| plan.sum(of)));
    cells
}

fn total(plans: &[StudyPlan]) -> Vec<String> {
    let mut cells = vec!["all".to_string()];
    let count = |of: fn(&PlannedRun) -> bool| {
        plans
            .iter()
            .flat_map(|plan| &plan.runs)
            .filter(|run| !run.is_shared && of(run))
            .count()
            .to_string()
    };
    cells.extend([count(|_| true), String::new(), count(|run| run.is_done)]);
    cells.extend(sums(&|of| plans.iter().map(|plan| plan.sum(of)).sum::<f64>()));
    cells
}

/// Tokens, FLOPs and hours.
fn sums(sum: &dyn Fn(fn(&PlannedRun) -> f64) -> f64) -> [String; 5] {
    [
        number(sum(|planned| planned.run.tokens() as f64)),
        format!("{:.2e}", sum(|planned| planned.flops)),
        hours(sum(|planned| planned.here)),
        hours(sum(|planned| if planned.is_done { 0.0 } else { planned.here })),
        hours(sum(|planned| planned.h100)),
    ]
}
