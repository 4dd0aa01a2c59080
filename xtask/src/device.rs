//! `--device`, `--weights` and `--dtype`.

use std::ffi::OsStr;

use crate::program;
use anyhow::{Result, ensure};
use block_transformer_device::{DeviceError, DeviceName};
use block_transformer_weights::FloatFormat;
use block_transformer_zoo::Precision;
use burn::tensor::Device;
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

/// Parses `--weights`.
pub(crate) fn precision() -> impl TypedValueParser<Value = Precision> {
    let matrices = "2 bytes per value of a matrix, half the memory traffic";
    let formats = [
        PossibleValue::new("f32").help("4 bytes per value"),
        PossibleValue::new("bf16-weights").alias("bf16").help(matrices),
    ];
    PossibleValuesParser::new(formats).map(|name| match name.as_str() {
        "f32" => Precision::F32,
        _ => Precision::Bf16Weights,
    })
}

/// Parses `--dtype`.
pub(crate) fn float_format() -> impl TypedValueParser<Value = FloatFormat> {
    PossibleValuesParser::new(["f32", "f16", "bf16"]).try_map(|name| {
        FloatFormat::deserialize(StringDeserializer::<serde::de::value::Error>::new(name))
    })
}

/// Checks that the device of `--device` can compute with the weights of `--weights`.
pub(crate) fn check(device: DeviceName, precision: Precision) -> Result<()> {
    ensure!(
        precision == Precision::F32 || device != DeviceName::Ndarray,
        "--weights {precision}: --device ndarray has no bf16; use --device flex"
    );
    Ok(())
}
