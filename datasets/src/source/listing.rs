//! The files that paths and patterns name.

use std::path::{Path, PathBuf};

use block_transformer_files::FileError;
use glob::{MatchOptions, Pattern, glob_with};
use walkdir::WalkDir;

use crate::error::DatasetError;

/// Characters that make a path a pattern.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// Returns whether `path` is a pattern, and not the name of something that exists.
pub(crate) fn is_pattern(path: &str) -> bool {
    path.contains(WILDCARDS) && !Path::new(path).exists()
}

/// Lists the files at `path`: itself, or those of a folder in the order of their paths, without
/// hidden ones.
pub(super) fn list(path: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let meta = std::fs::metadata(path).map_err(FileError::read(path))?;
    if !meta.is_dir() && !meta.is_file() {
        return Err(DatasetError::NotAFile(path.into()));
    }
    if meta.is_file() {
        return Ok(vec![path.into()]);
    }
    let visible = |entry: &walkdir::DirEntry| {
        entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.')
    };
    let mut files = Vec::new();
    let walk = WalkDir::new(path).follow_links(true).sort_by_file_name();
    for entry in walk.into_iter().filter_entry(visible) {
        let entry = entry.map_err(|e| FileError::read(path)(e.into()))?;
        if entry.file_type().is_file() {
            files.push(entry.into_path());
        }
    }
    if files.is_empty() {
        return Err(DatasetError::NoFile(path.into()));
    }
    Ok(files)
}

/// Lists the files of several paths and patterns, in their order.
pub(super) fn list_all(paths: &[impl AsRef<str>]) -> Result<Vec<PathBuf>, DatasetError> {
    let mut files = Vec::new();
    for path in paths.iter().map(AsRef::as_ref) {
        if is_pattern(path) {
            files.extend(matches(path)?);
        } else {
            files.extend(list(Path::new(path))?);
        }
    }
    Ok(files)
}

/// Lists the files that match `pattern`, and the files of the folders that match it.
fn matches(pattern: &str) -> Result<Vec<PathBuf>, DatasetError> {
    let invalid = |reason: String| DatasetError::Pattern { pattern: pattern.into(), reason };
    Pattern::new(pattern).map_err(|e| invalid(e.to_string()))?;
    let options = MatchOptions {
        require_literal_separator: true,
        require_literal_leading_dot: true,
        ..MatchOptions::new()
    };
    let found = glob_with(pattern, options).map_err(|e| invalid(e.to_string()))?;
    let mut files = Vec::new();
    for path in found {
        let path = path.map_err(|e| {
            let path = e.path().to_path_buf();
            FileError::read(&path)(e.into())
        })?;
        // a folder without files may match as well
        if path.is_file() || path.is_dir() {
            match list(&path) {
                Err(DatasetError::NoFile(_)) => {}
                listed => files.extend(listed?),
            }
        }
    }
    if files.is_empty() {
        return Err(invalid("it matches no file".into()));
    }
    Ok(files)
}
