//! `gpu-tests`

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, anyhow, ensure};

/// The script, below the root of the checkout.
const SCRIPT: &str = ".ci/gpu";
/// Programs that the script and `tests/gpu/setup.sh` start, and what provides them.
const PROGRAMS: [(&str, &[&str], &str); 6] = [
    ("bash", &["--version"], "bash"),
    ("cargo", &["--version"], "Rust (rustup.rs)"),
    ("cc", &["--version"], "a C compiler, such as gcc"),
    ("python3", &["-m", "pip", "--version"], "Python 3 with pip"),
    ("awk", &["BEGIN { exit 0 }"], "awk"),
    ("apt-get", &["--version"], "Debian or Ubuntu, for the packages of SwiftShader"),
];

/// Arguments of `gpu-tests`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out what CI has no time for
    #[arg(long)]
    quick: bool,
}

impl Args {
    /// Runs the tests of the GPU code that need no GPU.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let root = root()?;
        let missing: Vec<String> = PROGRAMS
            .into_iter()
            .filter(|(program, arguments, _)| !runs(program, arguments))
            .map(|(program, _, provider)| format!("`{program}` (install {provider})"))
            .collect();
        ensure!(missing.is_empty(), "these tests need {}", missing.join(", "));
        let script = root.join(SCRIPT);
        let mut command = Command::new("bash");
        command.arg(&script).current_dir(&root);
        if !self.quick {
            command.arg("--all");
        }
        let status = command.status().map_err(|error| anyhow!("{}: {error}", script.display()))?;
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Returns the root of the checkout: the parent of the package that cargo runs, or else the current
/// folder.
fn root() -> Result<PathBuf> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let checkout = package.as_deref().and_then(Path::parent).map(PathBuf::from);
    let folders = [checkout, std::env::current_dir().ok()].into_iter().flatten();
    let found = folders.into_iter().find(|folder| folder.join(SCRIPT).is_file());
    found.ok_or_else(|| anyhow!("no {SCRIPT} here: run the command in a checkout of the project"))
}

/// Returns whether a program can be started and succeeds.
fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
