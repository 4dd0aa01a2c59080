//! `doctor`

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use block_transformer_bench::table;
use block_transformer_check::{
    Examined, Finding, Limit, Wanted, doctor, examine, examine_in_child, is_usable, this_program,
};
use block_transformer_device::DeviceName;
use block_transformer_device::probe::CudaParts;

use crate::device;

/// The time that a device may take to compute 1 + 1.
const TYPES_LIMIT: Limit = Limit(Duration::from_secs(20));
/// The time that the measurement of its peaks may take.
const PEAKS_LIMIT: Limit = Limit(Duration::from_secs(60));

/// Arguments of `doctor`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Device that must be usable; its peaks are measured
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
    /// Only use the device, and write what it shows to this file
    #[arg(long, value_name = "FILE", hide = true)]
    examine: Option<PathBuf>,
    /// With --examine: measure the peaks
    #[arg(long, hide = true)]
    peaks: bool,
}

impl Args {
    /// Prints the findings; fails if the device cannot be used.
    pub(crate) fn run(self) -> Result<ExitCode> {
        if let Some(path) = &self.examine {
            return write_examined(self.device, self.peaks, path);
        }
        let examiner = Examiner::new()?;
        let findings = doctor(self.device, &CudaParts::of_system(), &|name, wanted| {
            examiner.run(name, wanted)
        });
        print(&findings);
        let usable = is_usable(&findings, self.device);
        let can = if usable { "can" } else { "cannot" };
        say!("\nthe device {} {can} be used", self.device);
        Ok(if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn print(findings: &[Finding]) {
    let rows = findings.iter().map(|finding| {
        let (found, remedy) = (finding.found.replace('\n', " "), finding.remedy.clone());
        let remedy = remedy.map_or_else(String::new, |remedy| format!("remedy: {remedy}"));
        let all = if remedy.is_empty() { found } else { format!("{found}\n{remedy}") };
        vec![finding.subject.clone(), finding.state.to_string(), all]
    });
    say!("{}", table(&["", "state", "found"], 3, rows).trim_fmt());
}

fn write_examined(device: DeviceName, peaks: bool, path: &Path) -> Result<ExitCode> {
    device::open(device)?;
    let examined = examine(device, if peaks { Wanted::Peaks } else { Wanted::Types })?;
    block_transformer_files::write(path, &serde_json::to_vec(&examined)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Uses devices in processes of their own, because a faulty driver can end a process.
pub(super) struct Examiner {
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Examiner {
    /// Creates a folder for what the processes write.
    pub(super) fn new() -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot create a folder")?;
        Ok(Self { program: this_program()?, folder })
    }

    /// Uses a device; the error says why it cannot be used.
    pub(super) fn run(&self, name: DeviceName, wanted: Wanted) -> Result<Examined, String> {
        let result = self.folder.path().join("examined.json");
        let mut command = Command::new(&self.program);
        command.args(["doctor", "--device", &name.to_string(), "--examine"]).arg(&result);
        let limit = if wanted == Wanted::Peaks {
            command.arg("--peaks");
            PEAKS_LIMIT
        } else {
            TYPES_LIMIT
        };
        examine_in_child(command, limit, &result)
    }
}
