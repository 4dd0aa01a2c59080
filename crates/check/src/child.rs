//! Processes with a time limit.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use block_transformer_files::FileError;

use crate::error::CheckError;

/// Time between two looks at a running process.
const INTERVAL: Duration = Duration::from_millis(20);
/// Bytes at the end of an output that are searched for its last lines.
const TAIL_BYTES: u64 = 16 << 10;
/// Last lines of an output that are reported.
const TAIL_LINES: usize = 25;

/// The time that a process may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Duration);

/// The end of a process.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The exit code; `None` if the process was killed, for example at its time limit.
    pub code: Option<i32>,
    /// Whether the process was killed at its time limit.
    pub timed_out: bool,
    /// Seconds that it ran.
    pub seconds: f64,
    /// The last lines of its output, stdout and stderr together.
    pub tail: Vec<String>,
}

impl Ended {
    /// Says how the process ended.
    pub fn describe(&self) -> String {
        match (self.timed_out, self.code) {
            (true, _) => format!("killed at its time limit, after {:.0} s", self.seconds),
            (false, Some(code)) => format!("exit code {code}"),
            (false, None) => "killed by a signal, as in a crash".into(),
        }
    }
}

/// Runs `command`, writes its stdout and stderr to the file `log`, and kills it at the time limit.
///
/// # Errors
/// When the process cannot be started, or the log cannot be written.
pub fn run_limited(mut command: Command, limit: Limit, log: &Path) -> Result<Ended, CheckError> {
    let file = File::create(log).map_err(FileError::write(log))?;
    let both = file.try_clone().map_err(FileError::write(log))?;
    command.stdin(Stdio::null()).stdout(file).stderr(both);
    dies_with_its_parent(&mut command);
    let start = Instant::now();
    let program = command.get_program().to_owned();
    let failed = CheckError::start(&program);
    let mut child = command.spawn().map_err(&failed)?;
    let (status, timed_out) = loop {
        if let Some(status) = child.try_wait().map_err(&failed)? {
            break (status, false);
        }
        if start.elapsed() >= limit.0 {
            // an error means that the process has just ended
            let _ = child.kill();
            break (child.wait().map_err(&failed)?, true);
        }
        std::thread::sleep(INTERVAL);
    };
    let seconds = start.elapsed().as_secs_f64();
    Ok(Ended { code: status.code(), timed_out, seconds, tail: tail(log)? })
}

/// Lets Linux kill the process when this one ends, so that no part of a check goes on without its
/// time limit.
#[cfg(target_os = "linux")]
fn dies_with_its_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: prctl may be called between fork and exec, and allocates nothing
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn dies_with_its_parent(_: &mut Command) {}

/// Returns the last lines of a file.
fn tail(path: &Path) -> Result<Vec<String>, FileError> {
    let mut file = File::open(path).map_err(FileError::read(path))?;
    let mut read = || {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(FileError::read(path))?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    Ok(last.iter().map(|line| line.chars().take(300).collect()).collect())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn run(script: &str, milliseconds: u64) -> Ended {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let limit = Limit(Duration::from_millis(milliseconds));
        run_limited(command, limit, &dir.path().join("log")).unwrap()
    }

    #[test]
    fn a_process_that_ends_has_its_code_and_its_last_lines() {
        let ended = run("for i in $(seq 40); do echo line $i; done; echo last >&2; exit 3", 10_000);
        assert_eq!((ended.code, ended.timed_out), (Some(3), false));
        assert_eq!(ended.tail.len(), TAIL_LINES);
        assert_eq!(ended.tail.last().map(String::as_str), Some("last"));
        assert_eq!(ended.describe(), "exit code 3");
    }

    #[test]
    fn a_process_that_hangs_is_killed_at_its_limit() {
        let ended = run("echo begun; exec sleep 60", 300);
        assert!(ended.timed_out && ended.code.is_none() && ended.seconds < 10.0, "{ended:?}");
        assert_eq!(ended.tail, ["begun"]);
        assert!(ended.describe().contains("time limit"));
    }

    #[test]
    fn a_process_that_crashes_is_no_exit_code() {
        let ended = run("kill -SEGV $$", 10_000);
        assert!(!ended.timed_out && ended.code.is_none(), "{ended:?}");
        assert!(ended.describe().contains("signal"));
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let command = Command::new("no-such-program");
        let limit = Limit(Duration::from_secs(1));
        let error = run_limited(command, limit, &dir.path().join("log")).unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
