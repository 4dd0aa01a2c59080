//! Task files of SciQ: as published, one list of objects, or one object per line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use block_transformer_files::{FileError, plain_types};
use serde::Deserialize;

use crate::error::EvalError;
use crate::tasks::item::{Item, question};
use crate::tasks::lines::read_json;
use crate::tasks::python;

/// The largest size in bytes of a file that is read as a whole. The published files have up to 8 MB.
const MAX_LIST: u64 = 1 << 30;

#[derive(Deserialize)]
struct SciqLine {
    question: String,
    distractor1: String,
    distractor2: String,
    distractor3: String,
    correct_answer: String,
    support: String,
}

pub(crate) fn load(path: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    match is_list(path).map_err(FileError::read(path))? {
        false => read_json(path, limit, item),
        true => list(path, limit),
    }
}

/// Whether the first character that is not blank opens a list.
fn is_list(path: &Path) -> std::io::Result<bool> {
    let mut file = BufReader::new(File::open(path)?);
    loop {
        let bytes = file.fill_buf()?;
        if let Some(byte) = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            return Ok(*byte == b'[');
        }
        match bytes.len() {
            0 => return Ok(false),
            blank => file.consume(blank),
        }
    }
}

fn list(path: &Path, limit: usize) -> Result<Vec<Item>, EvalError> {
    let size = std::fs::metadata(path).map_err(FileError::read(path))?.len();
    if size > MAX_LIST {
        let reason = format!("the list has {size} bytes; give a file with one object per line");
        return Err(EvalError::content(path, reason));
    }
    let bytes = std::fs::read(path).map_err(FileError::read(path))?;
    let lines: Vec<SciqLine> = serde_json::from_slice(&bytes).map_err(|e| {
        let reason = e.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        EvalError::line(path, e.line(), format!("{} (column {})", plain_types(reason), e.column()))
    })?;
    let items = lines.into_iter().take(limit).enumerate();
    let one = |(i, line)| {
        item(line).map_err(|reason| EvalError::content(path, format!("item {}: {reason}", i + 1)))
    };
    items.map(one).collect()
}

fn item(line: SciqLine) -> Result<Item, String> {
    let support = line.support.trim_start_matches(python::is_space);
    let context = format!("{support}\nQuestion: {}\nAnswer:", line.question);
    let options = [line.distractor1, line.distractor2, line.distractor3, line.correct_answer];
    question(&context, &options, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"question": "What is red?", "distractor1": "sky", "distractor2": "grass",
        "distractor3": "snow", "correct_answer": "blood", "support": "  Blood is red. "}"#;

    #[test]
    fn items_have_the_form_of_the_harness_in_both_formats() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sciq");
        let line = ONE.replace('\n', " ");
        std::fs::write(&path, format!("{line}\n{line}\n")).unwrap();
        let lines = load(&path, 9).unwrap();
        std::fs::write(&path, format!(" \n[{ONE},\n{ONE}]\n")).unwrap();
        assert_eq!(load(&path, 9).unwrap(), lines);
        assert_eq!(load(&path, 1).unwrap(), lines[..1]);
        let Item::Choice { options, gold: 3 } = &lines[0] else { panic!("{lines:?}") };
        let context = "Blood is red. \nQuestion: What is red?\nAnswer:";
        assert!(options.iter().all(|option| option.context == context), "{options:?}");
        let texts: Vec<&str> = options.iter().map(|option| &option.continuation[..]).collect();
        assert_eq!(texts, [" sky", " grass", " snow", " blood"]);
    }

    #[test]
    fn errors_name_the_line_or_the_item() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sciq");
        for (text, says) in [
            (
                ONE.replace("support", "evidence").replace('\n', " "),
                "sciq:1: missing field `support`",
            ),
            (format!("[\n{ONE},\n{{}}]"), "sciq:4: missing field"),
            (format!("[{ONE},{}]", ONE.replace("snow", "")), "item 2: an option is empty"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = load(&path, 9).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
