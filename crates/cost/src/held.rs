//! The activations that a layer keeps for its backward pass.
//!
//! Each operation keeps what its derivative needs. The counts below follow the operations of
//! `crates/layers`, with the derivatives of burn's autodiff and of the kernels.

use block_transformer_device::DeviceName;
use block_transformer_family::StackShape;

/// The set of operations that a device runs, which decides what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// flex: kernels for the layers of GPT-NeoX and the loss; burn's operations for the norms of other layers.
    /// Operands of products in bf16 are kept in f32. Measured.
    Flex,
    /// CubeCL: kernels for self-attention and layer norm. Operands of products in bf16, and the input of
    /// GELU, are kept in bf16. Measured with a driver that computes nothing.
    Cube,
}

/// The share of a GPU's memory that a plan fills. Fragments of CubeCL's pools and the context of the
/// driver take the rest. On the driver that computes nothing, 0.92 was enough (docs/gpu.md).
const USABLE: f64 = 0.85;

impl Holding {
    /// Returns the bytes of `memory` bytes of a device that tensors can fill.
    pub fn usable(self, memory: f64) -> f64 {
        match self {
            Self::Flex => memory,
            Self::Cube => USABLE * memory,
        }
    }
}

impl From<DeviceName> for Holding {
    fn from(device: DeviceName) -> Self {
        match device {
            DeviceName::Flex | DeviceName::Ndarray => Self::Flex,
            _ => Self::Cube,
        }
    }
}

/// The kinds of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    NeoX,
    Roberta,
    T5 {
        /// Encoder states per sequence.
        states: usize,
    },
}

/// Bytes per value of f32.
pub(crate) const F32: f64 = 4.0;

/// What a stack of layers keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layers {
    pub kind: Kind,
    pub shape: StackShape,
    /// Positions of a sequence that attend to each other.
    pub time: f64,
    pub holding: Holding,
    /// Whether the operands of products are bf16.
    pub narrow: bool,
}

impl Layers {
    /// Bytes per value of a kept operand of a product.
    fn operand(&self) -> f64 {
        if self.narrow && self.holding == Holding::Cube { 2.0 } else { F32 }
    }

    /// Bytes of a copy of a value that another operation keeps as well: rounding makes one for a
    /// product.
    fn copied(&self) -> f64 {
        if self.narrow { self.operand() } else { 0.0 }
    }

    /// Bytes of an input that several products share; each rounds its own copy.
    fn shared(&self, products: f64) -> f64 {
        if self.narrow { products * self.operand() } else { F32 }
    }

    /// Bytes that the MLP keeps per position between its matrices: the input of GELU, on CubeCL in the
    /// format of operands, and its output, an operand.
    fn gelu(&self) -> f64 {
        let input = if self.holding == Holding::Cube { self.operand() } else { F32 };
        self.shape.mlp_width as f64 * (input + self.operand())
    }

    /// Bytes per position that a layer keeps for its backward pass.
    pub(crate) fn kept(&self) -> f64 {
        let StackShape { width, kv_width, mlp_width, heads, sequential, .. } = self.shape;
        let [h, a, f, heads] = [width, kv_width, mlp_width, heads].map(|size| size as f64);
        let inputs = if sequential { 2.0 } else { 1.0 };
        match (self.kind, self.holding) {
            // the inputs of the norms, with two values per row and norm, their outputs, qkv, the output of
            // attention and its denominators
            (Kind::NeoX, Holding::Flex) => {
                let norms = (inputs + 2.0) * h + 4.0;
                (norms + 4.0 * h + heads) * F32 + h * self.copied() + self.gelu()
            }
            (Kind::NeoX, Holding::Cube) => {
                (inputs + 3.0) * h * F32 + 3.0 * h * self.operand() + self.gelu()
            }
            (Kind::Roberta, _) => {
                let norms = 2.0 * (2.0 * h + 2.0) * F32;
                let inputs = h * self.shared(3.0) + 2.0 * h * self.operand();
                norms + inputs + (3.0 * h + heads * SCORES * self.time) * F32 + self.gelu()
            }
            (Kind::T5 { states }, _) => {
                let keys = self.time + states as f64;
                let norms = (6.0 * h + 3.0) * F32;
                let inputs = h * self.shared(3.0) + 2.0 * h * self.operand();
                let attention = 4.0 * a * F32 + 2.0 * a * self.operand();
                let fed = f * (F32 + self.copied());
                norms + inputs + attention + heads * SCORES * keys * F32 + fed
            }
        }
    }

    /// Bytes per position that a layer holds while it runs without gradients: its input, the normalized input
    /// and the output of attention, the MLP before and after its activation, and the scores of composed
    /// attention.
    pub(crate) fn alone(&self) -> f64 {
        let [h, f, heads] =
            [self.shape.width, self.shape.mlp_width, self.shape.heads].map(|size| size as f64);
        let scores = match self.kind {
            Kind::NeoX => 0.0,
            Kind::Roberta => heads * SCORES * self.time,
            Kind::T5 { states } => heads * SCORES * (self.time + states as f64),
        };
        (3.0 * h + (2.0 * f).max(scores)) * F32
    }

    /// Bytes per position that the backward pass of a layer needs besides what the layer keeps:
    /// gradients of the residual stream, and of the MLP before and after its activation. A sum of the kernel and
    /// its terms have one gradient.
    pub(crate) fn working(&self) -> f64 {
        let [h, f, heads] =
            [self.shape.width, self.shape.mlp_width, self.shape.heads].map(|size| size as f64);
        let scores = match self.kind {
            Kind::NeoX => 0.0,
            Kind::Roberta | Kind::T5 { .. } => 2.0 * heads * self.time,
        };
        let streams = match (self.kind, self.holding) {
            (Kind::NeoX, Holding::Flex) => 2.0,
            _ => 4.0,
        };
        (streams * h + 2.0 * f + scores) * F32
    }
}

/// Values that composed attention keeps per score: the numerators of the softmax, and the softmax.
const SCORES: f64 = 2.0;
