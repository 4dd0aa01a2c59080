//! Files of evaluation tasks.

use block_transformer_evaluation::tasks::{Item, OwnTask, Task};

use crate::scratch::{Scratch, said};

const LINES: &str = r#"{"question": "What?", "options": ["a", "b"], "answer": 1, "target": "c"}
{"question": "Who?", "options": ["a", "b"], "answer": "a", "target": 3}
"#;

/// A TOML file of tasks. Their items are read from a file `a.jsonl` beside it.
pub(crate) fn task_toml(bytes: &[u8]) -> bool {
    let scratch = Scratch::new(&[("a.jsonl", LINES.as_bytes()), ("tasks.toml", bytes)]);
    let tasks = scratch.named(OwnTask::read(&scratch.path("tasks.toml")));
    for task in tasks.iter().flatten() {
        // the data of a task can be anywhere
        let items = task.load(Some(10)).map_err(|error| said(&error));
        check(&items.unwrap_or_default());
    }
    scratch.unchanged();
    tasks.is_some()
}

/// The file of a task of the harness; the first byte selects the task.
pub(crate) fn task_lines(bytes: &[u8]) -> bool {
    let Some((kind, content)) = bytes.split_first() else { return false };
    let task = Task::ALL[usize::from(*kind) % Task::ALL.len()];
    let mut scratch = Scratch::new(&[(task.files()[0].name, content)]);
    for other in &task.files()[1..] {
        scratch.put(other.name, b"0\n1\n");
    }
    let items = scratch.named(task.load(scratch.dir(), None));
    check(items.as_deref().unwrap_or_default());
    scratch.unchanged();
    items.is_some()
}

/// The correct option of every question exists.
fn check(items: &[Item]) {
    for item in items {
        if let Item::Choice { options, gold } = item {
            assert!(*gold < options.len());
        }
    }
}
