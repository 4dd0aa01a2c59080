//! Reading task files line by line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use block_transformer_files::FileError;
use serde::de::DeserializeOwned;

use crate::error::EvalError;

/// Parses the first `limit` lines of a file. `parse` returns the reason why a line is invalid.
/// Blank lines are skipped.
pub(crate) fn read<T>(
    path: &Path,
    limit: usize,
    mut parse: impl FnMut(&str) -> Result<T, String>,
) -> Result<Vec<T>, EvalError> {
    let mut file = BufReader::new(File::open(path).map_err(FileError::read(path))?);
    let (mut items, mut bytes, mut line) = (Vec::new(), Vec::new(), 0);
    while items.len() < limit {
        bytes.clear();
        if file.read_until(b'\n', &mut bytes).map_err(FileError::read(path))? == 0 {
            break;
        }
        line += 1;
        let error = |reason| EvalError::line(path, line, reason);
        let text = str::from_utf8(&bytes).map_err(|e| error(format!("not UTF-8 ({e})")))?;
        let text = text.trim_end_matches(['\n', '\r']);
        if !text.trim().is_empty() {
            items.push(parse(text).map_err(error)?);
        }
    }
    Ok(items)
}

/// Parses the first `limit` lines of a file of JSON objects.
pub(crate) fn read_json<R: DeserializeOwned, T>(
    path: &Path,
    limit: usize,
    mut parse: impl FnMut(R) -> Result<T, String>,
) -> Result<Vec<T>, EvalError> {
    read(path, limit, |line| {
        let object: R = serde_json::from_str(line).map_err(|e| {
            // serde_json counts the lines of one object, which is always line 1
            let reason = e.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            format!("{reason} (column {})", e.column())
        })?;
        parse(object)
    })
}
