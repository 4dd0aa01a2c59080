//! `eval-pg19` through the real binary: its results, its errors, and resuming after kills.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::support::{command, fails, fails_as, golden, json, one_at_a_time, succeeds, was_killed};

/// A text of `bytes` bytes, which is different for each seed.
fn text(seed: usize, bytes: usize) -> String {
    let word = |i: usize| format!("word {} of {seed}; ", (i * 7919 + seed) % 1013);
    let mut text: String = (0..bytes / 10 + 1).map(word).collect();
    text.truncate(bytes);
    text
}

/// Two tiny checkpoints of one tokenizer, `block` and `vanilla`, and a folder of books.
fn prepared(books: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text.txt"), text(0, 40_000)).unwrap();
    for (out, preset) in [("block", "debug-block"), ("vanilla", "debug-vanilla")] {
        train(dir.path(), out, preset, 2, "--byte-level");
    }
    std::fs::create_dir(dir.path().join("books")).unwrap();
    for (name, content) in books {
        std::fs::write(dir.path().join("books").join(name), content).unwrap();
    }
    dir
}

fn train(dir: &Path, out: &str, preset: &str, steps: u32, tokenizer: &str) {
    let run =
        format!("--preset {preset} --corpus text.txt --steps {steps} --out {out} {tokenizer}");
    succeeds(dir, &format!("train {run} --context 32 --batch 2"));
}

fn eval(flags: &str) -> String {
    format!("eval-pg19 --checkpoint block --books books {flags}")
}

#[test]
fn two_checkpoints_share_tables_curves_and_a_plot() {
    let books = [text(1, 32 * 9), text(2, 32 * 5 + 7), text(3, 20)];
    let dir = prepared(&[
        ("1.txt", books[0].as_bytes()),
        ("2.txt", books[1].as_bytes()),
        ("3.txt", books[2].as_bytes()),
    ]);
    let dir = dir.path();
    let shown = succeeds(dir, &eval("--checkpoint vanilla --context 64 --out out"));
    let summary = std::fs::read_to_string(dir.join("out/summary.md")).unwrap();
    assert!(shown.starts_with(&summary[..200]));
    for says in [
        "trained with 32 tokens of context",
        "block predicts nothing for the first 4 positions",
        "1 of 3 books are shorter than a window of 64 tokens",
        "block - vanilla",
    ] {
        assert!(summary.contains(says), "{says:?}: {summary}");
    }
    let results = json(&dir.join("out/results.json"));
    let windows = results["books"].as_array().unwrap().iter().map(|book| &book["windows"]);
    assert_eq!(windows.collect::<Vec<_>>(), [4, 2, 0]);
    let total: usize = books.iter().map(String::len).sum();
    for checkpoint in results["checkpoints"].as_array().unwrap() {
        let document = &checkpoint["documents"];
        assert_eq!(document["tokens"], total, "every byte is a token, predicted once");
        let (nats, loss) = (document["nats"].as_f64().unwrap(), &document["loss"]["value"]);
        assert!((nats / total as f64 - loss.as_f64().unwrap()).abs() < 1e-12);
        let words = books.iter().map(|b| b.split_whitespace().count()).sum::<usize>() as f64;
        let perplexity = document["word_perplexity"].as_f64().unwrap();
        assert!((perplexity.ln() - nats / words).abs() < 1e-9);
    }
    let csv = std::fs::read_to_string(dir.join("out/positions.csv")).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().map(|row| row.split(',').collect()).collect();
    assert_eq!(rows[0], ["checkpoint", "position", "mean", "standard_error", "count"]);
    assert_eq!(rows.len(), 1 + 2 * 64);
    for (i, row) in rows[1..].iter().enumerate() {
        let predicted = i % 64 >= if i < 64 { 4 } else { 1 };
        assert_eq!(row[0], ["block", "vanilla"][i / 64]);
        assert_eq!(row[1], (i % 64).to_string());
        assert_eq!(row[4], if predicted { "6" } else { "0" });
        assert_eq!(row[2].is_empty(), !predicted);
    }
    let svg = std::fs::read_to_string(dir.join("out/loss-by-position.svg")).unwrap();
    assert!(svg.contains("vanilla"));
    assert!(std::fs::read(dir.join("out/loss-by-position.png")).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn a_book_of_two_tokens_has_a_perplexity_and_no_curve() {
    let dir = prepared(&[("tiny.txt", b"ab")]);
    let dir = dir.path();
    let shown = succeeds(dir, &eval("--context 32 --out out"));
    assert!(shown.contains("1 of 1 books are shorter"), "{shown}");
    assert!(shown.contains("word perplexity"), "{shown}");
    let results = json(&dir.join("out/results.json"));
    assert_eq!(results["checkpoints"][0]["documents"]["tokens"], 2);
    assert!(!dir.join("out/loss-by-position.svg").exists());
    let only = eval("--context 32 --windows-only --out only");
    fails(dir, &only, &["--context 32", "no book is as long"]);
}

#[test]
fn bad_books_are_named() {
    let dir = prepared(&[("good.txt", text(1, 100).as_bytes()), ("latin.txt", b"caf\xE9 au lait")]);
    let dir = dir.path();
    fails(dir, &eval("--out out"), &["latin.txt", "invalid UTF-8 at byte 3"]);
    std::fs::write(dir.join("books/latin.txt"), "").unwrap();
    std::fs::write(dir.join("books/good.txt"), " \n").unwrap();
    fails(dir, &eval("--out blank"), &["no text in the books"]);
    std::fs::create_dir(dir.join("none")).unwrap();
    std::fs::write(dir.join("list"), "books/good.txt\nbooks/lost.txt\n").unwrap();
    for (books, says) in [("none", "no .txt file"), ("list", "list:2"), ("nowhere", "nowhere")] {
        fails(dir, &format!("eval-pg19 --checkpoint block --books {books}"), &[says]);
    }
    fails(dir, "eval-pg19 --checkpoint block", &["--books", "--download"]);
}

#[test]
fn invalid_settings_and_checkpoints_are_named() {
    let dir = prepared(&[("1.txt", text(1, 400).as_bytes())]);
    let dir = dir.path();
    train(dir, "bpe", "debug-vanilla", 2, "--vocab-size 300");
    for (flags, says) in [
        ("--context 30", &["--context 30", "blocks of 4"][..]),
        ("--context 4", &["--context 4"]),
        ("--context 0", &["--context", "at least 1"]),
        ("--stride 0", &["--stride", "at least 1"]),
        ("--batch 0", &["--batch", "at least 1"]),
        ("--limit 0", &["--limit", "at least 1"]),
        ("--checkpoint lost", &["lost"]),
        ("--checkpoint bpe", &["--checkpoint bpe", "another tokenizer"]),
    ] {
        fails(dir, &eval(flags), says);
    }
    fails(dir, "eval-pg19 --books books", &["--checkpoint"]);
    // the golden model has 64 ids, the byte tokenizer has 258
    let golden = |kind| golden(&format!("vanilla.{kind}")).display().to_string();
    let (weights, config) = (golden("model.safetensors"), golden("json"));
    succeeds(dir, &format!("import --from '{weights}' --config '{config}' --out wrong"));
    fails(dir, "eval-pg19 --checkpoint wrong --books books", &["wrong", "tokenizer"]);
    assert!(!dir.join("runs").exists(), "a rejected evaluation leaves no folder");
}

#[test]
fn an_unreachable_server_is_named_with_the_place_to_put_the_books() {
    let dir = prepared(&[]);
    let mut command = command(dir.path(), "eval-pg19 --checkpoint block --download");
    // a proxy that does not answer
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"].iter().for_each(|name| {
        command.env(name, "http://127.0.0.1:9");
    });
    fails_as(&mut command, 1, &["deepmind-gutenberg", "data/downloads/pg19-test", "--books"]);
}

#[test]
fn an_evaluation_is_resumed_only_with_the_same_input() {
    let dir = prepared(&[("1.txt", text(1, 400).as_bytes()), ("2.txt", text(2, 400).as_bytes())]);
    let dir = dir.path();
    let begin = eval("--context 32 --out out");
    succeeds(dir, &begin);
    fails(dir, &begin, &["out", "--resume"]);
    let resume = "eval-pg19 --resume --out out";
    let before = files(&dir.join("out"));
    succeeds(dir, resume);
    assert!(files(&dir.join("out")) == before);
    fails(dir, &format!("{resume} --context 64"), &["--context", "begun with another"]);
    fails(dir, &format!("{resume} --weights int8"), &["--weights", "begun with another"]);
    succeeds(dir, &eval("--context 32 --out narrow --weights int8"));
    succeeds(dir, "eval-pg19 --resume --out narrow --weights int8");
    let loss = |out: &str| std::fs::read_to_string(dir.join(out).join("books.jsonl")).unwrap();
    assert!(loss("narrow") != loss("out"), "the weights are f32 in both");
    fails(dir, "eval-pg19 --resume --out none", &["none", "no evaluation"]);
    let rows = dir.join("out/books.jsonl");
    let whole = std::fs::read_to_string(&rows).unwrap();
    std::fs::write(&rows, whole.replacen("\"tokens\":", "\"tokens\"", 1)).unwrap();
    fails(dir, resume, &["books.jsonl:1", "damaged"]);
    std::fs::write(&rows, whole).unwrap();
    std::fs::write(dir.join("books/2.txt"), text(3, 400)).unwrap();
    fails(dir, resume, &["book 2"]);
    std::fs::write(dir.join("books/2.txt"), text(2, 400)).unwrap();
    std::fs::remove_dir_all(dir.join("block")).unwrap();
    train(dir, "block", "debug-block", 3, "--byte-level");
    fails(dir, resume, &["checkpoint block", "step-000002", "step-000003"]);
}

/// The content of every file in a folder, by name.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .collect()
}

#[test]
fn ten_kills_change_no_byte() {
    let _alone = one_at_a_time();
    let dir = prepared(&[]);
    let dir = dir.path();
    for i in 0..6 {
        let bytes = if i == 1 { 80_000 } else { 3_000 };
        std::fs::write(dir.join(format!("books/{i}.txt")), text(i, bytes)).unwrap();
    }
    let begin = |out| eval(&format!("--checkpoint vanilla --context 64 --out {out}"));
    succeeds(dir, &begin("straight"));

    let out = dir.join("killed");
    let start = |resume: bool| -> Child {
        let again = "eval-pg19 --resume --out killed".into();
        let line = if resume { again } else { begin("killed") };
        command(dir, &line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    // one kill in the middle of a book, which the next process continues
    let mut child = start(false);
    for _ in 0..6000 {
        if out.join("partial.json").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    assert!(was_killed(child.wait().unwrap()));
    let partial = json(&dir.join("killed/partial.json"));
    let windows = partial["tally"]["windows"].as_u64().unwrap();
    assert!(windows > 0);
    // shows that the book is continued and not begun again: a change of its saved sums appears in
    // the results
    let tampered = dir.join("tampered");
    std::fs::create_dir(&tampered).unwrap();
    for (name, content) in files(&out) {
        std::fs::write(tampered.join(name), content).unwrap();
    }
    let text = std::fs::read_to_string(out.join("partial.json")).unwrap();
    let more =
        text.replace(&format!("\"windows\": {windows}"), &format!("\"windows\": {}", windows - 1));
    assert!(more != text);
    std::fs::write(tampered.join("partial.json"), more).unwrap();
    succeeds(dir, "eval-pg19 --resume --out tampered");
    assert!(files(&tampered)["results.json"] != files(&dir.join("straight"))["results.json"]);

    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(19);
    let mut kills = 1;
    while kills < 10 {
        let mut child = start(true);
        std::thread::sleep(Duration::from_millis(rng.random_range(0..600)));
        let _ = child.kill();
        if !was_killed(child.wait().unwrap()) {
            break;
        }
        kills += 1;
        // a line that is cut off in the middle, as a kill during a write leaves it
        let rows = out.join("books.jsonl");
        if let (true, Ok(text)) = (kills == 5, std::fs::read(&rows)) {
            let cut = [&text[..], &text[..text.len().min(40)]].concat();
            std::fs::write(&rows, cut).unwrap();
        }
    }
    assert!(kills > 3, "the evaluation is too short to be killed often");
    assert!(start(true).wait().unwrap().success());
    assert!(files(&dir.join("straight")) == files(&out));
}
