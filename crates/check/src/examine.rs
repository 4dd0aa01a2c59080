//! A device, examined by using it.

use std::path::Path;
use std::process::Command;

use block_transformer_cost::Peaks;
use block_transformer_device::DeviceName;
use block_transformer_files::FileError;
use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::child::{Limit, run_limited};
use crate::error::CheckError;

/// The questions that a device is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Whether it computes, and its float types.
    Types,
    /// Its measured peaks as well.
    Peaks,
}

/// The answers of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Examined {
    /// The value that it computed for 1 + 1.
    pub two: f32,
    /// Float types, and whether the device supports them.
    pub types: Vec<(String, bool)>,
    /// The peak of matrix products in FLOP/s, and of memory in bytes per second.
    pub peaks: Option<(f64, f64)>,
}

/// Opens a device and uses it. This can end in a panic, a crash or a hang of the process where a
/// driver is faulty; [`examine_in_child`] is safe from that.
///
/// # Errors
/// When the device cannot be opened, or fails.
pub fn examine(name: DeviceName, wanted: Wanted) -> Result<Examined, CheckError> {
    let device = name.open()?;
    let sum = Tensor::<1>::ones([1], &device) + Tensor::<1>::ones([1], &device);
    let two = sum.into_data().iter::<f32>().next().unwrap_or(f32::NAN);
    device.sync()?;
    let types = [("f32", DType::F32), ("f16", DType::F16), ("bf16", DType::BF16)];
    let computes = |dtype| match dtype {
        DType::BF16 => name.multiplies_bf16(&device),
        _ => device.supports_dtype(dtype),
    };
    let types = types.map(|(format, dtype)| (format.into(), computes(dtype))).into();
    let peaks = match wanted {
        Wanted::Types => None,
        Wanted::Peaks => {
            let peaks = Peaks::measure(name, &device)?;
            Some((peaks.flops, peaks.bandwidth))
        }
    };
    Ok(Examined { two, types, peaks })
}

/// Examines a device in another process: `command`, which must write what [`examine`] returns to the
/// file `result` as JSON. The error is a text: the last line that the process wrote.
///
/// # Errors
/// When the process cannot be started, fails or exceeds the time limit.
pub fn examine_in_child(command: Command, limit: Limit, result: &Path) -> Result<Examined, String> {
    let log = result.with_extension("log");
    let ended = run_limited(command, limit, &log).map_err(|error| error.to_string())?;
    if ended.code != Some(0) {
        let error = ended.tail.iter().rfind(|line| line.starts_with("error: "));
        let last = error.or(ended.tail.last()).map(String::as_str).unwrap_or_default();
        return Err(match (ended.code, error) {
            (Some(1), Some(error)) => error.trim_start_matches("error: ").to_string(),
            _ => format!("{}; its last line: {last}", ended.describe()),
        });
    }
    let text = std::fs::read(result).map_err(FileError::read(result));
    let text = text.map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}
