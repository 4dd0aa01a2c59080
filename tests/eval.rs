//! `eval` through the real binary.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{self, golden, succeeds, with_text};

const MADE_UP: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/evaluation/tests/reference/made-up");

/// Runs `eval` with `args`, which must fail with one line that has every word of `says`.
fn fails(dir: &Path, args: &[&str], says: &[&str]) {
    let written = support::fails(dir, &[&["eval"], args].concat(), says);
    assert_eq!(written.lines().count(), 1, "{written}");
}

/// A folder with two checkpoints of the byte tokenizer: `fits` with 260 ids, and `small` with 96
/// ids.
fn checkpoints() -> TempDir {
    let dir = with_text();
    let train = ["train", "--preset", "debug-block", "--corpus", "text.txt", "--byte-level"];
    let size = ["--context", "128", "--batch", "2", "--steps", "2", "--out", "fits"];
    succeeds(dir.path(), &[&train[..], &size].concat());
    let file = |name: &str| golden(name).display().to_string();
    let (from, config) = (file("lookup_prefix.model.safetensors"), file("lookup_prefix.json"));
    succeeds(dir.path(), &["import", "--from", &from, "--config", &config, "--out", "small"]);
    dir
}

fn results(dir: &Path, out: &str) -> (Value, String) {
    let read = |name: &str| std::fs::read_to_string(dir.join(out).join(name)).unwrap();
    (serde_json::from_str(&read("results.json")).unwrap(), read("results.md"))
}

#[test]
fn tasks_are_scored_the_same_in_any_batch_and_one_by_one() {
    let dir = checkpoints();
    let eval = ["eval", "--checkpoint", "fits", "--data", MADE_UP, "--out"];
    let table = succeeds(dir.path(), &[&eval[..], &["all"]].concat());
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
    succeeds(dir.path(), &[&eval[..], &["small-batches", "--batch-tokens", "64"]].concat());
    let (small, _) = results(dir.path(), "small-batches");
    let two = ["two", "--tasks", "piqa,winogrande", "--limit", "3"];
    succeeds(dir.path(), &[&eval[..], &two].concat());
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
    let again = ["--checkpoint", "fits", "--out", "all"];
    fails(dir.path(), &again, &["all", "already there", "--out"]);
}

#[test]
fn errors_name_their_cause() {
    let dir = checkpoints();
    let made_up = ["--checkpoint", "fits", "--data", MADE_UP];
    let more = |args: &[&'static str]| [&made_up[..], args].concat();
    fails(dir.path(), &more(&["--tasks", "helaswag"]), &["helaswag", "did you mean `hellaswag`"]);
    fails(dir.path(), &more(&["--shots", "5"]), &["--shots 5", "only 0"]);
    fails(dir.path(), &more(&["--context", "8"]), &["longer than the context of 8", "--context"]);
    fails(dir.path(), &["--checkpoint", "nowhere"], &["nowhere"]);
    let small = ["--checkpoint", "small", "--data", MADE_UP];
    fails(dir.path(), &small, &["small", "258 ids", "vocabulary is 96"]);
    let data = dir.path().join("tasks");
    std::fs::create_dir(&data).unwrap();
    let own = ["--checkpoint", "fits", "--data", "tasks", "--tasks", "lambada", "--out", "none"];
    fails(dir.path(), &own, &["tasks/lambada_test.jsonl"]);
    std::fs::write(data.join("lambada_test.jsonl"), "{\"text\": \"a b\"}\n{\"text\": \"a").unwrap();
    fails(dir.path(), &own, &["tasks/lambada_test.jsonl:2: "]);
    let by_hand = ["--checkpoint", "fits", "--tasks", "winogrande"];
    fails(dir.path(), &by_hand, &["data/eval/winogrande_xl_dev.jsonl", "dev.jsonl", "--data"]);
    assert!(!dir.path().join("none/results.json").exists());
}
