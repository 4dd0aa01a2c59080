//! The shape of a GPT-NeoX stack.

use serde::{Deserialize, Serialize};

use super::rope_scaling::RopeScaling;
use crate::invalid::InvalidConfig;

/// Shape of a GPT-NeoX stack. The fields have the names that the published configuration
/// files use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeoXConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads per layer.
    pub num_attention_heads: usize,
    /// Width of the MLP; `None` means 4 x `hidden_size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// Fraction of each head's dimensions that is rotated.
    #[serde(default = "default_rotary_pct")]
    pub rotary_pct: f64,
    /// Base of the rotary angles.
    #[serde(default = "default_rotary_base")]
    pub rotary_emb_base: f64,
    /// Scaling of the rotary positions; `None` for the positions of training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Epsilon of the layer norms, added to the variance.
    #[serde(default = "default_eps")]
    pub layer_norm_eps: f64,
    /// If true, `x + attn(ln1 x) + mlp(ln2 x)`; otherwise the sequential residual of GPT-2.
    #[serde(default = "default_true")]
    pub use_parallel_residual: bool,
}

fn default_rotary_pct() -> f64 {
    0.25
}
fn default_rotary_base() -> f64 {
    10_000.0
}
fn default_eps() -> f64 {
    1e-5
}
fn default_true() -> bool {
    true
}

impl NeoXConfig {
    /// Keys of the configuration table.
    pub const KEYS: &[&str] = &[
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "rotary_pct",
        "rotary_emb_base",
        "rope_scaling",
        "layer_norm_eps",
        "use_parallel_residual",
    ];

    /// A configuration with the published defaults.
    pub fn new(hidden_size: usize, num_hidden_layers: usize, num_attention_heads: usize) -> Self {
        Self {
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            intermediate_size: None,
            rotary_pct: default_rotary_pct(),
            rotary_emb_base: default_rotary_base(),
            rope_scaling: None,
            layer_norm_eps: default_eps(),
            use_parallel_residual: true,
        }
    }

    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Rotated dimensions of a head.
    pub fn rotated(&self) -> usize {
        (self.rotary_pct * self.head_dim() as f64) as usize
    }

    /// Width of the MLP.
    pub fn intermediate(&self) -> usize {
        self.intermediate_size.unwrap_or(4 * self.hidden_size)
    }

    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// Returns an error that names the first key with an invalid value.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let (layers, heads) = (self.num_hidden_layers, self.num_attention_heads);
        InvalidConfig::check_layers(self.hidden_size, layers, heads, self.intermediate_size)?;
        if !(0.0..=1.0).contains(&self.rotary_pct) || !self.rotated().is_multiple_of(2) {
            let (rotary_pct, head_dim) = (self.rotary_pct, self.head_dim());
            let reason = format!(
                "{rotary_pct} must be between 0 and 1, and select an even number of the {head_dim} \
                 dimensions of a head"
            );
            return Err(InvalidConfig::new("rotary_pct", reason));
        }
        for (key, value) in
            [("rotary_emb_base", self.rotary_emb_base), ("layer_norm_eps", self.layer_norm_eps)]
        {
            if !(value > 0.0 && value.is_finite()) {
                return Err(InvalidConfig::new(key, format!("{value} must be greater than 0")));
            }
        }
        self.rope_scaling.map_or(Ok(()), |scaling| scaling.check(self.rotated()))
    }

    /// Number of parameters of the stack, including its final norm.
    pub fn num_params(&self) -> usize {
        let (h, m) = (self.hidden_size, self.intermediate());
        // qkv, dense, two MLP matrices with biases, two norms
        let layer = 3 * h * h + 3 * h + h * h + h + 2 * h * m + m + h + 4 * h;
        self.num_hidden_layers * layer + 2 * h
    }
}
