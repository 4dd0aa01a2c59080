//! Names of cached corpora: a hash of everything that a prepared corpus depends on.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use block_transformer_files::FileError;
use siphasher::sip::SipHasher13;

use crate::error::DatasetError;

/// Collects everything that a prepared corpus depends on. The hash is SipHash-1-3 with zero keys.
/// With another hash, corpora that are already prepared would not be found.
#[derive(Default)]
pub(crate) struct CacheName(SipHasher13);

impl CacheName {
    /// Adds a value.
    pub(crate) fn add(&mut self, value: impl Hash) {
        value.hash(&mut self.0);
    }

    /// Adds a regular file by its path, size and time of modification.
    pub(crate) fn add_file(&mut self, path: &Path) -> Result<(), DatasetError> {
        let meta = std::fs::metadata(path).map_err(FileError::read(path))?;
        if !meta.is_file() {
            return Err(DatasetError::NotAFile(path.into()));
        }
        let path = path.canonicalize().map_err(FileError::read(path))?;
        self.add((path, meta.len(), meta.modified().ok()));
        Ok(())
    }

    /// Returns the folder in `data` of the corpus called `name`.
    pub(crate) fn folder(&self, data: &Path, name: &str) -> PathBuf {
        data.join(format!("{name}-{:016x}", self.0.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[cfg(all(unix, target_pointer_width = "64", target_endian = "little"))]
    #[test]
    fn names_are_those_of_corpora_prepared_before() {
        let mut name = CacheName::default();
        name.add("0.1.0");
        let modified = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        name.add((PathBuf::from("/data/books/text.txt"), 1234_u64, Some(modified)));
        name.add(2048_usize);
        // computed with `std::hash::DefaultHasher` of Rust 1.95, which was used before
        assert_eq!(name.folder(Path::new("data"), "text"), Path::new("data/text-c0c097ab5c688db4"));
        name.add(Some(0xDEAD_BEEF_u32));
        assert_eq!(name.folder(Path::new("data"), "text"), Path::new("data/text-95db0446dd298881"));
    }
}
