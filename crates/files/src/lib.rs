//! Files and folders that are complete or absent, even if the process is killed.
//!
//! Everything is written under a temporary name in the target's own folder, synced to the disk, and
//! then renamed. A killed process can leave temporary entries behind; [`sweep`] removes them.
//!
//! For errors about files, [`nearest`] suggests a name in place of a misspelt one, and [`plain_types`]
//! rewords what serde says about types. [`read_up_to`] refuses files that are too large to be what they should be, and
//! [`caught`] makes the panic of a library an error.

mod limits;
mod nearest;
mod plain_types;

pub use limits::{caught, is_caught_as_damage, open_regular, read_text_up_to, read_up_to};
pub use nearest::nearest;
pub use plain_types::plain_types;

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::{Builder, NamedTempFile, TempDir};

/// Part of every temporary name, by which [`sweep`] recognises them.
const TEMPORARY: &str = ".partial-";

/// A file system operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct FileError {
    /// The failed operation: "read", "write" or "remove".
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The error of the operating system.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err` after an attempt to read `path`.
    pub fn read(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        Self::during("read", path)
    }

    /// For `map_err` after an attempt to write `path`.
    pub fn write(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        Self::during("write", path)
    }

    fn during<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Self + 'a {
        move |source| Self { action, path: path.into(), source }
    }
}

/// Replaces the file at `path` with `bytes`.
///
/// # Errors
/// When the file cannot be written; the previous file is then unchanged.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = NewFile::create(path)?;
    file.write_all(bytes).map_err(FileError::write(path))?;
    file.commit()
}

/// A file that gets its name when it is committed. If it is dropped before that, no file remains.
#[derive(Debug)]
pub struct NewFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl NewFile {
    /// Starts a file that is renamed to `path` when it is committed.
    ///
    /// # Errors
    /// When its folder is not writable.
    pub fn create(path: &Path) -> Result<Self, FileError> {
        let prefix = temporary_prefix(path);
        let mut builder = Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.prefix(&prefix).tempfile_in(parent(path));
        let file = BufWriter::new(file.map_err(FileError::write(path))?);
        Ok(Self { file, path: path.into() })
    }

    /// The temporary name, for writers that open files themselves.
    pub fn temporary_path(&self) -> &Path {
        self.file.get_ref().path()
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    /// When the disk is full or not writable; the previous file is then unchanged.
    pub fn commit(self) -> Result<(), FileError> {
        let Self { file, path } = self;
        let file = file.into_inner().map_err(|e| FileError::write(&path)(e.into_error()))?;
        file.as_file().sync_all().map_err(FileError::write(&path))?;
        file.persist(&path).map_err(|e| FileError::write(&path)(e.error))?;
        sync_folder(parent(&path)).map_err(FileError::write(&path))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for NewFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

/// A folder that gets its name when it is committed. If it is dropped before that, no folder
/// remains.
#[derive(Debug)]
pub struct NewFolder {
    temporary: TempDir,
    path: PathBuf,
}

impl NewFolder {
    /// Starts a folder that is renamed to `path` when it is committed, and creates the folders
    /// above it.
    ///
    /// # Errors
    /// When the folder above is not writable.
    pub fn create(path: &Path) -> Result<Self, FileError> {
        fs::create_dir_all(parent(path)).map_err(FileError::write(parent(path)))?;
        let prefix = temporary_prefix(path);
        let mut builder = Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let temporary = builder.prefix(&prefix).tempdir_in(parent(path));
        Ok(Self { temporary: temporary.map_err(FileError::write(path))?, path: path.into() })
    }

    /// The path at which the file `name` is written before the commit.
    pub fn temporary_path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// The path of the file `name` after the commit, for error messages.
    pub fn final_path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Syncs every file, then replaces the folder at the final path.
    ///
    /// # Errors
    /// When the disk is full or not writable.
    pub fn commit(self) -> Result<(), FileError> {
        let Self { temporary, path } = self;
        for entry in fs::read_dir(temporary.path()).map_err(FileError::write(&path))? {
            let entry = entry.map_err(FileError::write(&path))?;
            let synced = File::open(entry.path()).and_then(|file| file.sync_all());
            synced.map_err(FileError::write(&path.join(entry.file_name())))?;
        }
        sync_folder(temporary.path()).map_err(FileError::write(&path))?;
        if path.exists() {
            remove_folder(&path)?;
        }
        fs::rename(temporary.path(), &path).map_err(FileError::write(&path))?;
        // the folder has its final name now, so there is nothing to remove
        let _ = temporary.keep();
        sync_folder(parent(&path)).map_err(FileError::write(&path))
    }
}

/// Removes a folder. It is renamed first, so that an interruption never leaves an incomplete folder
/// under its name.
///
/// # Errors
/// When the folder cannot be renamed or removed.
pub fn remove_folder(path: &Path) -> Result<(), FileError> {
    let error = FileError::during("remove", path);
    let aside = Builder::new().prefix(&temporary_prefix(path)).tempdir_in(parent(path));
    let aside = aside.map_err(&error)?;
    fs::rename(path, aside.path().join("old")).map_err(&error)?;
    aside.close().map_err(&error)
}

/// Removes from `folder` the temporary entries of killed processes. Entries that cannot be removed
/// stay; they do no harm.
pub fn sweep(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_name().to_string_lossy().contains(TEMPORARY)) {
        let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
    }
}

/// Size in bytes and SHA-256 in lower-case hexadecimal of the file at `path`.
///
/// # Errors
/// When the file cannot be read.
pub fn digest(path: &Path) -> Result<(u64, String), FileError> {
    let mut hash = Sha256::new();
    let mut file = BufReader::with_capacity(1 << 20, open_regular(path)?);
    let size = io::copy(&mut file, &mut hash).map_err(FileError::read(path))?;
    Ok((size, format!("{:x}", hash.finalize())))
}

fn temporary_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!(".{name}{TEMPORARY}")
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all())
}

/// A folder can be opened as a file on Unix only.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_or_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write(&path, b"first").unwrap();
        let mut dropped = NewFile::create(&path).unwrap();
        dropped.write_all(b"half").unwrap();
        drop(dropped);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(dir.path()), ["a.txt"]);
        let error = write(&dir.path().join("missing/a.txt"), b"").unwrap_err();
        assert!(error.to_string().starts_with("cannot write"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_is_written() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"").unwrap();
        let plain = dir.path().join("b");
        fs::write(&plain, b"").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
    }

    #[test]
    fn a_folder_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("above/folder");
        for content in ["one", "two"] {
            let folder = NewFolder::create(&path).unwrap();
            fs::write(folder.temporary_path(content), content).unwrap();
            folder.commit().unwrap();
            assert_eq!(names(&path), [content]);
        }
        drop(NewFolder::create(&path).unwrap());
        assert_eq!(names(path.parent().unwrap()), ["folder"]);
    }

    #[test]
    fn a_sweep_removes_temporary_entries_only() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".a.partial-x1", "b"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        fs::create_dir(dir.path().join(".c.partial-7")).unwrap();
        sweep(dir.path());
        assert_eq!(names(dir.path()), ["b"]);
    }

    #[test]
    fn a_digest_is_the_published_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        fs::write(&path, "abc").unwrap();
        // FIPS 180-2, appendix B.1
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(&path).unwrap(), (3, expected.to_string()));
    }
}
