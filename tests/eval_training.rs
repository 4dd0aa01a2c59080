//! `train --eval-every` through the real binary.

use serde_json::Value;

use crate::support::{TINY, fails, json, succeeds, with_text};

#[test]
fn a_run_writes_the_scores_that_eval_finds_for_its_checkpoints() {
    let dir = with_text();
    let dir = dir.path();
    let line = |i: usize| format!("{{\"text\": \"line {i} of a text\"}}\n");
    std::fs::write(dir.join("lambada_test.jsonl"), (0..20).map(line).collect::<String>()).unwrap();
    let own = "[[task]]\nname = \"own\"\nkind = \"likelihood\"\ndata = \"lambada_test.jsonl\"\n\
               prompt = \"\"\ntarget = \"{text}\"\nmetrics = [\"loss\"]\n";
    std::fs::write(dir.join("own.toml"), own).unwrap();
    let flags = "--eval-every 2 --eval-tasks lambada,own.toml --eval-limit 12 --eval-data .";
    let train = format!("{TINY} --steps 5 --checkpoint-every 2");
    let printed = succeeds(dir, &format!("{train} {flags} --out run"));
    assert!(printed.contains("step 2: lambada perplexity "), "{printed}");
    let rows = std::fs::read_to_string(dir.join("run/metrics.jsonl")).unwrap();
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for step in [2, 4, 5] {
        let checkpoint = format!("run/checkpoints/step-{step:06}");
        let eval = "--tasks lambada,own.toml --limit 12 --data .";
        succeeds(dir, &format!("eval --checkpoint {checkpoint} {eval} --out eval{step}"));
        let results = json(&dir.join(format!("eval{step}/results.json")));
        let scores = rows[step - 1]["evaluation"].as_array().unwrap();
        assert_eq!(scores.len(), 3);
        for score in scores {
            let (task, metric) =
                (score["task"].as_str().unwrap(), score["metric"].as_str().unwrap());
            assert_eq!(score["value"], results["tasks"][task][metric]);
            assert_eq!(score["stderr"], results["tasks"][task][format!("{metric}_stderr")]);
        }
    }
    assert!(rows[2].get("evaluation").is_none());
    let csv = std::fs::read_to_string(dir.join("run/evaluations.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 3 * 3, "{csv}");
    // the same weights without evaluations
    succeeds(dir, &format!("{train} --out plain"));
    let weights =
        |run: &str| std::fs::read(dir.join(run).join("checkpoints/step-000005/model.bpk")).unwrap();
    assert!(weights("run") == weights("plain"));
    // a resumed run can leave them out
    succeeds(dir, "train --resume --out run --eval-every 3");
    for (flags, says) in [
        ("--eval-every 2", &["--eval-tasks", "one task or more"][..]),
        ("--eval-tasks lambada", &["--eval-every 0", "at least 1"]),
        ("--eval-every 2 --eval-tasks lambda --eval-data .", &["--eval-tasks", "`lambada`"]),
        ("--eval-every 2 --eval-tasks piqa --eval-data .", &["piqa", "--eval-data"]),
    ] {
        fails(dir, &format!("{TINY} --steps 2 --out none {flags}"), says);
        // the run has not begun
        assert!(!dir.join("none").exists());
    }
}
