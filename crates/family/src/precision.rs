//! The formats in which values are stored.

use std::fmt;
use std::str::FromStr;

use block_transformer_layers::pack;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::module_path::ModulePath;

/// The float formats in which a model is stored. Sums, norms, softmax and losses are f32 in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// All values in f32.
    #[default]
    F32,
    /// The matrices of linear layers in bf16; embeddings, norms, biases, an LM head tied to an
    /// embedding, and all activations in f32.
    Bf16Weights,
    /// KV caches in bf16.
    Bf16Cache,
    /// The operands of matrix products in bf16. In training, weights are still stored in f32 and cast
    /// for each product. In inference, the matrices of linear layers and the KV caches are bf16.
    Bf16,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 4] = [Self::F32, Self::Bf16Weights, Self::Bf16Cache, Self::Bf16];

    /// The precision with the matrices of linear layers in bf16 if `weights`, and KV caches in bf16 if
    /// `cache`.
    pub fn of(weights: bool, cache: bool) -> Self {
        match (weights, cache) {
            (false, false) => Self::F32,
            (true, false) => Self::Bf16Weights,
            (false, true) => Self::Bf16Cache,
            (true, true) => Self::Bf16,
        }
    }

    /// The format of the matrices of linear layers.
    pub fn matrices(self) -> FloatFormat {
        match self {
            Self::F32 | Self::Bf16Cache => FloatFormat::F32,
            Self::Bf16Weights | Self::Bf16 => FloatFormat::Bf16,
        }
    }

    /// The format of KV caches. The cost model takes it for activations too. All parameters besides the
    /// matrices of linear layers are f32.
    pub fn values(self) -> FloatFormat {
        match self {
            Self::F32 | Self::Bf16Weights => FloatFormat::F32,
            Self::Bf16Cache | Self::Bf16 => FloatFormat::Bf16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::Bf16Weights => "bf16-weights",
            Self::Bf16Cache => "bf16-cache",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = ParsePrecisionError;

    fn from_str(text: &str) -> Result<Self, ParsePrecisionError> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16-weights" => Ok(Self::Bf16Weights),
            "bf16-cache" => Ok(Self::Bf16Cache),
            "bf16" => Ok(Self::Bf16),
            _ => Err(ParsePrecisionError(text.into())),
        }
    }
}

/// A text that names no [`Precision`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a precision; use `f32`, `bf16-weights`, `bf16-cache` or `bf16`")]
pub struct ParsePrecisionError(pub String);

/// A float format of stored values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatFormat {
    /// IEEE single precision.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl FloatFormat {
    /// Bytes per value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl fmt::Display for FloatFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

impl From<FloatFormat> for DType {
    fn from(format: FloatFormat) -> Self {
        match format {
            FloatFormat::F32 => Self::F32,
            FloatFormat::F16 => Self::F16,
            FloatFormat::Bf16 => Self::BF16,
        }
    }
}

/// `model` with the matrices of its linear layers in `format`.
pub(crate) fn with_matrices<M: Module>(model: M, format: FloatFormat) -> M {
    model.map(&mut CastMatrices { format: format.into(), at: ModulePath::default() })
}

/// `model` with the matrices of its linear layers in panels, where a kernel multiplies by them.
pub(crate) fn packed<M: Module>(model: M) -> M {
    model.map(&mut PackMatrices(ModulePath::default()))
}

struct PackMatrices(ModulePath);

impl ModuleMapper for PackMatrices {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.0.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D != 2 || self.0.linear_layer().is_none() {
            return param;
        }
        param.map(|tensor| {
            let [d_in, d_out] = [tensor.dims()[0], tensor.dims()[1]];
            match pack(&tensor.clone().reshape([d_in, d_out])) {
                Some(packed) => {
                    let shape: Vec<usize> = packed.dims().into();
                    packed.reshape(std::array::from_fn::<usize, D, _>(|i| shape[i]))
                }
                None => tensor,
            }
        })
    }
}

struct CastMatrices {
    format: DType,
    at: ModulePath,
}

impl ModuleMapper for CastMatrices {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.at.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let is_matrix = D == 2 && self.at.linear_layer().is_some();
        if is_matrix { param.map(|tensor| tensor.cast(self.format)) } else { param }
    }
}

/// Bytes of the parameters of `model` as they are stored.
pub(crate) fn stored_bytes<M: Module>(model: &M) -> u64 {
    let mut bytes = Bytes(0);
    model.visit(&mut bytes);
    bytes.0
}

struct Bytes(u64);

impl ModuleVisitor for Bytes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        self.0 += (tensor.shape().num_elements() * tensor.dtype().size()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precisions_parse_as_they_print() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert_eq!("f16".parse::<Precision>(), Err(ParsePrecisionError("f16".into())));
    }
}
