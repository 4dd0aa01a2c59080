//! Checks of the paths that flags name, before anything is computed. Each error has the flag and a
//! remedy.

use std::path::Path;

use anyhow::{Result, bail, ensure};

/// Checks that a folder exists at `path`, or can be created there, and that files can be written to
/// it. Nothing remains of the check.
pub(crate) fn output_folder(flag: &str, path: &Path) -> Result<()> {
    let folder = existing_folder(flag, path)?;
    if let Err(error) = tempfile::tempdir_in(folder) {
        let (path, folder) = (path.display(), folder.display());
        bail!("{flag} {path}: cannot write to {folder}: {}; give another folder", error.kind());
    }
    Ok(())
}

/// Checks that `path` is a folder, or can be created as one.
pub(crate) fn cache_folder(flag: &str, path: &Path) -> Result<()> {
    if path.is_dir() { Ok(()) } else { output_folder(flag, path) }
}

/// Checks that the file `path` can be written: its folder exists, and it is a file or nothing. A new file
/// replaces what has its name, which must not be a device or a pipe.
pub(crate) fn output_file(flag: &str, path: &Path) -> Result<()> {
    let shown = path.display();
    ensure!(!path.is_dir(), "{flag} {shown}: is a folder; give the name of a file in it");
    ensure!(
        path.is_file() || !path.exists(),
        "{flag} {shown}: is not a regular file; give the name of another file"
    );
    let folder = parent(path);
    let folder_shown = folder.display();
    ensure!(
        folder.is_dir(),
        "{flag} {shown}: the folder {folder_shown} does not exist; create it, or give another file"
    );
    Ok(())
}

/// Checks that there is something at `path`; `remedy` says what to give.
pub(crate) fn existing(flag: &str, path: &Path, remedy: &str) -> Result<()> {
    let shown = path.display();
    ensure!(path.exists(), "{flag} {shown}: there is no such file or folder; {remedy}");
    Ok(())
}

/// Checks that there is a file at `path`, not a folder; `remedy` says what to give.
pub(crate) fn input_file(flag: &str, path: &Path, remedy: &str) -> Result<()> {
    existing(flag, path, remedy)?;
    ensure!(!path.is_dir(), "{flag} {}: is a folder; {remedy}", path.display());
    Ok(())
}

/// Checks that `path` is a folder; `remedy` says what to give.
pub(crate) fn input_folder(flag: &str, path: &Path, remedy: &str) -> Result<()> {
    existing(flag, path, remedy)?;
    ensure!(path.is_dir(), "{flag} {}: is not a folder; {remedy}", path.display());
    Ok(())
}

/// Returns the folder of the file `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the innermost folder on the way to the folder `path` that exists.
fn existing_folder<'a>(flag: &str, path: &'a Path) -> Result<&'a Path> {
    let mut at = path;
    while !at.exists() && at != Path::new(".") {
        at = parent(at);
    }
    if at.is_dir() {
        return Ok(at);
    }
    let (path, at) = (path.display(), at.display());
    bail!("{flag} {path}: {at} is not a folder; give another folder")
}

/// The name of a folder.
pub(crate) fn folder_name(folder: &Path) -> String {
    let full = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.into());
    full.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_names_the_flag_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (file, new) = (dir.path().join("file"), dir.path().join("a/b"));
        output_folder("--out", &new).unwrap();
        output_folder("--out", dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        std::fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("inside/deep")] {
            let error = output_folder("--out", &path).unwrap_err().to_string();
            assert!(
                error.starts_with("--out ") && error.contains("file is not a folder"),
                "{error}"
            );
        }
        let error = output_file("--out", dir.path()).unwrap_err().to_string();
        assert!(error.contains("is a folder"), "{error}");
        assert!(output_file("--out", &new).unwrap_err().to_string().contains("does not exist"));
        output_file("--out", Path::new("name")).unwrap();
        existing("--books", &file, "give one").unwrap();
        assert!(
            existing("--books", &new, "give one").unwrap_err().to_string().contains("give one")
        );
    }
}
