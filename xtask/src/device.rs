//! `--device` and `--weights`.

use anyhow::{Result, ensure};
use block_transformer_cost::Number;
use block_transformer_device::{DeviceError, DeviceName};
use block_transformer_zoo::{Family, LanguageModel, Precision};
use burn::tensor::Device;
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// Parses `--device`, and lists the devices in `--help`.
pub fn parser() -> impl TypedValueParser<Value = DeviceName> {
    let value = |device: DeviceName| PossibleValue::new(device.name()).help(device.description());
    PossibleValuesParser::new(DeviceName::ALL.map(value)).try_map(|name| name.parse::<DeviceName>())
}

/// Opens the device of `--device`.
pub fn open(name: DeviceName) -> Result<Device> {
    name.open().map_err(|error| {
        let DeviceError::NotBuilt { device } = &error else { return error.into() };
        let (feature, package) = (device.feature(), env!("CARGO_PKG_NAME"));
        let remedy = if crate::program() == env!("CARGO_BIN_NAME") {
            format!("install with `cargo install --path xtask --features {feature}`")
        } else {
            format!(
                "run `cargo run --package {package} --features {feature} -- ...` instead of `cargo xtask ...`"
            )
        };
        anyhow::anyhow!("--device {device}: this build has no such device; {remedy}")
    })
}

/// What matrices are stored in; everything is computed in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Weights {
    /// 4 bytes per value
    #[default]
    F32,
    /// 2 bytes per value: half the memory traffic of a small batch
    Bf16,
}

impl Weights {
    /// `model` with its matrices stored so.
    pub fn of(self, model: LanguageModel) -> LanguageModel {
        match self {
            Self::F32 => model,
            Self::Bf16 => model.with_precision(Precision::Bf16Weights),
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
