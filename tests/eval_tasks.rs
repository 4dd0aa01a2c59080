//! `eval` through the real binary: texts, tasks of users, examples, alignments and needles.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{TINY, fails, json, succeeds, with_text};

/// A folder with the checkpoints `block` and `vanilla` of the byte tokenizer.
fn checkpoints() -> TempDir {
    let dir = with_text();
    let train = TINY.replace("--context 32", "--context 512");
    succeeds(dir.path(), &format!("{train} --steps 2 --out block"));
    let vanilla = train.replace("debug-block", "debug-vanilla");
    succeeds(dir.path(), &format!("{vanilla} --steps 2 --out vanilla"));
    dir
}

fn task(dir: &Path, out: &str, name: &str) -> Value {
    json(&dir.join(out).join("results.json"))["tasks"][name].clone()
}

/// The items of a file that `--items` wrote.
fn items(dir: &Path, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_text_has_a_loss_as_a_whole_and_by_document() {
    let dir = checkpoints();
    let dir = dir.path();
    let documents = ["One däy\n", "two words and more words ", "x"];
    std::fs::write(dir.join("a.txt"), documents.join("\n<|endoftext|>\n")).unwrap();
    let printed =
        succeeds(dir, "eval --checkpoint block --corpus a.txt --out out --items items.jsonl");
    let all = task(dir, "out", "corpus");
    let value = |name: &str| all[name].as_f64().unwrap();
    // bytes are tokens, and separators are not part of documents
    let csv = std::fs::read_to_string(dir.join("out/documents.csv")).unwrap();
    let rows: Vec<Vec<f64>> = csv
        .lines()
        .skip(1)
        .map(|row| row.split(',').map(|cell| cell.parse().unwrap()).collect())
        .collect();
    assert_eq!(rows.len(), 3, "{csv}");
    let sum = |column: usize| rows.iter().map(|row| row[column]).sum::<f64>();
    let nats: f64 = rows.iter().map(|row| row[1] * row[4]).sum();
    assert_eq!(sum(1), value("tokens"));
    assert_eq!(sum(2), 8.0);
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * b.abs(), "{a} {b}");
    close(value("loss"), nats / sum(1));
    close(value("token_perplexity"), value("loss").exp());
    close(value("bits_per_byte"), nats / sum(3) / 2_f64.ln());
    close(value("bits_per_word"), nats / sum(2) / 2_f64.ln());
    close(value("word_perplexity"), (nats / sum(2)).exp());
    close(rows[1][5], rows[1][4].exp());
    close(rows[1][6], rows[1][4] / 2_f64.ln() * rows[1][1] / rows[1][3]);
    close(
        -items(dir, "items.jsonl")[2]["log_likelihoods"][0].as_f64().unwrap(),
        rows[2][1] * rows[2][4],
    );
    assert!(printed.contains("bits_per_word") && printed.lines().count() > 10, "{printed}");
    // `eval-pg19` scores whole books in the same windows
    std::fs::create_dir(dir.join("books")).unwrap();
    for (name, document) in ["a.txt", "b.txt"].iter().zip(documents) {
        std::fs::write(dir.join("books").join(name), document.repeat(60)).unwrap();
    }
    let context = "--checkpoint block --context 512";
    succeeds(dir, &format!("eval {context} --corpus books --out texts"));
    succeeds(dir, &format!("eval-pg19 {context} --books books --out books-out"));
    let books = json(&dir.join("books-out/results.json"))["checkpoints"][0]["documents"].clone();
    let (texts, loss) = (task(dir, "texts", "corpus"), &books["loss"]["value"]);
    assert_eq!(texts["tokens"], books["tokens"]);
    close(texts["loss"].as_f64().unwrap(), loss.as_f64().unwrap());
    fails(dir, "eval --checkpoint block --corpus none.txt", &["--corpus none.txt"]);
    std::fs::write(dir.join("blank.txt"), " \n").unwrap();
    fails(
        dir,
        "eval --checkpoint block --corpus blank.txt",
        &["--corpus blank.txt", "no document"],
    );
}

const OWN: &str = r#"
[[task]]
name = "sums"
kind = "multiple_choice"
data = "sums.jsonl"
prompt = "{a} + {b} ="
choices = ["{sum}", "{other}"]
gold = 0
metrics = ["acc", "acc_norm", "loss"]

[[task]]
name = "letters"
kind = "multiple_choice"
data = "sums.jsonl"
prompt = "Name {sum}:"
choices = "names"
gold = "name"

[[task]]
name = "next"
kind = "likelihood"
data = "sums.jsonl"
prompt = "{a},"
target = " {b}"
"#;

fn own_tasks(dir: &Path) {
    std::fs::write(dir.join("own.toml"), OWN).unwrap();
    let line = |i: usize| {
        let names = ["ab", "cd", "ef"];
        let (sum, other, name) = (i + 2, i + 3, names[i % 3]);
        format!(
            "{{\"a\":{i},\"b\":2,\"sum\":\"{sum}\",\"other\":{other},\"names\":{names:?},\"name\":\"{name}\"}}\n"
        )
    };
    std::fs::write(dir.join("sums.jsonl"), (0..30).map(line).collect::<String>()).unwrap();
}

#[test]
fn tasks_of_a_file_are_scored_and_their_mistakes_are_named_with_the_line() {
    let dir = checkpoints();
    let dir = dir.path();
    own_tasks(dir);
    let eval = "eval --checkpoint block --tasks own.toml";
    succeeds(dir, &format!("{eval} --out out --items items.jsonl --limit 10"));
    let sums = task(dir, "out", "sums");
    assert_eq!(sums["items"], 10);
    assert!(sums["loss"].as_f64().unwrap() > 1.0 && sums["acc_norm"].is_number());
    assert!(task(dir, "out", "next")["perplexity"].is_number());
    let items = items(dir, "items.jsonl");
    let first = serde_json::json!([["0 + 2 ="], [" 2", " 3"], 0]);
    assert_eq!(
        serde_json::json!([items[0]["contexts"], items[0]["continuations"], items[0]["gold"]]),
        first
    );
    assert_eq!((&items[11]["gold"], &items[11]["continuations"][1]), (&1.into(), &" cd".into()));
    assert_eq!(
        (&items[20]["contexts"][0], &items[20]["continuations"][0]),
        (&"0,".into(), &" 2".into())
    );
    for (from, to, says) in [
        ("gold = 0", "gold = 2", &["sums.jsonl:1", "number 2"][..]),
        ("gold = 0\n", "gold = 0\nglod = 1\n", &["own.toml:", "glod"]),
        ("kind = \"likelihood\"", "kind = \"liklihood\"", &["own.toml:21", "liklihood"]),
        ("\"acc_norm\"", "\"acc_nrom\"", &["own.toml:9", "acc_nrom", "`acc_norm`"]),
        ("prompt = \"{a} +", "prompt = \"{a +", &["own.toml:6", "not closed"]),
        ("Name {sum}", "Name {sun}", &["sums.jsonl:1", "`sun`", "other"]),
        ("target = ", "choices = ", &["own.toml:19", "likelihood"]),
        ("name = \"next\"", "name = \"sums\"", &["own.toml:20", "`sums`"]),
        ("name = \"next\"", "name = \"../next\"", &["own.toml:20", "letters"]),
        ("choices = \"names\"", "choices = \"name\"", &["sums.jsonl:1", "`name` must be a list"]),
        ("gold = \"name\"", "gold = \"other\"", &["sums.jsonl:1", "3 options"]),
        ("data = \"sums.jsonl\"", "data = \"none.jsonl\"", &["none.jsonl"]),
    ] {
        let changed = OWN.replacen(from, to, 1);
        assert!(changed != OWN);
        std::fs::write(dir.join("own.toml"), changed).unwrap();
        fails(dir, eval, says);
    }
    fails(dir, "eval --checkpoint block --tasks none.toml", &["--tasks", "none.toml"]);
    std::fs::write(dir.join("own.toml"), OWN).unwrap();
    std::fs::write(dir.join("sums.jsonl"), "x".repeat(17 << 20)).unwrap();
    fails(dir, eval, &["sums.jsonl:1", "longer than 16 MiB"]);
}

#[test]
fn examples_are_before_each_prompt() {
    let dir = checkpoints();
    let dir = dir.path();
    own_tasks(dir);
    let eval = "eval --checkpoint block --items items.jsonl --limit 4";
    succeeds(dir, &format!("{eval} --tasks own.toml --shots 2 --out out"));
    assert_eq!(json(&dir.join("out/results.json"))["shots"], 2);
    for (i, item) in items(dir, "items.jsonl")[..4].iter().enumerate() {
        let context = item["contexts"][0].as_str().unwrap();
        let parts: Vec<&str> = context.split("\n\n").collect();
        assert_eq!(parts.len(), 3, "{context}");
        assert_eq!(parts[2], format!("{i} + 2 ="));
        for example in &parts[..2] {
            let (a, sum) = example.split_once(" + 2 = ").unwrap();
            let (a, sum): (usize, usize) = (a.parse().unwrap(), sum.parse().unwrap());
            assert!(a + 2 == sum && a != i, "{context}");
        }
    }
    let line = |i: usize| format!("{{\"text\": \"word {i}\"}}\n");
    std::fs::write(dir.join("lambada_test.jsonl"), (0..9).map(line).collect::<String>()).unwrap();
    succeeds(dir, &format!("{eval} --tasks lambada --data . --shots 1"));
    let context = items(dir, "items.jsonl")[0]["contexts"][0].clone();
    assert!(context.as_str().unwrap().ends_with("\n\nword"), "{context}");
    std::fs::write(dir.join("few.jsonl"), line(1)).unwrap();
    for (flags, says) in [
        (
            "--tasks lambada --data . --shots 2 --shots-from few.jsonl",
            &["few.jsonl", "1 examples", "2 are"][..],
        ),
        ("--tasks own.toml --shots 2 --shots-from few.jsonl", &["--shots-from", "one task"]),
        ("--tasks own.toml --shots 30", &["--shots 30", "sums.jsonl", "31 are drawn"]),
    ] {
        fails(dir, &format!("{eval} {flags}"), says);
    }
}

#[test]
fn alignments_of_block_models_differ_and_vanilla_models_have_none() {
    let dir = checkpoints();
    let dir = dir.path();
    own_tasks(dir);
    let eval = |checkpoint: &str, flags: &str| {
        format!("eval --checkpoint {checkpoint} --tasks own.toml {flags}")
    };
    succeeds(dir, &eval("block", "--out usual"));
    succeeds(dir, &eval("block", "--alignment generation --out generation"));
    succeeds(dir, &eval("block", "--alignment published --out published"));
    let loss = |out: &str| task(dir, out, "sums")["loss"].clone();
    assert_eq!(loss("usual"), loss("generation"));
    assert!(loss("usual") != loss("published"));
    assert_eq!(json(&dir.join("published/results.json"))["alignment"], "published");
    assert!(json(&dir.join("usual/results.json")).get("alignment").is_none());
    fails(dir, &eval("vanilla", "--alignment published"), &["--alignment published", "no blocks"]);
    fails(
        dir,
        &format!("{} --resume", eval("block", "--alignment generation --out published")),
        &["--alignment"],
    );
}

#[test]
fn needles_are_looked_for_by_several_models() {
    let dir = checkpoints();
    let dir = dir.path();
    let flags = "--tasks needle --haystack text.txt --needle-lengths 100,200 --needle-depths 0,50,100 \
                 --needle-samples 2";
    let eval = format!("eval --checkpoint block --checkpoint vanilla {flags}");
    let printed = succeeds(dir, &format!("{eval} --out out --items items.jsonl"));
    assert!(printed.contains("| block ") && printed.contains("| vanilla "), "{printed}");
    let csv = std::fs::read_to_string(dir.join("out/needle.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 2 * 2 * 3, "{csv}");
    assert!(csv.contains("\nvanilla,200,100,2,"), "{csv}");
    for file in
        ["needle.svg", "needle.png", "needle.md", "block/results.json", "vanilla/results.md"]
    {
        assert!(dir.join("out").join(file).exists(), "{file}");
    }
    let svg = std::fs::read_to_string(dir.join("out/needle.svg")).unwrap();
    assert!(svg.contains("vanilla") && svg.contains("100 %"));
    assert_eq!(items(dir, "items.jsonl").len(), 24);
    // the accuracy of the task is the mean of its cells
    let accuracies: Vec<f64> = csv
        .lines()
        .filter(|row| row.starts_with("block,"))
        .map(|row| row.split(',').nth(4).unwrap().parse().unwrap())
        .collect();
    let mean = accuracies.iter().sum::<f64>() / accuracies.len() as f64;
    assert!((task(dir, "out/block", "needle")["acc"].as_f64().unwrap() - mean).abs() < 1e-12);
    // both finished: a resumed evaluation scores nothing, and writes the same files
    succeeds(dir, "eval --resume --out out");
    assert_eq!(std::fs::read_to_string(dir.join("out/needle.csv")).unwrap(), csv);
    for (flags, says) in [
        ("--tasks needle", &["needle", "--haystack"][..]),
        ("--tasks piqa --needle-samples 3", &["--needle-samples", "--tasks needle"]),
        (
            "--tasks needle --haystack text.txt --needle-lengths 500",
            &["500 tokens", "--needle-lengths"],
        ),
        (
            "--tasks needle --haystack text.txt --needle-lengths 9",
            &["9 tokens is too short", "--needle-lengths"],
        ),
        ("--tasks needle --haystack text.txt --needle-depths 101", &["not 101", "--needle-depths"]),
    ] {
        fails(dir, &format!("eval --checkpoint block {flags}"), says);
    }
}
