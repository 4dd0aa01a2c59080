//! Running the real binary.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tempfile::TempDir;

/// The arguments of a run on the text of [`with_text`], without its number of steps.
pub(crate) const TINY: &str =
    "train --preset debug-block --corpus text.txt --byte-level --context 32 --batch 2";

/// Creates a folder with a text of tens of kilobytes.
pub(crate) fn with_text() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let line = |i: usize| format!("line {i} of a text, {} more\n", 3000 - i);
    std::fs::write(dir.path().join("text.txt"), (0..3000).map(line).collect::<String>()).unwrap();
    dir
}

/// Runs three steps in a folder with a text, into its folder `run`.
pub(crate) fn with_run() -> TempDir {
    let dir = with_text();
    succeeds(dir.path(), &format!("{TINY} --steps 3 --out run"));
    dir
}

/// The path of a file in `tests/golden`.
pub(crate) fn golden(file: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden")).join(file)
}

/// The words of a command line. A part in single quotes is one word.
pub(crate) fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    let words = parts.flat_map(|(i, part)| match i % 2 {
        0 => part.split_whitespace().map(String::from).collect(),
        _ => vec![part.to_string()],
    });
    words.collect()
}

/// The binary with the arguments `line`, to be run in the folder `dir`.
pub(crate) fn command(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_block-transformer"));
    command.current_dir(dir).args(words(line)).env("RUST_BACKTRACE", "1");
    command
}

/// Runs a command that must succeed, and returns what it wrote to stdout.
pub(crate) fn succeeds(dir: &Path, line: &str) -> String {
    let output = command(dir, line).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command that must fail with exit code 1 and end with an error that contains every part of
/// `says`, without a panic. Returns everything that it wrote to stderr.
pub(crate) fn fails(dir: &Path, line: &str, says: &[&str]) -> String {
    fails_as(&mut command(dir, line), 1, says)
}

/// Like [`fails`], with the exit code `code`.
pub(crate) fn fails_as(command: &mut Command, code: i32, says: &[&str]) -> String {
    let output = command.output().unwrap();
    let written = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {written}");
    let error = written.rfind("error: ").map_or("", |at| &written[at..]);
    for part in says {
        assert!(error.contains(part), "{command:?} should say {part:?}: {written}");
    }
    let panicked = written.contains("panicked") || written.contains("stack backtrace");
    assert!(!panicked, "{command:?}: {written}");
    written
}

/// The JSON value in a file.
pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Returns whether the status is that of a process ended by `Child::kill`.
pub(crate) fn was_killed(status: ExitStatus) -> bool {
    #[cfg(unix)]
    return std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    #[cfg(not(unix))]
    return status.code() == Some(1);
}

/// Prevents tests that need much memory or depend on time from running at the same time: only one
/// test can hold the guard.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    // the failure of another test does not matter here
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}
