use serde_json::json;

use super::*;
use crate::declaration::Study;
use crate::ledger::{Ledger, Row};
use crate::measurement::Measurement;
use crate::run::Run;

const STUDY: &str = r#"
title = "t"
question = "q"
corpus = "c"
[scale.cpu.train]
tokenizer = "bytes"
steps = 10
lr = 1e-3
[[grid]]
axes = { family = ["vanilla", "block"], size = ["xs", "s", "m"], seed = SEEDS }
[scale.cpu.measure]
loss = { tokens = 0 }
decode = { workloads = { a = "8:8" }, memory = 1000000, seconds = 1.0, rounds = 1 }
[measure]
loss = {}
decode = {}
"#;

/// The verdict about a claim, if the runs have these losses and speeds, by family and size. The losses of the two
/// seeds differ by `noise`.
fn verdict(claim: &str, noise: f64, models: [(f64, f64); 6], seeds: &str) -> Verdict {
    let text = format!("{}\n[[claim]]\nclaim = \"c\"\n{claim}", STUDY.replace("SEEDS", seeds));
    let study = Study::parse("made-up", "made-up.toml", &text).unwrap();
    let runs = study.runs("cpu", None).unwrap();
    let settings = study.measurements("cpu");
    let row = |subject: &str, name: &str, run: &Run, values| Row {
        run: subject.into(),
        measurement: name.into(),
        settings: Measurement::parse(name, &settings[name]).unwrap().settings(run),
        values,
        seed: None,
        device: String::new(),
        seconds: 0.0,
        text: String::new(),
        commit: String::new(),
        command: String::new(),
    };
    let rows = runs.iter().flat_map(|run| {
        let family = if run.labels["family"] == "vanilla" { 0 } else { 3 };
        let size = ["xs", "s", "m"].iter().position(|size| run.labels["size"] == *size).unwrap();
        let (loss, speed) = models[family + size];
        let loss = loss + noise * run.config.seed as f64;
        [
            row(&run.id, "loss", run, json!({ "nats": loss })),
            row(&run.shape, "decode", run, json!({ "a": { "rate": speed } })),
        ]
    });
    let ledger = Ledger::of(
        rows.filter(|row| row.values["nats"] != json!(null) || row.measurement == "decode")
            .collect(),
    );
    let view = View::new(&study, "cpu", &ledger, &runs);
    study.claims[0].verdict(&view)
}

const BELOW: &str = "test = \"below\"\nmetric = \"loss.nats\"\na = { family = \"vanilla\" }\nb = { family = \"block\" }";
const EQUAL: &str = "test = \"equal-loss\"\nloss = \"loss.nats\"\nmetric = \"decode.a.rate\"\n\
                     a = { family = \"block\" }\nb = { family = \"vanilla\" }";
const BOTH: &str = "[0, 1]";

fn of(confidence: Confidence, verdict: Verdict, says: &str) {
    assert_eq!(verdict.confidence, confidence, "{verdict:?}");
    assert!(verdict.because.contains(says), "{verdict:?}");
}

#[test]
fn a_difference_holds_does_not_hold_or_is_undecided() {
    let losses = |block: [f64; 3]| {
        let [xs, s, m] = block;
        [(3.0, 1.0), (2.5, 1.0), (2.0, 1.0), (xs, 1.0), (s, 1.0), (m, 1.0)]
    };
    let above = losses([3.4, 2.9, 2.4]);
    of(Confidence::Holds, verdict(BELOW, 0.01, above, BOTH), "vanilla, xs against block, xs: -0.4");
    of(Confidence::DoesNotHold, verdict(BELOW, 0.01, losses([3.4, 2.1, 2.4]), BOTH), "+0.4");
    // one pair is too close
    of(Confidence::Undecided, verdict(BELOW, 0.01, losses([3.4, 2.9, 2.001]), BOTH), "±");
    // more noise than difference
    of(Confidence::Undecided, verdict(BELOW, 0.9, above, BOTH), "±");
    // one seed has no interval
    of(Confidence::Undecided, verdict(BELOW, 0.0, above, "[0]"), "no point has two seeds");
    of(
        Confidence::Undecided,
        verdict(BELOW, 0.01, losses([f64::NAN, 2.9, 2.4]), BOTH),
        "not measured",
    );
}

#[test]
fn an_order_and_a_lowest_value_are_tested_pair_by_pair() {
    let of_block = |losses: [f64; 3]| {
        let [xs, s, m] = losses.map(|loss| (loss, 1.0));
        [(9.0, 1.0), (9.0, 1.0), (9.0, 1.0), xs, s, m]
    };
    let rises =
        "test = \"rises\"\nmetric = \"loss.nats\"\naxis = \"size\"\nwhere = { family = \"block\" }";
    of(Confidence::Holds, verdict(rises, 0.01, of_block([2.0, 2.5, 3.0]), BOTH), "xs to s: +0.5");
    of(
        Confidence::DoesNotHold,
        verdict(rises, 0.01, of_block([2.0, 2.5, 2.2]), BOTH),
        "s to m: -0.3",
    );
    of(
        Confidence::Undecided,
        verdict(rises, 0.01, of_block([2.0, 2.5, 2.501]), BOTH),
        "s to m: +0.0010",
    );
    let lowest = "test = \"lowest\"\nmetric = \"loss.nats\"\naxis = \"size\"\nvalue = \"s\"\nwhere = { family = \"block\" }";
    of(
        Confidence::Holds,
        verdict(lowest, 0.01, of_block([2.0, 1.5, 2.2]), BOTH),
        "against block, xs: -0.5",
    );
    of(Confidence::DoesNotHold, verdict(lowest, 0.01, of_block([2.0, 2.5, 3.0]), BOTH), "+0.5");
    of(Confidence::Undecided, verdict(lowest, 0.01, of_block([1.501, 1.5, 3.0]), BOTH), "-0.0010");
}

#[test]
fn speeds_at_equal_loss_are_compared_where_losses_overlap() {
    let vanilla = [(3.0, 100.0), (2.5, 30.0), (2.0, 10.0)];
    let with = |block: [(f64, f64); 3]| {
        let [xs, s, m] = vanilla;
        let [a, b, c] = block;
        [xs, s, m, a, b, c]
    };
    let faster = with([(3.2, 900.0), (2.7, 300.0), (2.2, 100.0)]);
    of(Confidence::Holds, verdict(EQUAL, 0.01, faster, BOTH), "times (from");
    let slower = with([(3.2, 9.0), (2.7, 3.0), (2.2, 1.0)]);
    of(Confidence::DoesNotHold, verdict(EQUAL, 0.01, slower, BOTH), "times (from");
    let equal = with(vanilla);
    of(Confidence::Undecided, verdict(EQUAL, 0.01, equal, BOTH), "1.00 times (from");
    let apart = with([(5.0, 900.0), (4.0, 300.0), (3.5, 100.0)]);
    of(
        Confidence::Undecided,
        verdict(EQUAL, 0.01, apart, BOTH),
        "do not overlap (3.505 to 5.005 against 2.005 to 3.005)",
    );
    of(Confidence::Undecided, verdict(EQUAL, 0.0, faster, "[0]"), "no point has two seeds");
    // the losses overlap by less than their intervals
    let hardly = with([(4.0, 900.0), (3.5, 300.0), (2.99, 100.0)]);
    of(Confidence::Undecided, verdict(EQUAL, 0.05, hardly, BOTH), "do not overlap");
    // nine times as fast is not ten times as fast
    let ten = format!("{EQUAL}\nfactor = 10.0");
    of(Confidence::DoesNotHold, verdict(&ten, 0.0001, faster, BOTH), "times (from");
}
