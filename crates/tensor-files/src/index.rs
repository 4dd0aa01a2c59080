//! Indices of several files that together hold a model, as the transformers library writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use block_transformer_files::{FileError, read_up_to};
use serde::Deserialize;

use crate::error::TensorFileError;

const KIND: &str = "index of shards";

/// The largest index that is read.
pub const MAX_INDEX_BYTES: u64 = 64 << 20;

/// The contents of an index.
#[derive(Deserialize)]
pub(crate) struct Index {
    /// The file of each tensor.
    pub weight_map: BTreeMap<String, String>,
}

impl Index {
    pub(crate) fn read(path: &Path) -> Result<Self, TensorFileError> {
        let json = read_up_to(path, MAX_INDEX_BYTES)?;
        let refuse = |reason: String| TensorFileError::format(path, KIND, reason);
        let index: Self = serde_json::from_slice(&json).map_err(|e| refuse(e.to_string()))?;
        if index.weight_map.is_empty() {
            return Err(refuse("`weight_map` is empty".into()));
        }
        Ok(index)
    }

    /// The paths of all files beside the index `path`.
    pub(crate) fn files(&self, path: &Path) -> Result<Vec<(String, PathBuf)>, TensorFileError> {
        let names: BTreeSet<&String> = self.weight_map.values().collect();
        names.into_iter().map(|name| Ok((name.clone(), shard(path, name)?))).collect()
    }
}

/// The names of the files of an index, each once; the files need not be there.
///
/// # Errors
/// When the index cannot be read, or a name is not a plain file name.
pub fn shard_names(path: &Path) -> Result<Vec<String>, TensorFileError> {
    let names: BTreeSet<String> = Index::read(path)?.weight_map.into_values().collect();
    names.iter().try_for_each(|name| plain(path, name))?;
    Ok(names.into_iter().collect())
}

/// Checks that `name` has no folders.
fn plain(path: &Path, name: &str) -> Result<(), TensorFileError> {
    let mut parts = Path::new(name).components();
    let file = match (parts.next(), parts.next()) {
        (Some(Component::Normal(file)), None) => Some(file),
        _ => None,
    };
    if file == Some(OsStr::new(name)) && !name.contains('\\') {
        return Ok(());
    }
    let reason = format!("`weight_map` names the file {name:?}, which is not a plain file name");
    Err(TensorFileError::format(path, KIND, reason))
}

/// The path of the file `name` beside the index `path`. Only files of the index's own folder are allowed.
fn shard(path: &Path, name: &str) -> Result<PathBuf, TensorFileError> {
    let refuse = |reason: &str| {
        TensorFileError::format(
            path,
            KIND,
            format!("`weight_map` names the file {name:?}, {reason}"),
        )
    };
    plain(path, name)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let shard = folder.join(name);
    let real = shard.canonicalize().map_err(FileError::read(&shard))?;
    let inside = |folder: &Path| folder.canonicalize().is_ok_and(|folder| real.starts_with(folder));
    // the hub's cache keeps the files of `REPOSITORY/snapshots/COMMIT` in `REPOSITORY/blobs`
    let is_snapshot = || {
        let above = folder.canonicalize().ok()?.parent()?.to_path_buf();
        (above.file_name()? == "snapshots").then(|| above.with_file_name("blobs"))
    };
    if inside(folder) || is_snapshot().is_some_and(|blobs| inside(&blobs)) {
        return Ok(shard);
    }
    Err(refuse("a link that leads out of the folder of the index"))
}
