//! One GPT-NeoX decoder layer.

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;

use super::config::NeoXConfig;
use crate::attention::{attend, merge_heads, score_scale, split_qkv};
use crate::cache::KvCache;
use crate::gelu::gelu_between;
use crate::init::Init;
use crate::linear::apply;
use crate::mask::AttentionMask;
use crate::norm::layer_norm;
use crate::places::{Places, last};
use crate::rotary::Rotary;

/// Standard deviation of every weight matrix at initialisation, as published.
pub(super) const INIT_STD: f64 = 0.02;

/// The positions that a layer runs. Its output has the last `keep` of each row only; `None` for all.
pub(super) enum Run<'a> {
    /// Whole sequences.
    Whole { rotary: &'a Rotary, mask: &'a AttentionMask, keep: Option<usize> },
    /// New positions of a cache.
    New { places: &'a Places, cache: &'a mut KvCache, keep: Option<usize> },
}

/// The last `keep` positions of each row of `x` `[batch, time, width]`, or all.
fn kept(x: Tensor<3>, keep: Option<usize>) -> Tensor<3> {
    if let Some(keep) = keep { last(x, keep) } else { x }
}

/// Self-attention with the fused projection `[head][q, k, v][head_dim]`.
#[derive(Module, Debug)]
pub struct NeoXAttention {
    query_key_value: Linear,
    dense: Linear,
    heads: usize,
}

impl NeoXAttention {
    fn forward(&self, x: Tensor<3>, run: Run<'_>) -> Tensor<3> {
        let qkv = apply(&self.query_key_value, x);
        let out = match run {
            Run::Whole { rotary, mask, keep } => kept(self.attend(qkv, rotary, mask), keep),
            Run::New { places, cache, keep } => cache.attend(qkv, places, keep),
        };
        apply(&self.dense, out)
    }

    /// Attention of whole sequences, `[batch, time, 3 * width] -> [batch, time, width]`.
    fn attend(&self, qkv: Tensor<3>, rotary: &Rotary, mask: &AttentionMask) -> Tensor<3> {
        let (angles, causal) = (rotary.angles(), mask.causal());
        if let Some(out) =
            block_transformer_kernels::self_attention(&qkv, self.heads, angles, causal)
        {
            return out;
        }
        let hidden = mask.hidden(&qkv.device());
        let format = self.query_key_value.weight.val().dtype();
        if let Some(hidden) = &hidden
            && let Some(out) = block_transformer_kernels::chunked_attention(
                &qkv, self.heads, angles, causal, hidden, format,
            )
        {
            return out;
        }
        let [query, key, value] = split_qkv(qkv, self.heads, rotary);
        let [_, _, _, head_dim] = query.dims();
        merge_heads(attend(query, key, value, score_scale(head_dim), None, hidden))
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
        let format = self.dense_4h_to_h.weight.val().dtype();
        apply(&self.dense_4h_to_h, gelu_between(apply(&self.dense_h_to_4h, x), format))
    }
}

/// One decoder layer.
#[derive(Module, Debug)]
pub struct NeoXLayer {
    input_layernorm: LayerNorm,
    post_attention_layernorm: LayerNorm,
    attention: NeoXAttention,
    mlp: NeoXMlp,
    parallel: bool,
    norm_epsilon: f64,
}

impl NeoXLayer {
    pub(super) fn new(config: &NeoXConfig, init: &Init) -> Self {
        let (h, m, eps) = (config.hidden_size, config.intermediate(), config.layer_norm_eps);
        let (attention, mlp) = (init.at("attention"), init.at("mlp"));
        Self {
            input_layernorm: init.layer_norm("input_layernorm", h, eps),
            post_attention_layernorm: init.layer_norm("post_attention_layernorm", h, eps),
            attention: NeoXAttention {
                query_key_value: attention.linear("query_key_value", h, 3 * h, true, INIT_STD),
                dense: attention.linear("dense", h, h, true, INIT_STD),
                heads: config.num_attention_heads,
            },
            mlp: NeoXMlp {
                dense_h_to_4h: mlp.linear("dense_h_to_4h", h, m, true, INIT_STD),
                dense_4h_to_h: mlp.linear("dense_4h_to_h", m, h, true, INIT_STD),
            },
            parallel: config.use_parallel_residual,
            norm_epsilon: eps,
        }
    }

    /// Runs `[batch, time, hidden]`. The output has the last positions of each row that `run` keeps.
    pub(super) fn forward(&self, x: Tensor<3>, run: Run<'_>) -> Tensor<3> {
        let norm = |layer: &LayerNorm, x| layer_norm(layer, self.norm_epsilon, x);
        let normed = norm(&self.input_layernorm, x.clone());
        let x = match &run {
            Run::New { places, keep: Some(keep), .. } => places.last(x, *keep),
            Run::New { keep: None, .. } => x,
            Run::Whole { keep, .. } => kept(x, *keep),
        };
        let attended = self.attention.forward(normed, run);
        if self.parallel {
            let fed = self.mlp.forward(norm(&self.post_attention_layernorm, x.clone()));
            if x.is_autodiff()
                && let Some(sum) = block_transformer_kernels::tracked_sum([&fed, &attended, &x])
            {
                return sum;
            }
            fed + attended + x
        } else {
            let x = attended + x;
            self.mlp.forward(norm(&self.post_attention_layernorm, x.clone())) + x
        }
    }
}
