//! Starting the real binary on several ranks.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::words;

/// The time in which all ranks must have ended after a failure of one.
pub(crate) const PROMPTLY: Duration = Duration::from_secs(10);

/// The launcher. Several ranks share the cores of the machine.
fn launcher(dir: &Path) -> Command {
    let mut command = Command::new("mpirun");
    command
        .current_dir(dir)
        .args(["--oversubscribe", "--bind-to", "none", "-x", "RAYON_NUM_THREADS=1"])
        .env("RUST_BACKTRACE", "1")
        // containers run as root, and Open MPI wants to be asked twice
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command
}

/// One part of a job: a number of ranks with a command line of their own.
fn part(command: &mut Command, ranks: usize, line: &str) {
    command.args(["-n", &ranks.to_string(), env!("CARGO_BIN_EXE_block-transformer")]);
    command.args(words(line));
}

/// `line` on `ranks` ranks.
pub(crate) fn job(dir: &Path, ranks: usize, line: &str) -> Command {
    jobs(dir, &[(ranks, line)])
}

/// A job whose ranks have different command lines: numbers of ranks, with their lines.
pub(crate) fn jobs(dir: &Path, parts: &[(usize, &str)]) -> Command {
    let mut command = launcher(dir);
    for (i, (ranks, line)) in parts.iter().enumerate() {
        if i > 0 {
            command.arg(":");
        }
        part(&mut command, *ranks, line);
    }
    command
}

/// A job that runs a shell script on each rank, which starts the binary as `"$@"`.
pub(crate) fn scripted(dir: &Path, ranks: usize, script: &str, line: &str) -> Command {
    let mut command = launcher(dir);
    command.args(["-n", &ranks.to_string(), "sh", "-c", script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_block-transformer")).args(words(line));
    command
}

/// Runs a job that must succeed, and returns what it wrote to stdout.
pub(crate) fn succeeds(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a job that must fail soon, with one error line that contains every part of `says`. Returns that line.
pub(crate) fn fails(mut command: Command, says: &[&str]) -> String {
    let begun = Instant::now();
    let output = command.output().unwrap();
    assert!(begun.elapsed() < 2 * PROMPTLY, "{command:?} took {:?}", begun.elapsed());
    one_error(&output, says)
}

/// The only line of a failed job that is an error. It must contain every part of `says`.
pub(crate) fn one_error(output: &Output, says: &[&str]) -> String {
    let written = text(&output.stderr);
    assert!(!output.status.success(), "{written}");
    let errors: Vec<&str> = written.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors[..] else { panic!("one error line: {written}") };
    for part in says {
        assert!(error.contains(part), "{error:?} should say {part:?}");
    }
    assert!(!written.contains("panicked"), "{written}");
    error.into()
}

/// Starts a job in the background.
pub(crate) fn start(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of a job, which must come soon.
pub(crate) fn ends_promptly(mut child: Child) -> Output {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PROMPTLY, "the job goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

/// The processes of the ranks of a job, in no order.
pub(crate) fn ranks_of(launcher: &Child) -> Vec<u32> {
    let output = Command::new("pgrep").args(["-P", &launcher.id().to_string()]).output().unwrap();
    text(&output.stdout).lines().map(|line| line.parse().unwrap()).collect()
}

/// Sends `signal`, such as `-STOP`, to a process.
pub(crate) fn signal(process: u32, signal: &str) {
    let _ = Command::new("kill").args([signal, &process.to_string()]).status();
}

/// Waits until `path` exists.
pub(crate) fn wait_for(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{} is missing", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
