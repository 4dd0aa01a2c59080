//! `--device`: which of burn's backends computes.

use anyhow::{Result, bail, ensure};
use block_transformer_cost::Number;
use block_transformer_zoo::LanguageModel;
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

/// What matrices are stored in; everything is computed in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Weights {
    /// 4 bytes a number
    #[default]
    F32,
    /// 2 bytes a number: half the memory traffic of a small batch
    Bf16,
}

impl Weights {
    /// `model` with its matrices stored so.
    pub fn of(self, model: LanguageModel) -> LanguageModel {
        match self {
            Self::F32 => model,
            Self::Bf16 => model.with_bf16_matrices(),
        }
    }

    /// The same for the cost model.
    pub fn number(self) -> Number {
        match self {
            Self::F32 => Number::F32,
            Self::Bf16 => Number::Bf16,
        }
    }

    /// # Errors
    /// When `device` cannot compute with them.
    pub fn check(self, device: DeviceName) -> Result<()> {
        ensure!(
            self == Self::F32 || device != DeviceName::Ndarray,
            "--weights bf16: --device ndarray has no bf16; use --device flex"
        );
        Ok(())
    }
}

impl DeviceName {
    /// Whether it computes on the processor, with the machine's own memory.
    pub fn is_cpu(self) -> bool {
        matches!(self, Self::Flex | Self::Ndarray)
    }

    /// Bytes of memory it has, where that is known: the machine's own.
    pub fn memory(self) -> Option<u64> {
        crate::memory::of_machine().filter(|_| self.is_cpu())
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
