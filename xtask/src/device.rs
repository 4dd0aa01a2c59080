//! `--device`, `--weights`, `--cache`, `--precision` and `--dtype`.

use std::ffi::OsStr;

use crate::program;
use anyhow::{Result, bail, ensure};
use block_transformer_device::{DeviceError, DeviceName};
use block_transformer_weights::FloatFormat;
use block_transformer_zoo::Precision;
use block_transformer_zoo::family::{CacheFormat, MatrixFormat};
use burn::tensor::{DType, Device};
use bytesize::ByteSize;
use clap::builder::{PossibleValue, PossibleValuesParser, StringValueParser, TypedValueParser};
use clap::{Arg, Command};
use serde::Deserialize;
use serde::de::value::StringDeserializer;

/// Parses `--device`, and lists the devices in `--help`.
pub(crate) fn parser() -> impl TypedValueParser<Value = DeviceName> {
    DeviceParser
}

#[derive(Clone)]
struct DeviceParser;

impl TypedValueParser for DeviceParser {
    type Value = DeviceName;

    fn parse_ref(
        &self,
        command: &Command,
        flag: Option<&Arg>,
        value: &OsStr,
    ) -> Result<DeviceName, clap::Error> {
        StringValueParser::new()
            .try_map(|name| name.parse::<DeviceName>())
            .parse_ref(command, flag, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let value =
            |device: DeviceName| PossibleValue::new(device.name()).help(device.description());
        Some(Box::new(DeviceName::ALL.into_iter().map(value)))
    }
}

/// Opens the device of `--device`.
pub(crate) fn open(name: DeviceName) -> Result<Device> {
    name.open().map_err(|error| {
        if matches!(error, DeviceError::Unusable { .. }) {
            return anyhow::anyhow!("--device {name}: {error}");
        }
        let DeviceError::NotBuilt(device) = &error else { return error.into() };
        let (feature, package) = (device.feature(), env!("CARGO_PKG_NAME"));
        let remedy = if program::name() == env!("CARGO_BIN_NAME") {
            format!("install with `cargo install --path xtask --features {feature}`")
        } else {
            format!(
                "run `cargo run --package {package} --features {feature} -- ...` instead of `cargo xtask ...`"
            )
        };
        anyhow::anyhow!("--device {device}: this build has no such device; {remedy}")
    })
}

/// `--weights` and `--cache`.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct StorageFlags {
    /// Storage format of the matrices: f32, bf16 with half the memory traffic, or int8 with a quarter
    #[arg(long, value_name = "FORMAT", value_parser = matrices(), default_value = "f32")]
    pub(crate) weights: MatrixFormat,
    /// Storage format of keys and values: f32, bf16 with half the memory, or int8 with about a quarter
    #[arg(long, value_name = "FORMAT", value_parser = stored(), default_value = "f32")]
    pub(crate) cache: CacheFormat,
}

impl StorageFlags {
    /// The precision of a model stored like this.
    pub(crate) fn precision(self) -> Precision {
        Precision::of(self.weights, self.cache)
    }

    /// Checks that `device` has the formats.
    pub(crate) fn check(self, name: DeviceName, device: &Device) -> Result<()> {
        let cache = self.cache;
        check_weights(self.weights, name, device)?;
        let has_cache = match cache {
            CacheFormat::Int8 => name == DeviceName::Flex,
            float => device.supports_dtype(DType::from(float)),
        };
        ensure!(
            has_cache,
            "--cache {cache}: --device {name} has no {cache}; use f32, or --device flex"
        );
        Ok(())
    }
}

/// The memory that may be used: the `given` size, otherwise all memory of the device if its size is known.
pub(crate) fn memory(given: Option<ByteSize>, device: DeviceName) -> Result<Option<u64>> {
    let available = device.memory().map(ByteSize);
    if let (Some(given), Some(available)) = (given, available)
        && given > available
    {
        bail!("--memory {given}: this machine has {available}; give less, or leave it out");
    }
    Ok(given.or(available).map(|size| size.as_u64()))
}

/// Checks that `device` multiplies matrices in the format of `--weights`.
fn check_weights(weights: MatrixFormat, name: DeviceName, device: &Device) -> Result<()> {
    let has_weights = match weights {
        MatrixFormat::Int8 => name == DeviceName::Flex,
        MatrixFormat::Bf16 => name.multiplies_bf16(device),
        MatrixFormat::F32 => true,
    };
    ensure!(
        has_weights,
        "--weights {weights}: --device {name} has no products with {weights}; use f32, or --device flex"
    );
    Ok(())
}

/// Parses a format of `--weights`.
pub(crate) fn matrices() -> impl TypedValueParser<Value = MatrixFormat> {
    // the alias is an older name
    let formats = [
        PossibleValue::new("f32"),
        PossibleValue::new("bf16").alias("bf16-weights"),
        PossibleValue::new("int8"),
    ];
    PossibleValuesParser::new(formats).map(|name| match name.as_str() {
        "f32" => MatrixFormat::F32,
        "int8" => MatrixFormat::Int8,
        _ => MatrixFormat::Bf16,
    })
}

/// Parses a format of `--cache`.
pub(crate) fn stored() -> impl TypedValueParser<Value = CacheFormat> {
    PossibleValuesParser::new(["f32", "bf16", "int8"]).map(|name| match name.as_str() {
        "f32" => CacheFormat::F32,
        "int8" => CacheFormat::Int8,
        _ => CacheFormat::Bf16,
    })
}

/// Parses `--precision`.
pub(crate) fn training_precision() -> impl TypedValueParser<Value = Precision> {
    let formats = [
        PossibleValue::new("f32").help("4 bytes per value"),
        PossibleValue::new("bf16").help("2 bytes per value; faster on GPUs"),
    ];
    PossibleValuesParser::new(formats).try_map(|name| name.parse::<Precision>())
}

/// Parses `--dtype`.
pub(crate) fn float_format() -> impl TypedValueParser<Value = FloatFormat> {
    PossibleValuesParser::new(["f32", "f16", "bf16"]).try_map(|name| {
        FloatFormat::deserialize(StringDeserializer::<serde::de::value::Error>::new(name))
    })
}
