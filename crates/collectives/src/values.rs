//! Values of tensors on the host, and their format between processes.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{Device, Tensor};
use half::bf16;
use serde::{Deserialize, Serialize};

/// The format of summed values between processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    /// 4 bytes per value.
    #[default]
    F32,
    /// 2 bytes per value. Each rank rounds its values to bf16, the sum is computed in f32 and rounded
    /// once more.
    Bf16,
}

impl Wire {
    /// Bytes per value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Wire {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err("must be f32 or bf16".into()),
        }
    }
}

/// The values of several tensors on the host, one tensor after the other.
pub(crate) struct Values {
    lengths: Vec<usize>,
    device: Device,
    /// All values.
    pub(crate) values: Vec<f32>,
}

impl Values {
    /// Copies `tensors`, which are on one device; `None` without tensors.
    pub(crate) fn of(tensors: Vec<Tensor<1>>) -> Option<Self> {
        let lengths = tensors.iter().map(|tensor| tensor.dims()[0]).collect();
        let device = tensors.first()?.device();
        let values = Tensor::cat(tensors, 0).into_data().iter::<f32>().collect();
        Some(Self { lengths, device, values })
    }

    /// `values` as tensors like those that these values came from.
    pub(crate) fn tensors(&self, values: &[f32]) -> Vec<Tensor<1>> {
        let mut rest = values;
        let tensor = |&length: &usize| {
            let (values, after) = rest.split_at(length);
            rest = after;
            Tensor::from_data(values, &self.device)
        };
        self.lengths.iter().map(tensor).collect()
    }
}

/// Adds `part` to `sum`.
pub(crate) fn add(sum: &mut [f32], part: &[f32]) {
    sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
}

/// Adds `part` in bf16 to `sum`.
#[cfg_attr(not(feature = "mpi"), allow(dead_code, reason = "only processes round"))]
pub(crate) fn add_bf16(sum: &mut [f32], part: &[u16]) {
    sum.iter_mut().zip(part).for_each(|(sum, &bits)| *sum += bf16::from_bits(bits).to_f32());
}

/// `values` rounded to bf16, as bits.
#[cfg_attr(not(feature = "mpi"), allow(dead_code, reason = "only processes round"))]
pub(crate) fn to_bf16(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&value| bf16::from_f32(value).to_bits()).collect()
}
