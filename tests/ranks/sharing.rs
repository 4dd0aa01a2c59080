//! Evaluations and preparations that are shared by rank write what one rank writes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::job::{ends_promptly, fails, job, ranks_of, signal, start, succeeds, text, wait_for};
use crate::support::{self, TINY, json, one_at_a_time, with_text};

/// The contents of the files in `dir`, by name.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let name = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    files.map(|entry| (name(&entry), std::fs::read(entry.path()).unwrap())).collect()
}

/// Asserts that two folders have the same files.
fn same_files(one: &Path, other: &Path) {
    let (one, other) = (files(one), files(other));
    assert!(one.keys().eq(other.keys()), "{:?}, {:?}", one.keys(), other.keys());
    for (name, content) in &one {
        assert!(*content == other[name], "{name} differs");
    }
}

/// Starts a job of three ranks, and kills rank `victim` once `path` exists.
fn killed(dir: &Path, line: &str, path: &Path, victim: usize) {
    let child = start(job(dir, 3, line));
    wait_for(path);
    let ranks = ranks_of(&child);
    assert_eq!(ranks.len(), 3, "it has ended before it could be killed");
    signal(ranks[victim], "-KILL");
    let output = ends_promptly(child);
    assert!(!output.status.success(), "{}", text(&output.stderr));
}

/// A text of `lines` lines, which is different for each seed.
fn lines(seed: usize, lines: usize) -> String {
    let line =
        |i: usize| format!("line {} of the text number {seed}\n", (i * 7919 + seed) % 10_007);
    (0..lines).map(line).collect()
}

/// A folder with the checkpoints `block` and `vanilla`.
fn with_checkpoints() -> TempDir {
    let dir = with_text();
    for preset in ["block", "vanilla"] {
        let line = TINY.replace("debug-block", &format!("debug-{preset}"));
        support::succeeds(dir.path(), &format!("{line} --steps 2 --out {preset}"));
    }
    dir
}

#[test]
fn books_are_shared_with_the_files_of_one_rank() {
    let _alone = one_at_a_time();
    let dir = with_checkpoints();
    let dir = dir.path();
    std::fs::create_dir(dir.join("books")).unwrap();
    for (book, count) in [900, 0, 2_400, 1, 1_500].into_iter().enumerate() {
        std::fs::write(dir.join(format!("books/{book}.txt")), lines(book, count)).unwrap();
    }
    let line = |out: &str| {
        format!(
            "eval-pg19 --checkpoint block --checkpoint vanilla --books books --context 64 --batch 4 --out {out}"
        )
    };
    let one = support::succeeds(dir, &line("one"));
    let three = succeeds(job(dir, 3, &line("three")));
    assert_eq!(three.replace("three/", "one/"), one, "rank 0 speaks for all");
    same_files(&dir.join("one"), &dir.join("three"));

    killed(dir, &line("killed"), &dir.join("killed/books.jsonl"), 1);
    assert!(!dir.join("killed/results.json").exists());
    succeeds(job(dir, 2, "eval-pg19 --resume --out killed"));
    same_files(&dir.join("one"), &dir.join("killed"));
    fails(job(dir, 2, &line("killed")), &["--resume"]);
}

#[test]
fn items_are_shared_with_the_scores_of_one_rank() {
    let _alone = one_at_a_time();
    let dir = with_checkpoints();
    let dir = dir.path();
    let item =
        |i: usize| format!("{{\"text\": \"{} the word {}\"}}\n", "long ".repeat(i % 5), i * 7);
    let items: String = (0..1200).map(item).collect();
    std::fs::write(dir.join("lambada_test.jsonl"), items).unwrap();
    let line = |out: &str| {
        format!(
            "eval --checkpoint block --checkpoint vanilla --tasks lambada,needle --haystack text.txt --corpus text.txt \
             --data . --context 256 --needle-lengths 64 --needle-depths 0,50 --needle-samples 2 --batch-tokens 256 \
             --items {out}.jsonl --out {out}"
        )
    };
    support::succeeds(dir, &line("one"));
    succeeds(job(dir, 3, &line("three")));
    killed(dir, &line("killed"), &dir.join("killed/block/scores.jsonl"), 2);
    assert!(!dir.join("killed/vanilla/results.json").exists());
    succeeds(job(dir, 2, "eval --resume --out killed"));
    // the file of items and the times are other ones
    let timeless = |mut value: Value| {
        for task in value["tasks"].as_object_mut().unwrap().values_mut() {
            assert!(task.as_object_mut().unwrap().remove("seconds").is_some());
        }
        value
    };
    let results =
        |out: &str, name: &str| timeless(json(&dir.join(out).join(name).join("results.json")));
    let read = |file: &str| std::fs::read(dir.join(file)).unwrap();
    for out in ["three", "killed"] {
        assert!(read(&format!("{out}.jsonl")) == read("one.jsonl"), "{out}");
        for file in ["needle.md", "needle.csv", "needle.svg", "block/documents.csv"] {
            assert!(read(&format!("{out}/{file}")) == read(&format!("one/{file}")), "{out}/{file}");
        }
        for name in ["block", "vanilla"] {
            assert_eq!(results(out, name), results("one", name), "{out}/{name}");
        }
    }
}

#[test]
fn documents_are_shared_with_the_corpus_of_one_rank() {
    let _alone = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("texts")).unwrap();
    for text in 0..60 {
        std::fs::write(dir.join(format!("texts/{text:02}.txt")), lines(text, 3_000)).unwrap();
    }
    let row = |i: usize| format!("{}\n", serde_json::json!({ "text": lines(i, i % 40) }));
    let rows: String = (0..2_000).map(row).collect();
    std::fs::write(dir.join("rows.jsonl"), rows).unwrap();
    let line = |out: &str| {
        format!(
            "prepare --corpus texts rows.jsonl --vocab-size 300 --shard-tokens 300000 --out {out}"
        )
    };
    let one = support::succeeds(dir, &line("one"));
    let three = succeeds(job(dir, 3, &line("three")));
    assert_eq!(three.replace("in three", "in one"), one, "rank 0 speaks for all");
    same_files(&dir.join("one"), &dir.join("three"));

    killed(dir, &line("killed"), &dir.join("killed/unfinished.json"), 2);
    succeeds(job(dir, 2, &line("killed")));
    same_files(&dir.join("one"), &dir.join("killed"));
    fails(job(dir, 2, &line("one")), &["--out one", "already"]);
}

#[test]
fn ranks_with_other_books_items_or_documents_end_with_one_line() {
    let dir = with_checkpoints();
    let dir = dir.path();
    std::fs::write(dir.join("lambada_test.jsonl"), "{\"text\": \"a word\"}\n").unwrap();
    for (folder, seed) in [("a", 1), ("b", 2)] {
        let folder = dir.join(folder);
        std::fs::create_dir_all(folder.join("books")).unwrap();
        std::fs::write(folder.join("books/1.txt"), lines(seed, 50 * seed)).unwrap();
        let item = format!("{{\"text\": \"a word {seed}\"}}\n");
        std::fs::write(folder.join("lambada_test.jsonl"), item).unwrap();
    }
    let script = "if [ $OMPI_COMM_WORLD_RANK = 1 ]; then cd b; else cd a; fi; exec \"$@\"";
    for (line, says) in [
        ("eval-pg19 --checkpoint ../block --books books --context 32", "the books"),
        ("eval --checkpoint ../block --tasks lambada --data .", "the items"),
        ("prepare --corpus books --byte-level", "the files"),
    ] {
        let line = format!("{line} --out {}", dir.join("out").display());
        fails(crate::job::scripted(dir, 2, script, &line), &[says, "rank 1"]);
        let left = files_below(&dir.join("out"));
        assert!(left.is_empty(), "{says}: {left:?}");
    }
}

/// The names of the files in a folder that may not exist.
fn files_below(dir: &Path) -> Vec<String> {
    if dir.exists() { files(dir).into_keys().collect() } else { Vec::new() }
}
