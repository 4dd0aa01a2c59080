//! `prepare` of many files that is killed, and `train` on mixtures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::support::{command, fails, json, succeeds, was_killed, with_text};

/// Writes three JSONL files of 10 MB each into the folder `large`.
fn write_large(dir: &Path) {
    let folder = dir.join("large");
    std::fs::create_dir(&folder).unwrap();
    for file in 0..3 {
        let text = |i: usize| format!("line {i} of file {file}, ").repeat(1 + i * 37 % 700);
        let lines: String = (0..1500).map(|i| format!("{{\"body\": \"{}\"}}\n", text(i))).collect();
        std::fs::write(folder.join(format!("{file}.jsonl")), lines).unwrap();
    }
}

/// The contents of all files in `dir`.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.file_name().unwrap().into(), std::fs::read(&path).unwrap())).collect()
}

const LARGE: &str =
    "prepare --corpus 'large/*.jsonl' --text-key body --byte-level --shard-tokens 1000000";

#[test]
fn a_killed_preparation_continues_and_ends_with_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_large(dir);
    succeeds(dir, &format!("{LARGE} --out straight"));
    let line = format!("{LARGE} --out killed");
    let journal = || std::fs::read(dir.join("killed/unfinished.json")).ok();
    let mut kills = 0;
    let last = loop {
        let before = journal();
        let mut command = command(dir, &line);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // until it has finished a shard
        while child.try_wait().unwrap().is_none() && journal() == before {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        assert!(was_killed(output.status) || output.status.success(), "{output:?}");
        if dir.join("killed/corpus.json").exists() {
            break String::from_utf8_lossy(&output.stderr).into_owned();
        }
        kills += 1;
    };
    assert!(kills >= 2 && last.contains("continuing after"), "{kills} kills: {last}");
    // a kill can come after `corpus.json`, and before the journal is removed
    let _ = std::fs::remove_file(dir.join("killed/unfinished.json"));
    assert!(contents(&dir.join("straight")) == contents(&dir.join("killed")));
    assert!(contents(&dir.join("straight")).len() > 30);
    // a source that changes in between
    let mut command = command(dir, &format!("{LARGE} --out changed"));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while child.try_wait().unwrap().is_none() && !dir.join("changed/unfinished.json").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    if was_killed(child.wait().unwrap()) {
        std::fs::write(dir.join("large/2.jsonl"), "{\"body\": \"other text\"}\n").unwrap();
        fails(dir, &format!("{LARGE} --out changed"), &["2.jsonl has changed", "--out"]);
    }
}

#[test]
fn errors_of_files_name_the_flag_and_write_nothing() {
    let dir = with_text();
    let dir = dir.path();
    std::fs::write(dir.join("a.jsonl"), "{\"text\": \"a long document\"}\n").unwrap();
    std::fs::write(dir.join("a.parquet"), "PAR1 and so on").unwrap();
    std::fs::write(dir.join("a.txt.gz"), "text").unwrap();
    for (corpus, says) in [
        ("'*.pdf'", &["*.pdf: it matches no file", "--corpus"][..]),
        ("a.jsonl --text-key body", &["a.jsonl:1", "\"body\""]),
        ("a.jsonl --max-document 10B", &["a.jsonl:1", "10 bytes", "--max-document"]),
        ("a.parquet", &["a.parquet: cannot be read as Parquet"]),
        ("a.txt.gz", &["a.txt.gz"]),
        ("text.txt --shard-tokens 0", &["--shard-tokens"]),
        ("text.txt lost.txt", &["lost.txt"]),
    ] {
        let line = format!("prepare --corpus {corpus} --byte-level --out out");
        if corpus.ends_with(" 0") {
            crate::support::fails_as(&mut command(dir, &line), 2, says);
        } else {
            fails(dir, &line, says);
        }
        assert!(!dir.join("out").exists(), "{corpus}");
    }
    let said = succeeds(dir, "prepare --corpus text.txt a.jsonl --byte-level --out out");
    assert!(said.contains("1 + 1 documents"), "{said}");
}

#[test]
fn a_mixture_trains_and_continues_bit_for_bit() {
    let dir = with_text();
    let dir = dir.path();
    let words: String = (0..4000).map(|i| format!("word {} ", i * i % 97)).collect();
    std::fs::write(dir.join("words.txt"), words).unwrap();
    succeeds(dir, "prepare --corpus text.txt --byte-level --out lines");
    succeeds(dir, "prepare --corpus words.txt --byte-level --shard-tokens 9000 --out words");
    let begin = "train --preset debug-block --data lines=0.7 --data words=0.3 --context 32 --batch 2 \
                 --steps 20 --checkpoint-every 10 --validate-every 10 --plain";
    let said = succeeds(dir, &format!("{begin} --out straight"));
    assert!(said.contains("70.0% of the windows: corpus text"), "{said}");
    assert!(said.contains("(text ") && said.contains(", words "), "{said}");
    // the second half again
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
            std::fs::copy(&entry, to.join(entry.file_name().unwrap())).unwrap();
        }
    };
    let (straight, half) = (dir.join("straight"), dir.join("half"));
    let checkpoint = "checkpoints/step-000010";
    std::fs::create_dir_all(&half).unwrap();
    std::fs::copy(straight.join("train.toml"), half.join("train.toml")).unwrap();
    std::fs::copy(straight.join("metrics.jsonl"), half.join("metrics.jsonl")).unwrap();
    copy(&straight.join(checkpoint), &half.join(checkpoint));
    let said = succeeds(dir, "train --resume --plain --out half");
    assert!(said.contains("resuming after step 10 of 20"), "{said}");
    let model = |run: &Path| std::fs::read(run.join("checkpoints/step-000020/model.bpk")).unwrap();
    assert!(model(&straight) == model(&half));
    // the state has both corpora, and the run neither other weights nor other corpora
    let state = json(&half.join(checkpoint).join("state.json"));
    assert_eq!(state["corpus"].as_array().map(Vec::len), Some(2));
    let other = "train --resume --data lines=0.5 --data words=0.5 --out half";
    fails(dir, other, &["--resume: --data", "lines=0.5", "lines=0.7"]);
    std::fs::write(dir.join("more.txt"), "another text\n".repeat(2000)).unwrap();
    std::fs::remove_dir_all(dir.join("words")).unwrap();
    succeeds(dir, "prepare --corpus more.txt --byte-level --out words");
    fails(dir, "train --resume --out half", &["different corpus"]);
    // one source is the corpus itself
    let one = "--context 32 --batch 2 --steps 5 --plain";
    succeeds(dir, &format!("train --preset debug-block --data lines=3 {one} --out a"));
    succeeds(dir, &format!("train --preset debug-block --corpus lines {one} --out b"));
    let model =
        |run: &str| std::fs::read(dir.join(run).join("checkpoints/step-000005/model.bpk")).unwrap();
    assert!(model("a") == model("b"));
}

#[test]
fn mixtures_that_cannot_be_trained_on_are_refused() {
    let dir = with_text();
    let dir = dir.path();
    succeeds(dir, "prepare --corpus text.txt --byte-level --out bytes");
    succeeds(dir, "prepare --corpus text.txt --vocab-size 300 --out bpe");
    let train = "train --preset debug-block --steps 1 --out run";
    for (flags, says) in [
        ("--data bytes=1 --data bpe=1", &["--data", "bytes and bpe", "different tokenizers"][..]),
        ("--data bytes=1 --data lost=1", &["--data lost: not a prepared folder", "prepare"]),
        ("--data bytes=1 --data bytes=0", &["--data bytes=0: must be", "positive"]),
        ("--data bytes=1 --data bytes=1e-9", &["--data: bytes", "1/65536"]),
        ("--data bytes=1 --corpus bpe", &["--data bytes=1", "--corpus bpe"]),
        ("--data bytes=1 --byte-level", &["--data bytes=1: a prepared corpus has its tokenizer"]),
        ("--data a --data b", &["--data b", "only one folder"]),
    ] {
        fails(dir, &format!("{train} {flags}"), says);
        assert!(!dir.join("run").exists(), "{flags}");
    }
    // a mixture in a file, and `--corpus` in its place
    std::fs::write(dir.join("run.toml"), "mixture = [\"bytes=1\", \"bytes=2\"]\n").unwrap();
    let printed = succeeds(dir, &format!("{train} --config run.toml --print-config"));
    assert!(printed.contains("mixture = [\"bytes=1\", \"bytes=2\"]"), "{printed}");
    let printed = succeeds(dir, &format!("{train} --config run.toml --corpus bpe --print-config"));
    assert!(printed.contains("mixture = []") && printed.contains("corpus = \"bpe\""), "{printed}");
    std::fs::write(dir.join("bad.toml"), "corpus = \"bpe\"\nmixture = [\"bytes=1\"]\n").unwrap();
    fails(dir, &format!("{train} --config bad.toml"), &["bad.toml: mixture", "corpus"]);
}
