//! `eval` through the real binary.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{self, TINY, golden, json, succeeds, with_text};

const MADE_UP: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/evaluation/tests/reference/made-up");

/// Runs `eval` with `flags`, which must fail with one line that has every part of `says`.
fn fails(dir: &Path, flags: &str, says: &[&str]) {
    let written = support::fails(dir, &format!("eval {flags}"), says);
    assert_eq!(written.lines().count(), 1, "{written}");
}

/// A folder with two checkpoints of the byte tokenizer: `fits` with 260 ids, and `small` with 96
/// ids.
fn checkpoints() -> TempDir {
    let dir = with_text();
    let train = TINY.replace("--context 32", "--context 128");
    succeeds(dir.path(), &format!("{train} --steps 2 --out fits"));
    let file = |name: &str| golden(name).display().to_string();
    let (from, config) = (file("lookup_prefix.model.safetensors"), file("lookup_prefix.json"));
    succeeds(dir.path(), &format!("import --from '{from}' --config '{config}' --out small"));
    dir
}

fn results(dir: &Path, out: &str) -> (Value, String) {
    let dir = dir.join(out);
    (json(&dir.join("results.json")), std::fs::read_to_string(dir.join("results.md")).unwrap())
}

#[test]
fn tasks_are_scored_the_same_in_any_batch_and_one_by_one() {
    let dir = checkpoints();
    let eval = format!("eval --checkpoint fits --data '{MADE_UP}' --out");
    let table = succeeds(dir.path(), &format!("{eval} all"));
    let (all, markdown) = results(dir.path(), "all");
    assert_eq!(all["tasks"].as_object().unwrap().len(), 6);
    for (task, score) in [("hellaswag", "acc_norm"), ("wikitext", "bits_per_byte")] {
        let value = all["tasks"][task][score].as_f64().unwrap();
        let shown = format!("{value:.4}");
        assert!(table.contains(&shown) && markdown.contains(&shown), "{table}");
    }
    // an almost untrained model
    let bits = all["tasks"]["wikitext"]["bits_per_byte"].as_f64().unwrap();
    assert!((7.0..9.0).contains(&bits), "{bits}");
    succeeds(dir.path(), &format!("{eval} small-batches --batch-tokens 64"));
    let (small, _) = results(dir.path(), "small-batches");
    succeeds(dir.path(), &format!("{eval} two --tasks piqa,winogrande --limit 3"));
    let (two, _) = results(dir.path(), "two");
    assert_eq!(two["tasks"].as_object().unwrap().len(), 2);
    assert_eq!((&two["limit"], &two["tasks"]["piqa"]["items"]), (&3.into(), &3.into()));
    for (task, scores) in all["tasks"].as_object().unwrap() {
        let scores = scores.as_object().unwrap().iter();
        for (name, score) in scores.filter(|(name, _)| *name != "seconds") {
            let (a, b) = (score.as_f64(), small["tasks"][task][name].as_f64());
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * a.abs();
            assert!(a.zip(b).map_or(a == b, |(a, b)| close(a, b)), "{task} {name}: {a:?} {b:?}");
        }
    }
    fails(dir.path(), "--checkpoint fits --out all", &["all", "already there", "--out"]);
}

#[test]
fn errors_name_their_cause() {
    let dir = checkpoints();
    let tasks = dir.path().join("tasks");
    std::fs::create_dir(&tasks).unwrap();
    let data = format!("--data '{MADE_UP}'");
    let own = "--checkpoint fits --data tasks --tasks lambada --out none";
    let by_hand = ["data/eval/winogrande_xl_dev.jsonl", "dev.jsonl", "--data"];
    for (flags, says) in [
        (
            &format!("--checkpoint fits {data} --tasks helaswag")[..],
            &["helaswag", "`hellaswag`"][..],
        ),
        (
            &format!("--checkpoint fits {data} --shots 5"),
            &["--shots", "hellaswag_train.jsonl", "--shots-from"],
        ),
        (
            &format!("--checkpoint fits {data} --context 8"),
            &["longer than the context of 8", "--context"],
        ),
        (&format!("--checkpoint small {data}"), &["small", "258 ids", "vocabulary is 96"]),
        ("--checkpoint nowhere", &["nowhere"]),
        ("--checkpoint fits --tasks winogrande", &by_hand),
        (own, &["tasks/lambada_test.jsonl"]),
    ] {
        fails(dir.path(), flags, says);
    }
    std::fs::write(tasks.join("lambada_test.jsonl"), "{\"text\": \"a b\"}\n{\"text\": \"a")
        .unwrap();
    fails(dir.path(), own, &["tasks/lambada_test.jsonl:2: "]);
    assert!(!dir.path().join("none/results.json").exists());
}
