//! The GPT-NeoX decoder stack: partial rotary, fused query-key-value, parallel or sequential
//! residual (Black et al., arXiv 2204.06745).

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::cache::{scale, split_qkv};
use crate::linear::apply;
use crate::{
    AttentionMask, Init, KvCache, Positions, Rotary, attend, causal_by_block, gelu, merge_heads,
};

/// Shape of a GPT-NeoX stack. Field names are those of the published configuration files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeoXConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads a layer.
    pub num_attention_heads: usize,
    /// Width of the MLP; 4 x `hidden_size` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// Share of each head's dimensions that is rotated.
    #[serde(default = "default_rotary_pct")]
    pub rotary_pct: f64,
    /// Base of the rotary angles.
    #[serde(default = "default_rotary_base")]
    pub rotary_emb_base: f64,
    /// Added to the variance in layer norms.
    #[serde(default = "default_eps")]
    pub layer_norm_eps: f64,
    /// `x + attn(ln1 x) + mlp(ln2 x)` if true, else the sequential residual of GPT-2.
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
    /// A stack with the published defaults.
    pub fn new(hidden_size: usize, num_hidden_layers: usize, num_attention_heads: usize) -> Self {
        Self {
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            intermediate_size: None,
            rotary_pct: default_rotary_pct(),
            rotary_emb_base: default_rotary_base(),
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

    /// What is wrong with the shape, if anything; `key` is the configuration key it stands under.
    pub fn check(&self, key: &str) -> Result<(), String> {
        let Self { hidden_size, num_hidden_layers, num_attention_heads, .. } = *self;
        if hidden_size == 0 || num_hidden_layers == 0 || num_attention_heads == 0 {
            return Err(format!(
                "{key}: hidden_size, num_hidden_layers and num_attention_heads must be positive"
            ));
        }
        if !hidden_size.is_multiple_of(num_attention_heads) {
            return Err(format!(
                "{key}.num_attention_heads: {num_attention_heads} does not divide hidden_size {hidden_size}"
            ));
        }
        if !(0.0..=1.0).contains(&self.rotary_pct) || !self.rotated().is_multiple_of(2) {
            return Err(format!(
                "{key}.rotary_pct: {} of a head of {} must be an even number of dimensions",
                self.rotary_pct,
                self.head_dim()
            ));
        }
        if self.intermediate() == 0 {
            return Err(format!("{key}.intermediate_size: must be positive"));
        }
        Ok(())
    }

    /// Parameters of the stack with its final norm.
    pub fn num_params(&self) -> usize {
        let (h, m) = (self.hidden_size, self.intermediate());
        // qkv, dense, two MLP matrices with biases, two norms
        let layer = 3 * h * h + 3 * h + h * h + h + 2 * h * m + m + h + 4 * h;
        self.num_hidden_layers * layer + 2 * h
    }

    /// Parameters in the matrices of its linear layers.
    pub fn num_matrix_params(&self) -> usize {
        let (h, m) = (self.hidden_size, self.intermediate());
        self.num_hidden_layers * (4 * h * h + 2 * h * m)
    }

    /// Bytes of keys and values a cached position takes, at `bytes` a number.
    pub fn kv_bytes(&self, bytes: usize) -> usize {
        2 * self.num_hidden_layers * self.hidden_size * bytes
    }
}

/// Self-attention with the fused projection `[head][q, k, v][head_dim]`.
#[derive(Module, Debug)]
pub struct NeoXAttention {
    query_key_value: Linear,
    dense: Linear,
    heads: usize,
}

impl NeoXAttention {
    fn forward(
        &self,
        x: Tensor<3>,
        rotary: &Rotary,
        mask: &AttentionMask,
        cached: Option<Cached<'_>>,
    ) -> Tensor<3> {
        let qkv = apply(&self.query_key_value, x);
        let out = match cached {
            Some(Cached { cache, at, keep }) => cache.attend(qkv, rotary, mask, at, keep),
            None => self.attend(qkv, rotary, mask),
        };
        apply(&self.dense, out)
    }

    /// Attention of whole sequences, `[batch, time, 3 * width] -> [batch, time, width]`.
    fn attend(&self, qkv: Tensor<3>, rotary: &Rotary, mask: &AttentionMask) -> Tensor<3> {
        if let Some(order) = mask.order()
            && let Some(out) =
                block_transformer_kernels::self_attention(&qkv, self.heads, rotary.angles(), order)
        {
            return out;
        }
        let [query, key, value] = split_qkv(qkv, self.heads, rotary);
        let [_, _, _, head_dim] = query.dims();
        merge_heads(attend(query, key, value, scale(head_dim), None, mask))
    }
}

/// The two-layer perceptron with exact (erf) GELU.
#[derive(Module, Debug)]
pub struct NeoXMlp {
    dense_h_to_4h: Linear,
    dense_4h_to_h: Linear,
}

impl NeoXMlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        apply(&self.dense_4h_to_h, gelu(apply(&self.dense_h_to_4h, x)))
    }
}

/// The cache a layer's new positions go to, and how many of them it goes on with.
struct Cached<'a> {
    cache: &'a mut KvCache,
    at: &'a Positions,
    keep: usize,
}

/// One decoder layer.
#[derive(Module, Debug)]
pub struct NeoXLayer {
    input_layernorm: LayerNorm,
    post_attention_layernorm: LayerNorm,
    attention: NeoXAttention,
    mlp: NeoXMlp,
    parallel: bool,
}

impl NeoXLayer {
    fn new(config: &NeoXConfig, init: &Init) -> Self {
        let (h, m, eps) = (config.hidden_size, config.intermediate(), config.layer_norm_eps);
        let (attention, mlp) = (init.at("attention"), init.at("mlp"));
        let std = NeoXStack::INIT_STD;
        Self {
            input_layernorm: init.layer_norm("input_layernorm", h, eps),
            post_attention_layernorm: init.layer_norm("post_attention_layernorm", h, eps),
            attention: NeoXAttention {
                query_key_value: attention.linear("query_key_value", h, 3 * h, true, std),
                dense: attention.linear("dense", h, h, true, std),
                heads: config.num_attention_heads,
            },
            mlp: NeoXMlp {
                dense_h_to_4h: mlp.linear("dense_h_to_4h", h, m, true, std),
                dense_4h_to_h: mlp.linear("dense_4h_to_h", m, h, true, std),
            },
            parallel: config.use_parallel_residual,
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        rotary: &Rotary,
        mask: &AttentionMask,
        cached: Option<Cached<'_>>,
    ) -> Tensor<3> {
        let normed = self.input_layernorm.forward(x.clone());
        let attended = self.attention.forward(normed, rotary, mask, cached);
        let ([_, time, _], [_, keep, _]) = (x.dims(), attended.dims());
        let x = if keep < time { x.narrow(1, time - keep, keep) } else { x };
        if self.parallel {
            let fed = self.mlp.forward(self.post_attention_layernorm.forward(x.clone()));
            fed + attended + x
        } else {
            let x = attended + x;
            self.mlp.forward(self.post_attention_layernorm.forward(x.clone())) + x
        }
    }
}

/// Layers and the final norm; no token embedding, no LM head.
#[derive(Module, Debug)]
pub struct NeoXStack {
    layers: Vec<NeoXLayer>,
    final_layer_norm: LayerNorm,
    heads: usize,
    head_dim: usize,
    rotated: usize,
    rotary_base: f64,
}

/// The caches of every layer of a stack.
pub type StackCache = Vec<KvCache>;

impl NeoXStack {
    /// Standard deviation of every weight matrix at the start (published initialisation).
    pub const INIT_STD: f64 = 0.02;

    /// Layers and norm at `init`.
    pub fn new(config: &NeoXConfig, init: &Init) -> Self {
        let layers = init.at("layers");
        Self {
            layers: (0..config.num_hidden_layers)
                .map(|i| NeoXLayer::new(config, &layers.at(i)))
                .collect(),
            final_layer_norm: init.layer_norm(
                "final_layer_norm",
                config.hidden_size,
                config.layer_norm_eps,
            ),
            heads: config.num_attention_heads,
            head_dim: config.head_dim(),
            rotated: config.rotated(),
            rotary_base: config.rotary_emb_base,
        }
    }

    /// Empty caches of `slots` sequences of up to `capacity` positions.
    pub fn new_cache(&self, slots: usize, capacity: usize, device: &Device) -> StackCache {
        let one = || KvCache::new(slots, self.heads, capacity, self.head_dim, device);
        self.layers.iter().map(|_| one()).collect()
    }

    /// Runs whole sequences, with the angles of `at`.
    ///
    /// # Shapes
    /// - `x`: `[batch, time, hidden]`
    /// - output: `[batch, time, hidden]`, after the final norm
    pub fn forward(&self, x: Tensor<3>, mask: &AttentionMask, at: &Positions) -> Tensor<3> {
        let [_, time, _] = x.dims();
        self.forward_rotated(x, mask, &self.rotary_from(at, time))
    }

    /// [`forward`](Self::forward) with any angles.
    pub fn forward_rotated(
        &self,
        mut x: Tensor<3>,
        mask: &AttentionMask,
        rotary: &Rotary,
    ) -> Tensor<3> {
        for layer in &self.layers {
            x = layer.forward(x, rotary, mask, None);
        }
        self.final_layer_norm.forward(x)
    }

    /// Runs new positions at `at` after what `cache` holds, causal by groups of `group` positions,
    /// and adds them to it. What comes out is that of each row's last `keep` positions; of the
    /// others, the last layer makes no more than keys and values.
    ///
    /// # Shapes
    /// - `x`: `[rows, time, hidden]`
    /// - output: `[rows, keep, hidden]`, after the final norm
    pub fn extend(
        &self,
        x: Tensor<3>,
        at: &Positions,
        group: usize,
        keep: usize,
        cache: &mut StackCache,
    ) -> Tensor<3> {
        let [_, time, _] = x.dims();
        self.extend_rotated(x, &self.rotary_from(at, time), at, group, keep, cache)
    }

    /// [`extend`](Self::extend) with angles other than those of the positions.
    pub fn extend_rotated(
        &self,
        mut x: Tensor<3>,
        rotary: &Rotary,
        at: &Positions,
        group: usize,
        keep: usize,
        cache: &mut StackCache,
    ) -> Tensor<3> {
        let [_, time, _] = x.dims();
        let mask = causal_by_block(at, time, group, None);
        let last = self.layers.len() - 1;
        for (i, (layer, cache)) in self.layers.iter().zip(cache).enumerate() {
            let keep = if i == last { keep } else { time };
            x = layer.forward(x, rotary, &mask, Some(Cached { cache, at, keep }));
        }
        self.final_layer_norm.forward(x)
    }

    /// Angles for any positions, the same for every sequence.
    pub fn rotary(&self, positions: Vec<usize>) -> Rotary {
        Rotary::at(&[positions], self.head_dim, self.rotated, self.rotary_base)
    }

    fn rotary_from(&self, at: &Positions, time: usize) -> Rotary {
        Rotary::new(at, time, self.head_dim, self.rotated, self.rotary_base)
    }
}
