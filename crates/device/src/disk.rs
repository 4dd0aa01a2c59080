//! Space on disks.

use std::path::Path;

/// Returns the bytes that can be written to the disk of `path`, or of its nearest folder that
/// exists; `None` on systems that do not report it.
pub fn free_disk(path: &Path) -> Option<u64> {
    let folder = std::path::absolute(path).ok()?;
    let folder = folder.ancestors().find(|folder| folder.exists())?;
    free(folder)
}

#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with a zero, and the answer is read only if the call succeeded
    let answer = unsafe {
        if libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) != 0 {
            return None;
        }
        answer.assume_init()
    };
    #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
    Some(answer.f_bavail as u64 * answer.f_frsize as u64)
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}
