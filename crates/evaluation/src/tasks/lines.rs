//! Reading task files line by line.

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
    let bytes = std::fs::read(path).map_err(FileError::read(path))?;
    let item = |(i, bytes): (usize, &[u8])| {
        let error = |reason| EvalError::line(path, i + 1, reason);
        let text = str::from_utf8(bytes).map_err(|e| error(format!("not UTF-8 ({e})")))?;
        let text = text.trim_end_matches('\r');
        (!text.trim().is_empty()).then(|| parse(text).map_err(error)).transpose()
    };
    let items = bytes.split(|&byte| byte == b'\n').enumerate().map(item);
    items.filter_map(Result::transpose).take(limit).collect()
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
