//! Files from outside that are read completely: no more than a limit, and failures of libraries as errors.

use std::cell::Cell;
use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::FileError;

/// Reads a file of at most `limit` bytes. A larger one is refused before it is read.
///
/// # Errors
/// When the file cannot be read, or is larger.
pub fn read_up_to(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let too_large = |size: String| {
        let reason = format!("it has {size} bytes; at most {limit} are read");
        FileError::read(path)(Error::new(ErrorKind::FileTooLarge, reason))
    };
    let file = open_regular(path)?;
    let size = file.metadata().map_err(FileError::read(path))?.len();
    if size > limit {
        return Err(too_large(size.to_string()));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // the file may grow
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(FileError::read(path))?;
    if bytes.len() as u64 > limit {
        return Err(too_large(format!("more than {limit}")));
    }
    Ok(bytes)
}

/// Opens a file for reading. A pipe, which could wait for ever, a device or a folder is refused.
///
/// # Errors
/// When there is no such file, it is of another kind, or it cannot be read.
pub fn open_regular(path: &Path) -> Result<File, FileError> {
    let kind = std::fs::metadata(path).map_err(FileError::read(path))?;
    if !kind.is_file() {
        let reason = if kind.is_dir() { "it is a folder" } else { "it is not a regular file" };
        return Err(FileError::read(path)(Error::new(ErrorKind::InvalidInput, reason)));
    }
    File::open(path).map_err(FileError::read(path))
}

/// [`read_up_to`] for a file of UTF-8.
///
/// # Errors
/// Those of [`read_up_to`], and when the file is not UTF-8.
pub fn read_text_up_to(path: &Path, limit: u64) -> Result<String, FileError> {
    String::from_utf8(read_up_to(path, limit)?).map_err(|error| {
        FileError::read(path)(Error::new(ErrorKind::InvalidData, error.utf8_error()))
    })
}

thread_local! {
    static CATCHES: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether a panic of this thread is caught and reported as an error of a damaged file. A
/// panic hook can then keep quiet about it.
pub fn is_caught_as_damage() -> bool {
    CATCHES.get()
}

/// Runs `read`, which calls a library that panics on some damaged files. `None` if it panics. What `read` has changed
/// must not be used after that.
pub fn caught<T>(read: impl FnOnce() -> T) -> Option<T> {
    let before = CATCHES.replace(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    CATCHES.set(before);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(read_text_up_to(&path, 3).unwrap(), "abc");
        let reason = |error: FileError| format!("{error}: {}", error.source);
        let error = reason(read_up_to(&path, 2).unwrap_err());
        assert!(error.ends_with("large: it has 3 bytes; at most 2 are read"), "{error}");
        // a terabyte of nothing
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(reason(read_up_to(&path, 1 << 30).unwrap_err()).contains("1099511627776"));
        std::fs::write(&path, [0xFF]).unwrap();
        assert!(reason(read_text_up_to(&path, 2).unwrap_err()).contains("utf-8"));
        #[cfg(unix)]
        assert!(
            reason(read_up_to(Path::new("/dev/zero"), 9).unwrap_err())
                .contains("not a regular file")
        );
    }

    #[test]
    fn a_panic_is_none_and_the_hook_knows() {
        assert_eq!(caught(|| (is_caught_as_damage(), caught(|| 1))), Some((true, Some(1))));
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| assert!(is_caught_as_damage())));
        let result = caught(|| assert!(is_caught_as_damage() && std::hint::black_box(false)));
        std::panic::set_hook(hook);
        assert!(result.is_none() && !is_caught_as_damage());
    }
}
