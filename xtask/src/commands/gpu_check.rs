//! `gpu-check`

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Error, Result, anyhow, bail};
use block_transformer_bench::size;
use block_transformer_check::{
    Bundle, CheckError, CheckSettings, Part, PartState, golden_folder, run_all, run_part,
    this_program,
};
use block_transformer_cost::Lengths;
use block_transformer_device::DeviceName;

use super::doctor::Examiner;
use super::inputs::{preset, presets};
use crate::counts::{count, positive};
use crate::{device, paths};

/// Arguments of `gpu-check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Device to check
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value = "cuda")]
    device: DeviceName,
    /// Less of everything, in under 8 minutes
    #[arg(long)]
    quick: bool,
    /// Folder for the results and report.md
    #[arg(long, value_name = "DIR", default_value = "gpu-check")]
    out: PathBuf,
    /// Run the parts of the check in --out that have no result yet
    #[arg(long)]
    resume: bool,
    /// Folder of recorded cases [default: tests/golden of the checkout, or else `golden` beside this
    /// program]
    #[arg(long, value_name = "DIR")]
    golden: Option<PathBuf>,
    /// Presets whose decoding is compared and whose speed is measured [default:
    /// block-170m,vanilla-160m]
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    presets: Vec<String>,
    /// Preset that is trained for the loss curve and the memory test [default: small-block]
    #[arg(long, value_name = "NAME")]
    curve_preset: Option<String>,
    /// Training steps of the loss curve and of the memory test [default: 300 and 2000; quick: 50 and
    /// 100]
    #[arg(long, value_name = "N", value_parser = positive())]
    steps: Option<usize>,
    /// Tokens of prompt and continuation whose decoding speed is measured [default:
    /// 2048:128,128:2048,8192:128; quick: 128:64]
    #[arg(long, value_delimiter = ',', value_name = "PROMPT:NEW,..")]
    lengths: Vec<Lengths>,
    /// Sequences decoded together [default: as many as fit into 60% of the GPU's memory; quick: 64]
    #[arg(long, value_name = "N", value_parser = count())]
    batch: Option<usize>,
    /// Tokens per sequence of the training steps whose speed is measured [default: 2048]
    #[arg(long, value_name = "TOKENS", value_parser = count())]
    context: Option<usize>,
    /// Write a folder that a machine without Rust needs for this command, and an archive of it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["quick", "resume", "out"])]
    bundle: Option<PathBuf>,
    /// Run one part of the check in --out
    #[arg(long, value_name = "PART", hide = true)]
    part: Option<String>,
}

impl Args {
    /// Runs all parts, or writes a bundle; fails if a part fails.
    pub(crate) fn run(self) -> Result<ExitCode> {
        if let Some(name) = &self.part {
            return part(name, &self.out);
        }
        let golden = self.golden()?;
        if let Some(dir) = &self.bundle {
            return bundle(dir, &golden);
        }
        // a device that cannot be opened fails here, and not in every part
        device::open(self.device)?;
        paths::output_folder("--out", &self.out)?;
        let settings = self.settings(golden)?;
        let program = this_program()?;
        let command = |part: Part| {
            let mut command = Command::new(&program);
            command.args(["gpu-check", "--part", &part.name(), "--out"]).arg(&self.out);
            command
        };
        let mut failed = 0;
        run_all(&settings, &self.out, self.resume, &command, &mut |result| {
            failed += usize::from(result.state != PartState::Passed);
            say!(
                "{:<12} {} ({:.1} s): {}",
                result.part,
                result.state,
                result.seconds,
                result.summary
            );
        })
        .map_err(with_flags)?;
        say!("report {}", self.out.join("report.md").display());
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn golden(&self) -> Result<PathBuf> {
        let Some(golden) = &self.golden else {
            let checkout = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
            let checkout = checkout.as_deref().and_then(Path::parent);
            return golden_folder(checkout)
                .map_err(|error| anyhow!("{error}; name it with --golden"));
        };
        if !golden.is_dir() {
            bail!("--golden {}: there is no such folder", golden.display());
        }
        std::path::absolute(golden).with_context(|| format!("--golden {}", golden.display()))
    }

    fn settings(&self, golden: PathBuf) -> Result<CheckSettings> {
        let mut settings = match self.quick {
            true => CheckSettings::quick(self.device),
            false => CheckSettings::full(self.device),
        };
        settings.golden = golden;
        if !self.presets.is_empty() {
            presets(&self.presets)?;
            settings.presets.clone_from(&self.presets);
        }
        if let Some(name) = &self.curve_preset {
            preset(name)?;
            settings.curve_preset.clone_from(name);
        }
        if let Some(steps) = self.steps {
            (settings.curve_steps, settings.soak_steps) = (steps as u64, steps as u64);
        }
        if !self.lengths.is_empty() {
            settings.lengths = self.lengths.iter().map(Lengths::to_string).collect();
        }
        settings.batch = self.batch.or(settings.batch);
        settings.train_context = self.context.unwrap_or(settings.train_context);
        Ok(settings)
    }
}

/// Runs one part in this process.
fn part(name: &str, out: &Path) -> Result<ExitCode> {
    let settings = CheckSettings::read(out)?;
    let Some(part) = Part::named(name, &settings) else { bail!("--part {name}: no such part") };
    let examiner = Examiner::new()?;
    let examine = |device, wanted| examiner.run(device, wanted);
    run_part(&settings, out, part, &examine, &mut |line| say!("{line}"))?;
    Ok(ExitCode::SUCCESS)
}

fn bundle(dir: &Path, golden: &Path) -> Result<ExitCode> {
    let bundle = Bundle::write(dir, golden).map_err(with_flags)?;
    for (path, bytes) in bundle.files.iter().filter(|(path, _)| !path.starts_with("golden")) {
        say!("{:>9} {}", size(*bytes as f64), path.display());
    }
    say!("{:>9} {} in all", size(bundle.bytes() as f64), dir.display());
    match &bundle.archive {
        Some((path, bytes)) => say!("{:>9} {}", size(*bytes as f64), path.display()),
        None => say!("no archive: this machine has no `tar` with `xz` or `zstd`"),
    }
    say!("on the other machine: {}/run.sh gpu-check --quick", dir.display());
    Ok(ExitCode::SUCCESS)
}

/// Names the flag that caused the error, and the remedy.
fn with_flags(error: CheckError) -> Error {
    match &error {
        CheckError::InUse(_) => anyhow!("--out {error} (--resume)"),
        CheckError::OtherSettings(_) => anyhow!("--resume: {error}"),
        CheckError::Exists(_) | CheckError::NotLinux | CheckError::TooLarge { .. } => {
            anyhow!("--bundle: {error}")
        }
        _ => error.into(),
    }
}
