mod ranks;

use super::*;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

fn run(files: &[(&str, &str)]) -> Result<(tempfile::TempDir, PreparedCorpus), String> {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    std::fs::create_dir(&text).unwrap();
    for (name, content) in files {
        std::fs::write(text.join(name), content).unwrap();
    }
    let source = DocumentSource::open(&text).map_err(|e| e.to_string())?;
    let out = dir.path().join("out");
    let prepared = prepare("test", &source, &Tokenizer::Bytes, &out, &mut |_, _| {});
    prepared.map(|prepared| (dir, prepared)).map_err(|e| e.to_string())
}

#[test]
fn a_document_is_in_one_split() {
    let lines: Vec<String> = (0..40).map(|i| format!("{{\"text\": \"document {i}\"}}\n")).collect();
    let (_dir, corpus) = run(&[("a.jsonl", &lines.concat())]).unwrap();
    assert_eq!((corpus.info.train.documents, corpus.info.validation.documents), (38, 2));
    let held_out = corpus.split(Split::Validation).unwrap();
    let mut ids = Vec::new();
    held_out.read(1, 0..held_out.document_len(1), &mut ids);
    assert_eq!(Tokenizer::Bytes.decode(&ids), "document 21");
}

#[test]
fn a_single_document_is_cut_at_a_line_boundary() {
    let text = "line\n".repeat(100);
    let (_dir, corpus) = run(&[("a.txt", &text)]).unwrap();
    assert_eq!((corpus.info.train.bytes, corpus.info.validation.bytes), (475, 25));
    // 25 tokens with ids that occur 95 times each, one EOS that occurs once; each of 258 counts
    // is increased by one
    let likelihood = |count: f64| ((count + 1.0) / (476.0 + 258.0)).ln();
    let expected = -(25.0 * likelihood(95.0) + likelihood(1.0)) / 26.0;
    assert!((corpus.info.frequency_loss - expected).abs() < 1e-12);
}

#[test]
fn an_empty_corpus_is_refused() {
    assert!(run(&[("a.txt", "\n")]).unwrap_err().contains("no text"));
    assert!(run(&[]).unwrap_err().contains("contains no file"));
}

#[test]
fn token_files_of_another_preparation_are_refused() {
    let (dir, corpus) = run(&[("a.txt", &"line\n".repeat(100))]).unwrap();
    let (_other, larger) = run(&[("a.txt", &"line\n".repeat(200))]).unwrap();
    assert!(corpus.split(Split::Train).is_ok() && corpus.tokenizer().is_ok());
    std::fs::copy(larger.dir.join("train.tok"), corpus.dir.join("train.tok")).unwrap();
    let error = corpus.split(Split::Train).err().unwrap().to_string();
    assert!(error.contains("train.tok") && error.contains("corpus.json"), "{error}");
    // a failed preparation leaves neither a complete folder nor temporary files
    let blank = dir.path().join("blank.txt");
    std::fs::write(&blank, "\n").unwrap();
    let source = DocumentSource::open(&blank).unwrap();
    let again = prepare("b", &source, &Tokenizer::Bytes, &corpus.dir, &mut |_, _| {});
    assert!(again.is_err());
    assert!(PreparedCorpus::open(&corpus.dir).is_err());
    let names = std::fs::read_dir(&corpus.dir).unwrap().map(|e| e.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().contains("partial")));
}

/// Three files of documents of different lengths, 11 MB, which are several batches.
fn large(dir: &Path) -> DocumentSource {
    let folder = dir.join("large");
    std::fs::create_dir_all(&folder).unwrap();
    for (file, name) in ["a.jsonl", "b.jsonl", "c.jsonl"].into_iter().enumerate() {
        let document = |i: usize| "a line of text\n".repeat((i * 37 + file) % 1000);
        let lines: Vec<String> =
            (0..500).map(|i| format!("{}\n", serde_json::json!({"text": document(i)}))).collect();
        std::fs::write(folder.join(name), lines.concat()).unwrap();
    }
    DocumentSource::open(&folder).unwrap()
}

fn preparation<'a>(
    source: &'a DocumentSource,
    dir: &'a Path,
    shard_tokens: u64,
) -> Preparation<'a> {
    Preparation { name: "large", source, tokenizer: &Tokenizer::Bytes, dir, shard_tokens }
}

/// The contents of all files in `dir`.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    names.map(|path| (path.file_name().unwrap().into(), std::fs::read(&path).unwrap())).collect()
}

/// The documents of a split.
fn documents(corpus: &PreparedCorpus, split: Split) -> Vec<Vec<u32>> {
    let documents = corpus.split(split).unwrap();
    let read = |i| {
        let mut ids = Vec::new();
        documents.read(i, 0..documents.document_len(i), &mut ids);
        ids
    };
    (0..documents.len()).map(read).collect()
}

#[test]
fn shards_hold_the_documents_of_one_file_whatever_the_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let source = large(dir.path());
    let prepared = |threads, shard_tokens| {
        let out = dir.path().join(format!("{threads}-{shard_tokens}"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| preparation(&source, &out, shard_tokens).run(&mut |_| {})).unwrap()
    };
    let one = prepared(2, SHARD_TOKENS);
    assert!(!one.info.sharded && one.info.order == Order::Listed);
    let names: Vec<PathBuf> = contents(&one.dir).into_keys().collect();
    assert_eq!(
        names,
        ["corpus.json", "tokenizer.json", "train.tok", "validation.tok"].map(PathBuf::from)
    );
    // some shards of 100,000 tokens have no validation document
    for (shard_tokens, threads) in [(1_000_000, 1), (100_000, 5)] {
        let many = prepared(2, shard_tokens);
        assert!(many.info.sharded && many.info.order == Order::Streamed);
        for split in Split::ALL {
            assert_eq!(documents(&one, split), documents(&many, split));
        }
        assert_eq!(one.info.frequency_loss, many.info.frequency_loss);
        assert!(contents(&prepared(threads, shard_tokens).dir) == contents(&many.dir));
    }
}

#[test]
fn a_killed_preparation_continues_and_ends_with_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let source = large(dir.path());
    let (straight, killed) = (dir.path().join("straight"), dir.path().join("killed"));
    preparation(&source, &straight, 700_000).run(&mut |_| {}).unwrap();
    // a panic leaves the files of finished shards, as a kill does
    let mut continued = Vec::new();
    for kill_at in [1, 1, usize::MAX] {
        let mut calls = 0;
        let run = || {
            preparation(&source, &killed, 700_000).run(&mut |at| {
                if calls == 0 {
                    continued.push(at.continued);
                }
                assert!(calls < kill_at, "killed");
                calls += 1;
            })
        };
        let ended = catch_unwind(AssertUnwindSafe(run));
        assert_eq!(ended.is_ok(), kill_at == usize::MAX);
        assert_eq!(PreparedCorpus::exists(&killed), ended.is_ok());
        if let Ok(ended) = ended {
            ended.unwrap();
        }
    }
    assert!(continued[0] == 0 && continued[1] > 0 && continued[2] > continued[1], "{continued:?}");
    assert!(contents(&straight) == contents(&killed));
}

#[test]
fn an_unfinished_preparation_of_something_else_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let source = large(dir.path());
    let out = dir.path().join("out");
    let mut calls = 0;
    let kill = catch_unwind(AssertUnwindSafe(|| {
        preparation(&source, &out, 700_000).run(&mut |_| {
            assert!(calls == 0, "killed");
            calls += 1;
        })
    }));
    assert!(kill.is_err());
    let before = contents(&out);
    let refused = |preparation: Preparation<'_>| {
        let error = preparation.run(&mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("unfinished") && error.contains("out"), "{error}");
        assert!(contents(&out) == before);
        error
    };
    let this = preparation(&source, &out, 700_000);
    assert!(refused(Preparation { shard_tokens: 9, ..this }).contains("shards of 700000, not 9"));
    let bpe = Tokenizer::train_bpe(["a b c".to_string()].into_iter(), 258).unwrap();
    assert!(refused(Preparation { tokenizer: &bpe, ..this }).contains("another tokenizer"));
    let options = crate::ReadOptions { text_key: "body".into(), ..source.options().clone() };
    let other = source.clone().with_options(options);
    assert!(refused(Preparation { source: &other, ..this }).contains("text key text, not body"));
    let less = DocumentSource::open(&source.files()[0]).unwrap();
    assert!(refused(Preparation { source: &less, ..this }).contains("3 files, not 1"));
    // a journal that was changed
    for (from, to) in [
        ("\"version\": 1", "\"version\": 2"),
        ("train.tok", "../train.tok"),
        ("train-00001.tok", "train-00002.tok"),
        ("\"file\": 2", "\"file\": 9"),
        ("\"frequencies\": [", "\"frequencies\": [7, "),
        ("\"sizes\"", "\"size\""),
    ] {
        let path = out.join(JOURNAL);
        let journal = std::fs::read_to_string(&path).unwrap();
        let changed = journal.replacen(from, to, 1);
        assert!(journal != changed, "{from}");
        std::fs::write(&path, changed).unwrap();
        let error = this.run(&mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(JOURNAL), "{error}");
        std::fs::write(&path, journal).unwrap();
    }
    std::fs::write(&source.files()[2], "{\"text\": \"another text\"}\n").unwrap();
    assert!(refused(this).contains("c.jsonl has changed"));
}

/// A change of an index of shards, and a word of the error.
type Change<'a> = (&'a dyn Fn(&mut serde_json::Value), &'a str);

#[test]
fn an_index_that_does_not_fit_its_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = large(dir.path());
    let out = dir.path().join("out");
    let corpus = preparation(&source, &out, 2_000_000).run(&mut |_| {}).unwrap();
    let index = std::fs::read_to_string(out.join(INDEX)).unwrap();
    std::fs::copy(out.join("train.tok"), dir.path().join("outside.tok")).unwrap();
    let absolute = dir.path().join("outside.tok").display().to_string();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&absolute, out.join("link.tok")).unwrap();
    let file = |name: &str| {
        let name = name.to_string();
        move |index: &mut serde_json::Value| index["train"][0]["file"] = name.clone().into()
    };
    let (up, absolute, dot) = (file("../outside.tok"), file(&absolute), file("."));
    let (inside, empty, missing) = (file("a/../train.tok"), file(""), file("lost.tok"));
    let link = file("link.tok");
    let changes: [Change<'_>; 15] = [
        (&up, "train[0].file = \"../outside.tok\" is not the name of a file"),
        (&absolute, "is not the name of a file"),
        (&dot, "is not the name of a file"),
        (&inside, "is not the name of a file"),
        (&empty, "is not the name of a file"),
        (&missing, "lost.tok"),
        (&link, "train[0].file leads out of the folder"),
        (&|index| index["train"][1]["bytes"] = 7.into(), "train[1].bytes = 7"),
        (&|index| index["train"][1]["tokens"] = u64::MAX.into(), "train[1].tokens"),
        (&|index| index["train"][1]["tokens"] = 5.into(), "index.json records"),
        (&|index| index["train"][1]["documents"] = u64::MAX.into(), "train[1].tokens"),
        (&|index| index["train"] = vec![index["train"][0].clone(); 20_000].into(), "20000 shards"),
        (&|index| index["train"] = serde_json::json!([]), "0 documents of 0 tokens"),
        (&|index| index["version"] = 2.into(), "version 2"),
        (&|index| index["extra"] = 2.into(), "unknown field"),
    ];
    for (change, says) in changes {
        let mut changed: serde_json::Value = serde_json::from_str(&index).unwrap();
        change(&mut changed);
        std::fs::write(out.join(INDEX), changed.to_string()).unwrap();
        let error = corpus.split(Split::Train).err().unwrap();
        let error = format!("{error}");
        assert!(error.contains(says) && error.contains("out"), "{says}: {error}");
    }
    std::fs::write(out.join(INDEX), vec![b' '; 17 << 20]).unwrap();
    assert!(corpus.split(Split::Train).err().unwrap().to_string().contains("the limit is"));
    std::fs::write(out.join(INDEX), &index).unwrap();
    assert!(corpus.split(Split::Train).is_ok());
    // a changed byte of a shard
    let path = out.join("train-00002.tok");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = corpus.split(Split::Train).err().unwrap().to_string();
    assert!(error.contains("train-00002.tok: checksums differ"), "{error}");
}

#[test]
fn an_earlier_sharded_corpus_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let source = large(dir.path());
    let out = dir.path().join("out");
    preparation(&source, &out, 700_000).run(&mut |_| {}).unwrap();
    preparation(&source, &out, SHARD_TOKENS).run(&mut |_| {}).unwrap();
    assert_eq!(contents(&out).len(), 4);
}

#[test]
fn a_description_of_gigabytes_is_refused_before_it_is_read() {
    let (_dir, corpus) = run(&[("a.txt", "one\n\ntwo\n")]).unwrap();
    let path = corpus.dir.join("corpus.json");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(8 << 30).unwrap();
    let error = PreparedCorpus::open(&corpus.dir).unwrap_err().to_string();
    assert!(error.contains("corpus.json: 8589934592 bytes; the limit is 4194304"), "{error}");
}
