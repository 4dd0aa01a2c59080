//! The settings of a check.

use std::path::{Path, PathBuf};

use block_transformer_device::DeviceName;
use block_transformer_parity::Products;
use serde::{Deserialize, Serialize};

use crate::error::CheckError;

/// The variable that the driver of `tests/gpu/driver.c`, which computes nothing, is run with.
const DRY: &str = "DRY_CUDA_ZERO_READS";

/// The settings of a check. They are written to `settings.json`, from which the parts read them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckSettings {
    /// The device to check.
    pub device: DeviceName,
    /// Whether the parts have the short time limits.
    pub quick: bool,
    /// Presets whose decoding is compared, and whose speed is measured.
    pub presets: Vec<String>,
    /// Preset that is trained.
    pub curve_preset: String,
    /// Steps of the loss curve.
    pub curve_steps: u64,
    /// Steps of the memory test.
    pub soak_steps: u64,
    /// Tokens that are generated to compare decoding with and without caches.
    pub generated: usize,
    /// Workloads of the decoding speed: tokens of prompt and continuation.
    pub lengths: Vec<String>,
    /// Sequences decoded together to measure speed; `None` for as many as fit into 60% of the memory
    /// of the GPU.
    pub batch: Option<usize>,
    /// Time limit in seconds for the prompts, and the same for the decoding, of one measurement.
    pub seconds: f64,
    /// Sequences per training step whose speed is measured.
    pub train_batch: usize,
    /// Tokens per sequence of these training steps.
    pub train_context: usize,
    /// Counted training steps.
    pub train_steps: u64,
    /// Folder of recorded cases.
    pub golden: PathBuf,
}

impl CheckSettings {
    /// Returns the settings of a full check.
    pub fn full(device: DeviceName) -> Self {
        Self {
            device,
            quick: false,
            presets: vec!["block-170m".into(), "vanilla-160m".into()],
            curve_preset: "small-block".into(),
            curve_steps: 300,
            soak_steps: 2000,
            generated: 64,
            lengths: ["2048:128", "128:2048", "8192:128"].map(String::from).into(),
            batch: (!matches!(device, DeviceName::Cuda(_))).then_some(16),
            seconds: 20.0,
            train_batch: 8,
            train_context: 2048,
            train_steps: 10,
            golden: PathBuf::new(),
        }
    }

    /// Returns the settings of a quick check.
    pub fn quick(device: DeviceName) -> Self {
        Self {
            quick: true,
            curve_steps: 50,
            soak_steps: 100,
            generated: 32,
            lengths: vec!["128:64".into()],
            batch: Some(64),
            seconds: 5.0,
            train_batch: 4,
            train_steps: 5,
            ..Self::full(device)
        }
    }

    /// Returns whether the numbers mean nothing, because the CUDA driver computes nothing.
    pub fn is_dry(&self) -> bool {
        matches!(self.device, DeviceName::Cuda(_)) && std::env::var_os(DRY).is_some()
    }

    /// Returns how the device multiplies f32 values.
    pub fn products(&self) -> Products {
        Products::of_f32(self.device)
    }

    /// Returns the path of the settings in a folder of results.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("settings.json")
    }

    /// Reads the settings of the check in `dir`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(dir: &Path) -> Result<Self, CheckError> {
        crate::json::read(&Self::path(dir))
    }
}

/// Returns the path of the program of this process. Where `/proc` does not exist, it is the path by
/// which the program was started.
///
/// # Errors
/// When neither is known.
pub fn this_program() -> Result<PathBuf, CheckError> {
    std::env::current_exe().or_else(|error| {
        let started = std::env::args_os().next().map(PathBuf::from);
        let started = started.filter(|path| path.is_absolute() && path.is_file());
        started.ok_or(CheckError::NoProgram(error))
    })
}

/// Returns the folder of recorded cases: the first of `tests/golden` in the checkout (`checkout` if
/// it is known, or else the current folder), and `golden` beside the program.
///
/// # Errors
/// [`CheckError::NoGolden`] when there is neither.
pub fn golden_folder(checkout: Option<&Path>) -> Result<PathBuf, CheckError> {
    let mut folders = Vec::new();
    folders.extend(checkout.map(|checkout| checkout.join("tests/golden")));
    folders.extend(std::env::current_dir().ok().map(|current| current.join("tests/golden")));
    let program = this_program().ok();
    folders.extend(program.and_then(|program| Some(program.parent()?.join("golden"))));
    let found = folders.iter().find(|folder| folder.is_dir()).cloned();
    found.ok_or(CheckError::NoGolden(folders))
}
