//! Task files, line by line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::EvalError;

/// The first `limit` lines of a file through `read`, which gives the reason why one is no item.
/// Empty lines are passed over.
pub(super) fn read<T>(
    path: &Path,
    limit: usize,
    mut read: impl FnMut(&str) -> Result<T, String>,
) -> Result<Vec<T>, EvalError> {
    let io = |source| EvalError::Io { path: path.into(), source };
    let mut file = BufReader::new(File::open(path).map_err(io)?);
    let (mut items, mut bytes, mut line) = (Vec::new(), Vec::new(), 0);
    while items.len() < limit {
        bytes.clear();
        if file.read_until(b'\n', &mut bytes).map_err(io)? == 0 {
            break;
        }
        line += 1;
        let error = |reason| EvalError::Line { path: path.into(), line, reason };
        let text = str::from_utf8(&bytes).map_err(|e| error(format!("not UTF-8 ({e})")))?;
        let text = text.trim_end_matches(['\n', '\r']);
        if !text.trim().is_empty() {
            items.push(read(text).map_err(error)?);
        }
    }
    Ok(items)
}

/// The same of a file of JSON objects.
pub(super) fn read_json<R: DeserializeOwned, T>(
    path: &Path,
    limit: usize,
    mut item: impl FnMut(R) -> Result<T, String>,
) -> Result<Vec<T>, EvalError> {
    read(path, limit, |line| {
        let row: R = serde_json::from_str(line).map_err(|e| {
            // a line of its own has no line number worth telling
            let reason = e.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            format!("{reason} (column {})", e.column())
        })?;
        item(row)
    })
}
