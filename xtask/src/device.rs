//! `--device`: which of burn's backends computes.

use anyhow::{Result, bail};
use burn::tensor::Device;
use clap::ValueEnum;

/// Backends by their `--device` name. Each is there when the command was built with its feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DeviceName {
    /// burn-flex, the fast CPU backend
    #[default]
    Flex,
    /// burn-ndarray (deprecated by burn, kept for comparison)
    Ndarray,
    /// burn-cuda, the first GPU
    Cuda,
    /// burn-wgpu, the default adapter
    Wgpu,
}

impl DeviceName {
    /// The device.
    pub fn open(self) -> Result<Device> {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "ndarray")]
            #[expect(deprecated, reason = "supported for as long as burn has it")]
            Self::Ndarray => Ok(Device::ndarray()),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(Device::cuda(0)),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[allow(unreachable_patterns, reason = "reachable when a feature is off")]
            other => {
                let name =
                    other.to_possible_value().map_or_else(String::new, |v| v.get_name().into());
                bail!(
                    "--device {name}: this build has no {name} backend; run `cargo run --package xtask \
                     --features {name} -- ...` instead of `cargo xtask ...`"
                )
            }
        }
    }
}
