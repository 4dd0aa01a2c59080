//! Several ranks train the model of one.

use std::path::Path;

use crate::job::{job, ranks_of, signal, start, succeeds, wait_for};
use crate::support::{self, TINY, with_text};

/// Sums of f32 in another order differ by about 1e-7 in each step, and the steps carry it on.
const TOLERANCE: f64 = 1e-4;

/// The losses of a run, by step.
pub(crate) fn losses(dir: &Path, run: &str) -> Vec<f64> {
    let rows = std::fs::read_to_string(dir.join(run).join("metrics.jsonl")).unwrap();
    let rows = rows.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap());
    rows.map(|row| row["loss"].as_f64().unwrap()).collect()
}

/// The weights after the last step of a run.
pub(crate) fn weights(dir: &Path, run: &str) -> Vec<u8> {
    let checkpoints = block_transformer_checkpoint::RunFolder::new(&dir.join(run)).checkpoints();
    std::fs::read(checkpoints.last().unwrap().join("model.bpk")).unwrap()
}

fn greatest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn two_and_four_ranks_have_the_losses_of_one_and_the_same_bits_each_time() {
    let dir = with_text();
    let dir = dir.path();
    let line = |out: &str, more: &str| {
        format!(
            "{} --batch 4 --steps 30 --validate-every 15 --compare-every 5 --out {out} {more}",
            TINY.replace(" --batch 2", "")
        )
    };
    support::succeeds(dir, &line("one", ""));
    let said = succeeds(job(dir, 2, &line("two", "")));
    assert_eq!(said.matches("validation loss").count(), 4, "rank 0 speaks for all: {said}");
    succeeds(job(dir, 2, &line("again", "--overlap=false")));
    succeeds(job(dir, 4, &line("four", "")));
    succeeds(job(dir, 2, &line("rounded", "--wire bf16")));
    let one = losses(dir, "one");
    for run in ["two", "four"] {
        let difference = greatest_difference(&one, &losses(dir, run));
        assert!(difference < TOLERANCE, "{run}: {difference}");
    }
    // bf16 has 8 bits
    let rounded = greatest_difference(&one, &losses(dir, "rounded"));
    assert!(rounded > 0.0 && rounded < 0.05, "{rounded}");
    assert_eq!(losses(dir, "two"), losses(dir, "again"));
    assert!(weights(dir, "two") == weights(dir, "again"), "overlap changes no bit");
    assert!(weights(dir, "two") != weights(dir, "rounded"));
}

#[test]
fn micro_batches_parts_of_them_and_several_devices_are_shared_by_rank() {
    let dir = with_text();
    let dir = dir.path();
    let line = |out: &str, more: &str| format!("{TINY} --steps 10 --out {out} {more}");
    // whole micro-batches for two ranks, parts of micro-batches for three
    support::succeeds(dir, &line("one", "--accumulate 4"));
    succeeds(job(dir, 2, &line("whole", "--accumulate 4")));
    let parts = line("parts", "--accumulate 4").replace("--batch 2", "--batch 4");
    succeeds(job(dir, 3, &parts));
    support::succeeds(dir, &line("wide", "--accumulate 4").replace("--batch 2", "--batch 4"));
    // two processes with two devices each
    succeeds(job(dir, 2, &line("nested", "--accumulate 4 --devices flex,flex")));
    for (a, b) in [("one", "whole"), ("wide", "parts"), ("one", "nested")] {
        let difference = greatest_difference(&losses(dir, a), &losses(dir, b));
        assert!(difference < TOLERANCE, "{a}, {b}: {difference}");
    }
}

#[test]
fn a_run_is_resumed_with_another_number_of_ranks() {
    let dir = with_text();
    let dir = dir.path();
    let line = |out: &str, steps: usize| {
        format!(
            "{TINY} --steps {steps} --lr-end 1 --warmup 1 --checkpoint-every 5 --validate-every 30 --keep 20 --out {out}"
        )
    };
    support::succeeds(dir, &line("one", 60));
    // the same windows after each change: two ranks, then one, then two again
    let resumed = |ranks: usize| match ranks {
        1 => support::command(dir, "train --resume --out mixed"),
        _ => job(dir, ranks, "train --resume --out mixed"),
    };
    let begun = job(dir, 2, &line("mixed", 60));
    for (run, until) in [(begun, 5), (resumed(1), 25)] {
        let child = start(run);
        wait_for(&dir.join(format!("mixed/checkpoints/step-{until:06}")));
        ranks_of(&child).into_iter().chain([child.id()]).for_each(|rank| signal(rank, "-KILL"));
        let _ = child.wait_with_output();
        assert!(losses(dir, "mixed").len() < 60, "the run ended before it was killed");
    }
    succeeds(resumed(2));
    let difference = greatest_difference(&losses(dir, "one"), &losses(dir, "mixed"));
    assert!(difference < TOLERANCE, "{difference}");
}
