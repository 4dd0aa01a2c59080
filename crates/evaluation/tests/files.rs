//! Errors about invalid task files name the file and the line.

use std::fs;
use std::path::Path;

use block_transformer_evaluation::tasks::{Item, Task};
use tempfile::TempDir;

const MADE_UP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/made-up");

/// A copy of the made-up files.
fn files() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for task in Task::ALL {
        for file in task.files() {
            fs::copy(Path::new(MADE_UP).join(file.name), dir.path().join(file.name)).unwrap();
        }
    }
    dir
}

fn load(dir: &Path, task: Task) -> Result<usize, String> {
    task.load(dir, None).map(|items| items.len()).map_err(|e| e.to_string())
}

/// The error after `change` to the first file of a task.
fn error(task: Task, change: impl FnOnce(String) -> Vec<u8>) -> String {
    let dir = files();
    let path = dir.path().join(task.files()[0].name);
    fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
    load(dir.path(), task).unwrap_err()
}

#[test]
fn valid_files_are_read() {
    let dir = files();
    let counts: Vec<usize> = Task::ALL.map(|task| load(dir.path(), task).unwrap()).into();
    assert_eq!(counts, [5, 4, 4, 5, 2, 4, 3]);
    for task in Task::ALL {
        let first = task.load(dir.path(), Some(1)).unwrap();
        assert_eq!(first, task.load(dir.path(), None).unwrap()[..1]);
    }
}

#[test]
fn broken_lines_are_named() {
    for task in [Task::HellaSwag, Task::Piqa, Task::ArcEasy, Task::Lambada, Task::Winogrande] {
        let cut = |text: String| {
            let mut lines: Vec<&str> = text.lines().collect();
            lines[2] = &lines[2][..10];
            // an empty line counts as a line, and is not an item
            lines.insert(1, "");
            lines.join("\n").into_bytes()
        };
        let error = error(task, cut);
        assert!(error.contains(&format!("{}:4: ", task.files()[0].name)), "{error}");
    }
    for task in [Task::Lambada, Task::Wikitext] {
        let error = error(task, |text| [text.as_bytes(), b"caf\xe9\n"].concat());
        let line = if task == Task::Lambada { 6 } else { 17 };
        assert!(error.contains(&format!(":{line}: not UTF-8")), "{error}");
    }
}

#[test]
fn invalid_items_are_named() {
    for (task, from, to, says) in [
        (Task::HellaSwag, "ctx_a", "ctx", ".jsonl:1: missing field `ctx_a`"),
        (Task::ArcEasy, "gold", "label", ".jsonl:1: missing field `gold`"),
        (
            Task::HellaSwag,
            "\"label\": 3",
            "\"label\": 4",
            ":5: the correct option is number 4 (counted from 0), and there are 4 options",
        ),
        (Task::Winogrande, "_", "it", ":1: the sentence has no blank"),
        (Task::Winogrande, "\"1\"", "\"\"", ":1: the answer must be 1 or 2"),
        (Task::ArcEasy, "Key\": \"C", "Key\": \"D", ":4: answerKey \"D\""),
        (Task::Piqa, "\"a\"", "\"\"", ":4: an option is empty"),
        (Task::Sciq, "distractor2", "distractor", ".json:9: missing field `distractor2`"),
        (Task::Sciq, "\"litre\"", "\"\"", "item 2: an option is empty"),
    ] {
        let error = error(task, |text| text.replacen(from, to, 1).into());
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn labels_that_do_not_match_their_questions_are_named() {
    let dir = files();
    let labels = dir.path().join("piqa_valid-labels.lst");
    for (text, says) in [
        ("0\n1\n0\n", "piqa_valid.jsonl:4: no label"),
        ("0\n1\n0\n1\n1\n", "labels.lst: 1 more labels"),
        ("0\n1\n2\n1\n", "labels.lst:3: a label must be 0 or 1, not \"2\""),
    ] {
        fs::write(&labels, text).unwrap();
        let error = load(dir.path(), Task::Piqa).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    fs::write(&labels, "0\n1\n0\n").unwrap();
    assert_eq!(Task::Piqa.load(dir.path(), Some(3)).unwrap().len(), 3);
}

#[test]
fn empty_and_missing_files_are_named() {
    for task in Task::ALL {
        let none = error(task, |_| Vec::new());
        assert!(none.contains(task.files()[0].name), "{none}");
        let dir = files();
        fs::remove_file(dir.path().join(task.files()[0].name)).unwrap();
        assert!(load(dir.path(), task).unwrap_err().contains(task.files()[0].name));
    }
}

#[test]
fn published_questions_of_arc_are_read_too() {
    let dir = files();
    let items = Task::ArcEasy.load(dir.path(), None).unwrap();
    let Item::Choice { options, gold } = &items[3] else { panic!("a question") };
    assert_eq!((options.len(), *gold), (3, 2));
    assert_eq!(options[2].continuation, " the Sun");
}
