//! Reading task files line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use block_transformer_files::{FileError, plain_types};
use serde::de::DeserializeOwned;

use crate::error::EvalError;

/// The largest number of bytes in a line. The longest items, whole articles, have some 100 KB.
const MAX_LINE: u64 = 16 << 20;
/// The largest number of items that are read from a file.
pub(crate) const MAX_ITEMS: usize = 4 << 20;

/// Parses the first `limit` lines of a file. `parse` returns the reason why a line is invalid.
/// Blank lines are skipped.
pub(crate) fn read<T>(
    path: &Path,
    limit: usize,
    mut parse: impl FnMut(&str) -> Result<T, String>,
) -> Result<Vec<T>, EvalError> {
    if !std::fs::metadata(path).map_err(FileError::read(path))?.is_file() {
        return Err(EvalError::content(
            path,
            "not a regular file; give a file with one item per line",
        ));
    }
    let mut file = BufReader::new(File::open(path).map_err(FileError::read(path))?);
    let (mut items, mut number, mut bytes) = (Vec::new(), 0, Vec::new());
    while items.len() < limit {
        bytes.clear();
        let mut line = file.by_ref().take(MAX_LINE + 1);
        if line.read_until(b'\n', &mut bytes).map_err(FileError::read(path))? == 0 {
            break;
        }
        number += 1;
        let error = |reason| EvalError::line(path, number, reason);
        if bytes.len() as u64 > MAX_LINE {
            let most = MAX_LINE >> 20;
            return Err(error(format!(
                "the line is longer than {most} MiB; give one item per line"
            )));
        }
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let text = str::from_utf8(text).map_err(|e| error(format!("not UTF-8 ({e})")))?;
        let text = text.trim_end_matches('\r');
        if text.trim().is_empty() {
            continue;
        }
        if items.len() == MAX_ITEMS {
            return Err(error(format!(
                "the file has more than {MAX_ITEMS} items; divide it, or limit the items"
            )));
        }
        items.push(parse(text).map_err(error)?);
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
            format!("{} (column {})", plain_types(reason), e.column())
        })?;
        parse(object)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_an_error_before_it_is_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        let file = File::create(&path).unwrap();
        // a sparse file: far more bytes than the memory of a small machine
        file.set_len(1 << 40).unwrap();
        let error = read(&path, usize::MAX, |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("long:1: the line is longer than 16 MiB"), "{error}");
        std::fs::write(&path, "a\n\n b\r\n\nc").unwrap();
        let lines = read(&path, usize::MAX, |line| Ok(line.to_string())).unwrap();
        assert_eq!(lines, ["a", " b", "c"]);
        assert_eq!(read(&path, 2, |line| Ok(line.len())).unwrap(), [1, 2]);
        let error = read(&path, usize::MAX, |l| if l == "c" { Err("bad".into()) } else { Ok(()) });
        assert!(error.unwrap_err().to_string().ends_with("long:5: bad"));
    }
}
