//! Running the real binary.

use std::path::Path;
use std::process::{Command, Output};

/// `cargo xtask` with `args` in `dir`.
pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_block-transformer"));
    command.current_dir(dir).args(args).env("RUST_BACKTRACE", "1");
    command
}

/// Runs a command that must succeed.
pub fn succeeds(dir: &Path, args: &[&str]) -> Output {
    let output = command(dir, args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs a command that must fail with exit code 1 and, at its end, an error that has every word of
/// `says` and no trace of a panic; returns all it wrote to stderr.
pub fn fails(dir: &Path, args: &[&str], says: &[&str]) -> String {
    let output = command(dir, args).output().unwrap();
    let written = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {written}");
    let error = written.rfind("error: ").map_or("", |at| &written[at..]);
    for word in says {
        assert!(error.contains(word), "{args:?} should say {word:?}: {written}");
    }
    let panicked = written.contains("panicked") || written.contains("stack backtrace");
    assert!(!panicked, "{args:?}: {written}");
    written
}
