use serde_json::json;

use super::*;
use crate::declaration::RATES;
use crate::ledger::Row;

const STUDY: &str = r#"
title = "t"
question = "q"
corpus = "c"
[scale.cpu.train]
tokenizer = "bytes"
steps = 10
lr = 1e-3
[[grid]]
scales = ["cpu"]
axes = { family = ["vanilla", "block"], size = ["xs", "s"], seed = [0, 1] }
[[grid]]
scales = ["gpu"]
axes = { family = ["megabyte"], size = ["m"], seed = [0] }
[measure]
loss = {}
"#;
const BELOW: &str = "[[claim]]\nclaim = \"c\"\ntest = \"below\"\nmetric = \"loss.nats\"\n";
const RISES: &str = "[[claim]]\nclaim = \"c\"\ntest = \"rises\"\nmetric = \"loss.nats\"\n";
const FIGURE: &str = "[[figure]]\nname = \"f\"\ntitle = \"\"\nx_label = \"\"\ny_label = \"\"\n";

fn checked(text: &str) -> Result<(), StudyError> {
    Study::parse("made-up", "made-up.toml", text)?.check("cpu", &Ledger::default())
}

/// The study with `more` after it is not valid, and its error has all of `says`.
fn is_wrong(more: &str, says: &[&str]) {
    let text = format!("{STUDY}{more}");
    let error = checked(&text).expect_err(more).to_string();
    assert!(error.starts_with("made-up.toml: ") && !error.ends_with('\n'), "{error}");
    says.iter().for_each(|part| assert!(error.contains(part), "{more}: {error}"));
}

#[test]
fn a_name_that_nothing_has_is_an_error_with_its_key() {
    let a = "a = { family = \"vanilla\" }";
    let b = "b = { family = \"block\" }";
    checked(&format!("{STUDY}{BELOW}{a}\n{b}")).unwrap();
    // at another scale
    checked(&format!("{STUDY}{BELOW}{a}\nb = {{ family = \"megabyte\", size = \"m\" }}")).unwrap();
    for (labels, says) in [
        (format!("{a}\n{b}\nfactr = 3"), &["claim \"c\"", "factr"][..]),
        (format!("{a}\n{b}\nmetrik = 3"), &["metrik"]),
        (format!("a = {{ tribe = \"block\" }}\n{b}"), &["claim \"c\": a: no grid has", "tribe"]),
        (
            format!("{a}\nb = {{ family = \"blok\" }}"),
            &["claim \"c\": b:", "blok", "block, megabyte, vanilla"],
        ),
        (format!("{a}\nb = {{ family = \"megabyte\", size = \"xs\" }}"), &["b: no run has all"]),
        (format!("{a}\nb = {{ seed = 0 }}"), &["b: ", "seeds"]),
    ] {
        is_wrong(&format!("{BELOW}{labels}"), says);
    }
    is_wrong(
        &format!("{RISES}axis = \"height\""),
        &["claim \"c\": axis", "height", "family, size"],
    );
    let lowest = RISES.replace("rises", "lowest");
    is_wrong(&format!("{lowest}axis = \"size\"\nvalue = \"zz\""), &["value: no run has", "zz"]);
    let equal = BELOW.replace("below", "equal-loss");
    let equal = format!("{equal}{a}\n{b}\nloss = \"loss.nats\"\n");
    is_wrong(&format!("{equal}factor = -1.0"), &["factor: -1 must be a number above 0"]);
    is_wrong(&equal.replace("loss = \"loss.nats\"", "loss = \"nats\""), &["MEASUREMENT.VALUE"]);
}

#[test]
fn a_metric_is_a_value_of_a_declared_measurement() {
    let column = |metric: &str| format!("[[columns]]\nhead = \"h\"\nmetric = \"{metric}\"");
    for metric in ["loss.nats", "train.training_flops"] {
        checked(&format!("{STUDY}{}", column(metric))).unwrap();
    }
    for (metric, says) in [
        ("los.nats", "did you mean \"loss\"?"),
        ("loss.nat", "loss has no number \"nat\"; it has nats"),
        ("loss.by_place", "no number \"by_place\""),
        ("train.flops", "train has no number"),
        ("decode.decode.rate", "needs `decode = {}` in [measure]"),
        ("training.seconds", "needs `speed = {}` in [measure]"),
        ("axis.size", "no such measurement"),
    ] {
        is_wrong(&column(metric), &[says, "columns \"h\""]);
    }
    for (keys, says) in [
        ("x = \"axis.nope\"\ny = \"loss.nats\"", "figure f: x = \"axis.nope\": no grid has"),
        ("x = \"axis.size\"\ny = \"loss.by_place\"", "figure f: y = \"loss.by_place\""),
        ("y = \"loss.nats\"", "it has by_place, by_position"),
        ("y = \"loss.by_place\"\nseries = [\"height\"]", "figure f: series: no grid has"),
        ("y = \"loss.by_place\"\nnote = \"height\"", "figure f: note: no grid has"),
    ] {
        is_wrong(&format!("{FIGURE}{keys}"), &[says]);
    }
    let figure = format!("{FIGURE}y = \"loss.by_place\"\n");
    is_wrong(&format!("{figure}{figure}"), &["figure f: another figure has this name"]);
}

#[test]
fn a_scale_a_measurement_and_a_value_must_be_known() {
    is_wrong("[scale.cpuu]", &["scale.cpuu: there is no such scale", "cpu, gpu, paper"]);
    is_wrong("los = {}", &["measure.los: there is no such measurement"]);
    is_wrong("[scale.gpu.measure]\nlos = {}", &["scale.gpu.measure.los"]);
    is_wrong("[values.height.xs]", &["values.height: no grid has the axis"]);
    is_wrong("[scale.cpu.values.size.huge]", &["scale.cpu.values.size.\"huge\": no grid has"]);
    let wrong = |from: &str, to: &str, says: &str| {
        let error = checked(&STUDY.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    wrong("\"xs\"", "\"huge\"", "the value \"huge\" of the axis size is not declared");
    wrong("\"cpu\"]", "\"cpuu\"]", "grid: scales: \"cpuu\"");
    let layers = "width = [32], layers = [3]";
    wrong("size = [\"xs\", \"s\"]", layers, "shape.layers 3: must be even");
}

#[test]
fn runs_with_other_labels_differ_in_something_else() {
    let with = |set: &str| {
        let set = format!("seed = [0, 1] }}\nset = {{ {set} }}");
        checked(&STUDY.replacen("seed = [0, 1] }", &set, 1))
    };
    with("clip = 0.5").unwrap();
    let error = with("shape = { width = 64 }").unwrap_err().to_string();
    assert!(error.contains("vanilla, xs, seed 0\" and \"vanilla, s, seed 0\""), "{error}");
}

/// The rates of the project's studies are known, so that no run is open.
#[test]
fn no_two_runs_of_a_study_of_the_project_are_the_same() {
    let sweep = Study::open(RATES).unwrap();
    for study in Study::all().unwrap() {
        for scale in study.scales() {
            let runs = sweep.runs(scale, None).unwrap_or_default();
            let settings = sweep.measurements(scale);
            let row = |run: &Run| Row {
                run: run.id.clone(),
                measurement: "loss".into(),
                settings: Measurement::parse("loss", &settings["loss"]).unwrap().settings(run),
                values: json!({ "nats": run.config.lr }),
                seed: None,
                device: String::new(),
                seconds: 0.0,
                text: String::new(),
                commit: String::new(),
                command: String::new(),
            };
            study.check(scale, &Ledger::of(runs.iter().map(row).collect())).unwrap();
        }
    }
}
