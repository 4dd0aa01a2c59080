//! Files that are there whole or not at all.

use std::path::{Path, PathBuf};

use crate::TextError;

/// Where `path` is written until it is whole: beside it, so that renaming is enough, and of this
/// process alone.
pub(crate) fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

/// Writes `bytes` to `path` by renaming.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), TextError> {
    let partial = partial(path);
    let written = std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written.map_err(TextError::io(path))
}
