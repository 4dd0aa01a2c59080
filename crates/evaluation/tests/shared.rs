//! Evaluations that several ranks share, which are threads here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use block_transformer_checkpoint::{Checkpoint, Contents, State};
use block_transformer_collectives::{Alone, Collective, Replica};
use block_transformer_evaluation::documents::{
    Book, BookRow, DocumentEvaluation, DocumentSettings, Measures, Observer, OpenCheckpoints,
    Windows,
};
use block_transformer_evaluation::tasks::{
    EncodedTask, Item, Prompt, SessionInput, Task, TaskSession,
};
use block_transformer_evaluation::{EvalError, Scorer};
use block_transformer_testing::{model, shape};
use block_transformer_text::Tokenizer;
use block_transformer_zoo::{FamilyConfig, LanguageModel, ModelConfig, Precision};
use burn::tensor::Device;
use serde_json::Value;

/// The results of `size` ranks.
fn on_ranks<T: Send>(size: usize, run: impl Fn(Replica) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = Replica::on_host(size)
            .into_iter()
            .map(|replica| scope.spawn(move || run(replica)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A model for the tokenizer of bytes.
fn byte_model(name: &str) -> (ModelConfig, LanguageModel) {
    let config = shape(name).with_vocab_size(258);
    let model = model(&config, &Device::flex());
    (config, model)
}

/// Questions of different lengths, which are many batches.
fn task() -> EncodedTask {
    let prompt = |i: usize, end: &str| Prompt {
        context: "word ".repeat(1 + i % 5),
        continuation: format!(" {end} {i}"),
    };
    let options = |i| vec![prompt(i, "yes"), prompt(i, "no, never")];
    let items: Vec<Item> =
        (0..23).map(|i| Item::Choice { options: options(i), gold: i % 2 }).collect();
    EncodedTask::new(Task::Piqa, items, &Tokenizer::Bytes, 48).unwrap()
}

/// The scores of batches, without their times.
fn scores(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("scores.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|mut row| {
        row.as_object_mut().unwrap().remove("seconds").unwrap();
        row
    })
    .collect()
}

#[test]
fn tasks_have_the_scores_of_one_rank_also_resumed_on_another_number() {
    let dir = tempfile::tempdir().unwrap();
    let (_, model) = byte_model("prefix");
    let scorer = || Scorer::new(&model).with_context(48).unwrap().with_batch_tokens(100).unwrap();
    let run = |ranks: Arc<dyn Collective>, out: &str, resume: bool| {
        let (weights, tasks) = ("same".to_string(), [task()]);
        let input = SessionInput { settings: Value::Null, weights, tokenizer: 1 };
        let out = dir.path().join(out);
        let mut session = TaskSession::begin_on(ranks, Some(&out), input, &tasks, resume).unwrap();
        session.evaluate(&tasks[0], &scorer(), &mut |_, _| ()).unwrap().evaluation
    };
    let one = run(Arc::new(Alone), "one", false);
    let expected = scores(&dir.path().join("one"));
    assert!(expected.len() > 9, "{}", expected.len());
    for evaluation in on_ranks(3, |replica| run(Arc::new(replica), "three", false)) {
        assert_eq!(evaluation, one);
    }
    assert_eq!(scores(&dir.path().join("three")), expected);
    // a kill leaves the first batches
    let file = dir.path().join("three/scores.jsonl");
    let whole = std::fs::read_to_string(&file).unwrap();
    let part: Vec<&str> = whole.split_inclusive('\n').take(4).collect();
    for size in [1, 2, 3] {
        std::fs::write(&file, part.concat()).unwrap();
        for evaluation in on_ranks(size, |replica| run(Arc::new(replica), "three", true)) {
            assert_eq!(evaluation, one);
        }
        assert_eq!(scores(&dir.path().join("three")), expected);
    }
}

#[test]
fn ranks_with_other_input_are_named() {
    let results = on_ranks(3, |replica| {
        let weights = if replica.rank() == 2 { "b" } else { "a" };
        let input = SessionInput { settings: Value::Null, weights: weights.into(), tokenizer: 1 };
        TaskSession::begin_on(Arc::new(replica), None, input, &[task()], false).err().unwrap()
    });
    for error in results {
        let text = error.to_string();
        assert!(error.is_of_all_ranks(), "{text}");
        assert!(text.contains("the checkpoint") && text.contains("rank 2"), "{text}");
    }
}

/// Stops the evaluation after a number of batches, as a kill does.
struct StopAfter(usize);

impl Observer for StopAfter {
    fn batch(&mut self, _: usize, done: u64, total: u64) {
        assert!(done <= total);
        assert!(self.0 > 0, "stopped");
        self.0 -= 1;
    }

    fn book(&mut self, _: &BookRow) {}
}

/// Two checkpoints and books of different lengths, one of them without text.
fn prepared(dir: &Path) -> (OpenCheckpoints, Vec<Book>) {
    let mut checkpoints = Vec::new();
    for name in ["prefix", "vanilla"] {
        let (config, model) = byte_model(name);
        let contents = Contents {
            model: &model,
            config: &config,
            tokenizer: &Tokenizer::Bytes,
            optimizer: None,
            state: &State::default(),
            unused: &Default::default(),
        };
        checkpoints.push(dir.join(name));
        Checkpoint::write(&checkpoints[checkpoints.len() - 1], &contents).unwrap();
    }
    let books = dir.join("books");
    std::fs::create_dir(&books).unwrap();
    for (i, bytes) in [250, 700, 0, 130].into_iter().enumerate() {
        let text: String = (0..bytes / 4).map(|n| format!("{:03} ", n * 7 % 997)).collect();
        std::fs::write(books.join(format!("{i}.txt")), text).unwrap();
    }
    (OpenCheckpoints::open(&checkpoints).unwrap(), Book::list(&books).unwrap())
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let name = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    entries.map(|entry| (name(&entry), std::fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn books_have_the_files_of_one_rank_also_resumed_on_another_number() {
    let dir = tempfile::tempdir().unwrap();
    let (checkpoints, books) = prepared(dir.path());
    let settings = DocumentSettings {
        checkpoints: Vec::new(),
        books: None,
        limit: None,
        measures: Measures {
            windows: Windows { context: 32, stride: 20 },
            documents: true,
            batch: 2,
        },
        precision: Precision::default(),
    };
    let run = |ranks: &dyn Collective, out: &str, resume, stop| -> Result<String, EvalError> {
        let evaluation = DocumentEvaluation {
            settings: &settings,
            checkpoints: &checkpoints,
            books: &books,
            out: &dir.path().join(out),
            resume,
            device: &Device::flex(),
            ranks,
        };
        evaluation.run(&mut StopAfter(stop)).map(|report| report.markdown())
    };
    let report = run(&Alone, "one", false, usize::MAX).unwrap();
    let expected = files(&dir.path().join("one"));
    assert!(expected.contains_key("books.jsonl") && !expected.contains_key("partial.json"));
    for size in [2, 3, 7] {
        let out = format!("{size}");
        for other in on_ranks(size, |replica| run(&replica, &out, false, usize::MAX).unwrap()) {
            assert_eq!(other, report);
        }
        assert!(files(&dir.path().join(out)) == expected, "{size} ranks");
    }
    // kills on other numbers of ranks
    for (i, (size, stop)) in
        [(3, 4), (2, 9), (1, 6), (3, 20), (2, usize::MAX)].into_iter().enumerate()
    {
        let ended = on_ranks(size, |replica| {
            // the others end with an error, because rank 0 leaves
            let stop = if replica.rank() == 0 { stop } else { usize::MAX };
            let run = || run(&replica, "killed", i > 0, stop).is_ok();
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(false)
        });
        assert_eq!(ended, vec![stop == usize::MAX; size]);
    }
    assert!(files(&dir.path().join("killed")) == expected);
}
