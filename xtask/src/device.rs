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
    /// Whether it computes on the processor, with the machine's own memory.
    pub fn is_cpu(self) -> bool {
        matches!(self, Self::Flex | Self::Ndarray)
    }

    /// What `--device` calls it.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().into())
    }

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
                let name = other.name();
                bail!(
                    "--device {name}: this build has no {name} backend; run `cargo run --package xtask \
                     --features {name} -- ...` instead of `cargo xtask ...`"
                )
            }
        }
    }
}
