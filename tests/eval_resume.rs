//! `eval` through the real binary: every item, and resuming after kills.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{TINY, command, fails, json, one_at_a_time, succeeds, was_killed, with_text};

/// A folder with the checkpoint `run` and 600 questions in `lambada_test.jsonl`.
fn prepared() -> TempDir {
    let dir = with_text();
    succeeds(dir.path(), &format!("{TINY} --steps 2 --out run").replace("32", "128"));
    let line =
        |i: usize| format!("{{\"text\": \"{} the word {}\"}}\n", "long ".repeat(i % 17), i * 7);
    let text: String = (0..600).map(line).collect();
    std::fs::write(dir.path().join("lambada_test.jsonl"), text).unwrap();
    dir
}

const EVAL: &str =
    "eval --checkpoint run --tasks lambada --data . --corpus text.txt --batch-tokens 256";

/// The results without the times.
fn results(dir: &Path, out: &str) -> Value {
    let mut results = json(&dir.join(out).join("results.json"));
    for task in results["tasks"].as_object_mut().unwrap().values_mut() {
        assert!(task.as_object_mut().unwrap().remove("seconds").is_some());
    }
    results
}

fn read(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap()
}

#[test]
fn a_stopped_evaluation_goes_on_and_ends_with_the_same_bytes() {
    let dir = prepared();
    let dir = dir.path();
    succeeds(dir, &format!("{EVAL} --out whole --items whole.jsonl"));
    let items = read(dir, "whole.jsonl");
    assert_eq!(items.lines().count(), 601);
    let first: Value = serde_json::from_str(items.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&first["task"], &first["continuations"][0]), (&"lambada".into(), &" 0".into()));
    let scores = read(dir, "whole/scores.jsonl");
    let lines: Vec<&str> = scores.lines().collect();
    assert!(lines.len() > 20, "{}", lines.len());

    succeeds(dir, &format!("{EVAL} --out part --items part.jsonl"));
    let stop = |from: &str| {
        let part = dir.join("part");
        std::fs::remove_file(part.join("results.json")).unwrap();
        std::fs::write(part.join("scores.jsonl"), from).unwrap();
        std::fs::write(dir.join("part.jsonl"), "").unwrap();
    };
    let resume = "eval --resume --out part";
    // with half a line, as a kill during a write leaves it
    let half = lines[..lines.len() / 2].join("\n") + "\n" + &lines[3][..30];
    for from in [&half[..], &scores, ""] {
        stop(from);
        succeeds(dir, resume);
        assert!(results(dir, "part") == results(dir, "whole"));
        assert!(read(dir, "part.jsonl") == items);
    }
    // a change of the saved scores is in the results: the batches that are done are not scored again
    let mut row: Value = serde_json::from_str(lines[0]).unwrap();
    row["scores"][0]["log_likelihood"] = (-1.0).into();
    stop(&format!("{row}\n"));
    succeeds(dir, resume);
    assert!(results(dir, "part") != results(dir, "whole"));
    let part = read(dir, "part.jsonl");
    let changed = part.lines().zip(items.lines()).filter(|(a, b)| a != b).count();
    assert_eq!(changed, 1);
}

#[test]
fn an_evaluation_is_resumed_only_with_the_same_input() {
    let dir = prepared();
    let dir = dir.path();
    let begin = format!("{EVAL} --limit 20 --out out");
    succeeds(dir, &begin);
    let resume = "eval --resume --out out";
    succeeds(dir, resume);
    succeeds(dir, &format!("{resume} --limit 20 --tasks lambada"));
    fails(dir, &begin, &["out/results.json", "already there", "--resume"]);
    std::fs::remove_file(dir.join("out/results.json")).unwrap();
    fails(dir, &begin, &["--out out", "--resume"]);
    for (flags, says) in [
        ("--limit 21", &["--limit", "begun with another value"][..]),
        ("--weights int8", &["--weights", "begun with another value"]),
        ("--shots 1", &["--shots", "begun with another value"]),
    ] {
        fails(dir, &format!("{resume} {flags}"), says);
    }
    fails(dir, "eval --resume --out none", &["none", "no evaluation", "--resume"]);
    let scores = read(dir, "out/scores.jsonl");
    std::fs::write(dir.join("out/scores.jsonl"), scores.replacen("\"task\":", "\"task\"", 1))
        .unwrap();
    fails(dir, resume, &["scores.jsonl:1", "damaged"]);
    std::fs::write(dir.join("out/scores.jsonl"), scores).unwrap();
    let text = read(dir, "lambada_test.jsonl");
    std::fs::write(dir.join("lambada_test.jsonl"), text.replacen("word", "ward", 1)).unwrap();
    fails(dir, resume, &["lambada", "changed"]);
}

#[test]
fn kills_change_no_byte() {
    let _alone = one_at_a_time();
    let dir = prepared();
    let dir = dir.path();
    succeeds(dir, &format!("{EVAL} --out whole --items whole.jsonl"));
    let start = |resume: bool| -> Child {
        let line = match resume {
            true => "eval --resume --out killed".into(),
            false => format!("{EVAL} --out killed --items killed.jsonl"),
        };
        command(dir, &line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let scores = dir.join("killed/scores.jsonl");
    let size = || std::fs::metadata(&scores).map_or(0, |file| file.len());
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut kills = 0;
    while kills < 6 {
        let before = size();
        let mut child = start(kills > 0);
        // every process gets some batches done
        while size() == before && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(0..20)));
        let _ = child.kill();
        if !was_killed(child.wait().unwrap()) {
            break;
        }
        kills += 1;
    }
    assert!(kills > 1, "the evaluation is too short to be killed often");
    assert!(start(true).wait().unwrap().success());
    assert!(results(dir, "killed") == results(dir, "whole"));
    assert!(read(dir, "killed.jsonl") == read(dir, "whole.jsonl"));
    assert_eq!(read(dir, "killed/documents.csv"), read(dir, "whole/documents.csv"));
}
