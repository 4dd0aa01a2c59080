//! A folder with everything that a machine without Rust needs to run this program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use block_transformer_files::FileError;

use crate::error::CheckError;
use crate::libraries::loaded_libraries;
use crate::settings::this_program;

/// Bytes that the archive may have.
const LIMIT: u64 = 80_000_000;
/// Files that an error about the size names.
const NAMED: usize = 5;
/// The name of the program in the bundle.
const PROGRAM: &str = "block-transformer";
/// The suffixes of the files of recorded cases.
const GOLDEN: [&str; 3] = [".json", ".model.safetensors", ".golden.safetensors"];

/// Finds the libraries beside itself. It uses no other program, so that it runs where there is
/// nothing but a shell.
const LAUNCHER: &str = r#"#!/bin/sh
# Runs the program of this folder with the libraries of this folder.
here=${0%/*}
if [ "$here" = "$0" ]; then here=.; fi
here=$(cd "$here" && pwd)
LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$here/block-transformer" "$@"
"#;

/// A bundle that was written.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The files, relative to the folder, with their bytes.
    pub files: Vec<(PathBuf, u64)>,
    /// The archive beside the folder and its bytes; `None` without `tar` and `xz` or `zstd`.
    pub archive: Option<(PathBuf, u64)>,
}

impl Bundle {
    /// Writes the folder `dir`, which must not exist, with: the program of this process without
    /// debug information; in `lib`, the libraries that it has loaded and that are not part of every
    /// system; the recorded cases of `golden`; and the script `run.sh`, which starts the program.
    /// Then writes an archive of the folder, `DIR.tar.xz` or `DIR.tar.zst`.
    ///
    /// # Errors
    /// On other systems than Linux; when the folder exists, a file cannot be written, or the archive
    /// is larger than 80 MB.
    pub fn write(dir: &Path, golden: &Path) -> Result<Self, CheckError> {
        Self::write_limited(dir, golden, LIMIT)
    }

    fn write_limited(dir: &Path, golden: &Path, limit: u64) -> Result<Self, CheckError> {
        if !cfg!(target_os = "linux") {
            return Err(CheckError::NotLinux);
        }
        if dir.exists() {
            return Err(CheckError::Exists(dir.into()));
        }
        let (lib, cases) = (dir.join("lib"), dir.join("golden"));
        for folder in [dir, &lib, &cases] {
            fs::create_dir_all(folder).map_err(FileError::write(folder))?;
        }
        strip(&this_program()?, &dir.join(PROGRAM))?;
        for library in loaded_libraries() {
            if let Some(name) = library.file_name() {
                strip(&library, &lib.join(name))?;
            }
        }
        copy_cases(golden, &cases)?;
        let launcher = dir.join("run.sh");
        fs::write(&launcher, LAUNCHER).map_err(FileError::write(&launcher))?;
        executable(&launcher)?;
        let mut files = Vec::new();
        list(dir, Path::new(""), &mut files)?;
        let archive = archive(dir)?;
        if let Some((archive, bytes)) = &archive
            && *bytes > limit
        {
            let (archive, bytes) = (archive.clone(), *bytes);
            return Err(CheckError::TooLarge { archive, bytes, limit, largest: largest(&files) });
        }
        Ok(Self { files, archive })
    }

    /// Returns the bytes of all files, before compression.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// Copies a program or library without its debug information, if there is a tool for it.
fn strip(from: &Path, to: &Path) -> Result<(), CheckError> {
    let mut tool = Command::new("strip");
    tool.arg("--strip-unneeded").arg("-o").arg(to).arg(from);
    let done = tool.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !done.is_ok_and(|status| status.success()) {
        fs::copy(from, to).map_err(FileError::write(to))?;
    }
    executable(to)
}

fn executable(path: &Path) -> Result<(), CheckError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(path, mode).map_err(FileError::write(path))?;
    }
    let _ = path;
    Ok(())
}

fn copy_cases(golden: &Path, to: &Path) -> Result<(), CheckError> {
    for entry in fs::read_dir(golden).map_err(FileError::read(golden))? {
        let path = entry.map_err(FileError::read(golden))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if GOLDEN.iter().any(|suffix| name.ends_with(suffix)) {
            let copy = to.join(name);
            fs::copy(&path, &copy).map_err(FileError::write(&copy))?;
        }
    }
    Ok(())
}

/// Lists the files below `dir/below`, relative to `dir`.
fn list(dir: &Path, below: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<(), CheckError> {
    let folder = dir.join(below);
    for entry in fs::read_dir(&folder).map_err(FileError::read(&folder))? {
        let entry = entry.map_err(FileError::read(&folder))?;
        let (name, metadata) = (below.join(entry.file_name()), entry.metadata());
        let metadata = metadata.map_err(FileError::read(&folder))?;
        if metadata.is_dir() {
            list(dir, &name, files)?;
        } else {
            files.push((name, metadata.len()));
        }
    }
    files.sort();
    Ok(())
}

/// Names the largest files, with their sizes.
fn largest(files: &[(PathBuf, u64)]) -> String {
    let mut files = files.to_vec();
    files.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let name = |(path, bytes): &(PathBuf, u64)| {
        format!("{} ({:.1} MB)", path.display(), *bytes as f64 / 1e6)
    };
    files.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ")
}

/// Compresses the folder with the first compressor that the machine has; `None` if it has none.
fn archive(dir: &Path) -> Result<Option<(PathBuf, u64)>, CheckError> {
    let dir = std::path::absolute(dir).map_err(FileError::read(dir))?;
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { return Ok(None) };
    for (compressor, arguments, suffix) in [
        ("xz", &["-T0", "-6", "-c"][..], "tar.xz"),
        ("zstd", &["-T0", "-19", "-c", "-q"], "tar.zst"),
    ] {
        let mut file_name = name.to_owned();
        file_name.push(format!(".{suffix}"));
        let path = parent.join(file_name);
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(parent).arg("-cf").arg("-").arg(name).stdout(Stdio::piped());
        let mut compress = Command::new(compressor);
        compress.args(arguments);
        if let Some(bytes) = piped(tar, compress, &path)? {
            return Ok(Some((path, bytes)));
        }
    }
    Ok(None)
}

/// Runs `from | to > path`, and returns the bytes written; `None` if one of the programs does not
/// exist.
fn piped(mut from: Command, mut to: Command, path: &Path) -> Result<Option<u64>, CheckError> {
    let Ok(mut sender) = from.spawn() else { return Ok(None) };
    let file = fs::File::create(path).map_err(FileError::write(path))?;
    let input = sender.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let receiver = to.stdin(input).stdout(file).stderr(Stdio::piped()).spawn();
    // closes this process's end of the pipe, so that the sender ends if there is no receiver
    drop(to);
    let output = receiver.and_then(std::process::Child::wait_with_output);
    let sent = sender.wait();
    let Ok(output) = output else {
        fs::remove_file(path).map_err(FileError::write(path))?;
        return Ok(None);
    };
    if !output.status.success() || !sent.is_ok_and(|status| status.success()) {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(CheckError::Failed { program: "tar".into(), message });
    }
    Ok(Some(fs::metadata(path).map_err(FileError::read(path))?.len()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// A folder with one small case.
    fn golden() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.json", "a.model.safetensors", "a.golden.safetensors", "README.md"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        dir
    }

    #[test]
    fn a_bundle_that_is_too_large_names_its_largest_files() {
        let (dir, golden) = (tempfile::tempdir().unwrap(), golden());
        let target = dir.path().join("bundle");
        let error = match Bundle::write_limited(&target, golden.path(), 1000) {
            Ok(bundle) if bundle.archive.is_none() => return, // a machine without tar
            other => other.unwrap_err().to_string(),
        };
        assert!(
            error.contains("block-transformer (") && error.contains("limit is 0 MB"),
            "{error}"
        );
        let again = Bundle::write(&target, golden.path()).unwrap_err();
        assert!(matches!(again, CheckError::Exists(_)), "{again}");
    }

    #[test]
    fn a_compressor_that_does_not_exist_is_no_error_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let mut sender = Command::new("echo");
        sender.arg("text").stdout(Stdio::piped());
        assert!(piped(sender, Command::new("no-such-program"), &path).unwrap().is_none());
        assert!(!path.exists());
        let mut sender = Command::new("echo");
        sender.arg("text").stdout(Stdio::piped());
        assert_eq!(piped(sender, Command::new("cat"), &path).unwrap(), Some(5));
    }
}
