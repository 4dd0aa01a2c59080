//! The formats in which values are stored.

use std::fmt;
use std::str::FromStr;

use block_transformer_layers::{is_packed, pack, quantize};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::module_path::ModulePath;
use crate::stacks::StackShape;

/// The formats in which a model is stored. Sums, norms, softmax and losses are f32 in each.
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
    /// The matrices of linear layers as integers of 8 bits with a scale per column; the rest like
    /// [`Bf16Weights`](Self::Bf16Weights). For inference on burn-flex.
    Int8Weights,
    /// Like [`Int8Weights`](Self::Int8Weights), with KV caches in bf16.
    Int8WeightsBf16Cache,
    /// KV caches in integers of 8 bits, with a scale per key and value. For inference on burn-flex, like
    /// the formats below.
    Int8Cache,
    /// Like [`Bf16Weights`](Self::Bf16Weights), with KV caches in integers.
    Bf16WeightsInt8Cache,
    /// Like [`Int8Weights`](Self::Int8Weights), with KV caches in integers.
    Int8,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::Bf16Weights,
        Self::Bf16Cache,
        Self::Bf16,
        Self::Int8Weights,
        Self::Int8WeightsBf16Cache,
        Self::Int8Cache,
        Self::Bf16WeightsInt8Cache,
        Self::Int8,
    ];

    /// The precision with the matrices of linear layers in `matrices`, and KV caches in `cache`.
    pub fn of(matrices: MatrixFormat, cache: CacheFormat) -> Self {
        match (matrices, cache) {
            (MatrixFormat::F32, CacheFormat::F32) => Self::F32,
            (MatrixFormat::F32, CacheFormat::Bf16) => Self::Bf16Cache,
            (MatrixFormat::F32, CacheFormat::Int8) => Self::Int8Cache,
            (MatrixFormat::Bf16, CacheFormat::F32) => Self::Bf16Weights,
            (MatrixFormat::Bf16, CacheFormat::Bf16) => Self::Bf16,
            (MatrixFormat::Bf16, CacheFormat::Int8) => Self::Bf16WeightsInt8Cache,
            (MatrixFormat::Int8, CacheFormat::F32) => Self::Int8Weights,
            (MatrixFormat::Int8, CacheFormat::Bf16) => Self::Int8WeightsBf16Cache,
            (MatrixFormat::Int8, CacheFormat::Int8) => Self::Int8,
        }
    }

    /// Whether all values are f32.
    pub fn is_f32(&self) -> bool {
        *self == Self::F32
    }

    /// The format of the matrices of linear layers.
    pub fn matrices(self) -> MatrixFormat {
        match self {
            Self::F32 | Self::Bf16Cache | Self::Int8Cache => MatrixFormat::F32,
            Self::Bf16Weights | Self::Bf16 | Self::Bf16WeightsInt8Cache => MatrixFormat::Bf16,
            Self::Int8Weights | Self::Int8WeightsBf16Cache | Self::Int8 => MatrixFormat::Int8,
        }
    }

    /// The format of KV caches.
    pub fn cache(self) -> CacheFormat {
        match self {
            Self::F32 | Self::Bf16Weights | Self::Int8Weights => CacheFormat::F32,
            Self::Bf16Cache | Self::Bf16 | Self::Int8WeightsBf16Cache => CacheFormat::Bf16,
            Self::Int8Cache | Self::Bf16WeightsInt8Cache | Self::Int8 => CacheFormat::Int8,
        }
    }

    /// The format of activations in the cost model. All parameters besides the matrices of linear layers
    /// are f32.
    pub fn values(self) -> FloatFormat {
        self.cache().values()
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::Bf16Weights => "bf16-weights",
            Self::Bf16Cache => "bf16-cache",
            Self::Bf16 => "bf16",
            Self::Int8Weights => "int8-weights",
            Self::Int8WeightsBf16Cache => "int8-weights-bf16-cache",
            Self::Int8Cache => "int8-cache",
            Self::Bf16WeightsInt8Cache => "bf16-weights-int8-cache",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Precision {
    type Err = ParsePrecisionError;

    fn from_str(text: &str) -> Result<Self, ParsePrecisionError> {
        let named = Self::ALL.into_iter().find(|precision| precision.to_string() == text);
        named.ok_or_else(|| ParsePrecisionError(text.into()))
    }
}

/// A text that names no [`Precision`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a precision; use one of {known}",
    known = Precision::ALL.map(|precision| format!("`{precision}`")).join(", ")
)]
pub struct ParsePrecisionError(pub String);

/// A format of the matrices of linear layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatrixFormat {
    /// IEEE single precision.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// Integers from -127 to 127 with an f32 scale per column.
    Int8,
}

impl MatrixFormat {
    /// Bytes per value, without scales.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }
}

impl fmt::Display for MatrixFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

impl From<MatrixFormat> for DType {
    fn from(format: MatrixFormat) -> Self {
        match format {
            MatrixFormat::F32 => Self::F32,
            MatrixFormat::Bf16 => Self::BF16,
            MatrixFormat::Int8 => Self::I8,
        }
    }
}

/// A format of keys and values in a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheFormat {
    /// IEEE single precision.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// Integers from -127 to 127 with an f32 scale per head of a key or value. For burn-flex.
    Int8,
}

impl CacheFormat {
    /// The format of the activations beside the cache.
    pub fn values(self) -> FloatFormat {
        match self {
            Self::Bf16 => FloatFormat::Bf16,
            Self::F32 | Self::Int8 => FloatFormat::F32,
        }
    }

    /// Bytes of a cached position of `stack` in all layers.
    pub fn bytes(self, stack: &StackShape) -> usize {
        match self {
            // T5 stacks have no caches of integers
            Self::Int8 if !stack.cross_attention => {
                stack.kv_values() + 2 * stack.layers * stack.heads * FloatFormat::F32.bytes()
            }
            format => stack.kv_values() * format.values().bytes(),
        }
    }
}

impl fmt::Display for CacheFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

impl From<CacheFormat> for DType {
    fn from(format: CacheFormat) -> Self {
        match format {
            CacheFormat::F32 => Self::F32,
            CacheFormat::Bf16 => Self::BF16,
            CacheFormat::Int8 => Self::I8,
        }
    }
}

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

/// `model` with the matrices of its linear layers in `format`. A matrix for which the device has no integers stays
/// as it is.
pub(crate) fn with_matrices<M: Module>(model: M, format: MatrixFormat) -> M {
    match format {
        MatrixFormat::F32 => model,
        MatrixFormat::Bf16 => map_matrices(model, |matrix| Some(matrix.clone().cast(DType::BF16))),
        MatrixFormat::Int8 => map_matrices(model, quantize),
    }
}

/// `model` with the matrices of its linear layers in panels, where a kernel multiplies by them.
pub(crate) fn packed<M: Module>(model: M) -> M {
    map_matrices(model, pack)
}

/// `model` with `map` of each matrix of a linear layer for which it is not `None`.
fn map_matrices<M: Module>(model: M, map: fn(&Tensor<2>) -> Option<Tensor<2>>) -> M {
    model.map(&mut MapMatrices { map, at: ModulePath::default() })
}

struct MapMatrices {
    map: fn(&Tensor<2>) -> Option<Tensor<2>>,
    at: ModulePath,
}

impl ModuleMapper for MapMatrices {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.at.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D != 2 || self.at.linear_layer().is_none() {
            return param;
        }
        param.map(|tensor| {
            let [d_in, d_out] = [tensor.dims()[0], tensor.dims()[1]];
            match (self.map)(&tensor.clone().reshape([d_in, d_out])) {
                Some(mapped) => {
                    let shape = mapped.dims();
                    mapped.reshape(std::array::from_fn::<usize, D, _>(|i| shape[i]))
                }
                None => tensor,
            }
        })
    }
}

/// Whether all matrices of linear layers of `model` are in panels.
pub(crate) fn all_packed<M: Module>(model: &M) -> bool {
    let mut packed = AllPacked { all: true, at: ModulePath::default() };
    model.visit(&mut packed);
    packed.all
}

struct AllPacked {
    all: bool,
    at: ModulePath,
}

impl ModuleVisitor for AllPacked {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.at.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D == 2 && self.at.linear_layer().is_some() {
            let [rows, columns] = [0, 1].map(|dim| param.val().dims()[dim]);
            self.all &= is_packed(&param.val().reshape([rows, columns]));
        }
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
