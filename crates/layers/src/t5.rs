//! The T5 decoder stack (Raffel et al., arXiv 1910.10683): RMS norm, no biases, relative position
//! bias shared by all layers, unscaled attention scores, cross-attention to encoder states.

use burn::module::{Module, Param};
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData, activation::relu};
use serde::{Deserialize, Serialize};

use crate::linear::apply;
use crate::{
    AttentionMask, Init, KvCache, Positions, attend, causal_by_block, merge_heads, split_heads,
};

/// Shape of a T5 decoder stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct T5Config {
    /// Width of the residual stream (`d_model`).
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads a layer.
    pub num_attention_heads: usize,
    /// Width of one head.
    pub d_kv: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Buckets of the relative position bias.
    #[serde(default = "default_buckets")]
    pub relative_attention_num_buckets: usize,
    /// Distance from which all positions share the last bucket.
    #[serde(default = "default_distance")]
    pub relative_attention_max_distance: usize,
}

fn default_buckets() -> usize {
    32
}
fn default_distance() -> usize {
    128
}

impl T5Config {
    /// Parameters of the stack: self-attention, cross-attention, feed-forward, norms, position bias.
    pub fn num_params(&self) -> usize {
        self.num_matrix_params()
            + (3 * self.num_hidden_layers + 1) * self.hidden_size
            + self.relative_attention_num_buckets * self.num_attention_heads
    }

    /// Parameters in the matrices of its linear layers.
    pub fn num_matrix_params(&self) -> usize {
        let inner = self.num_attention_heads * self.d_kv;
        self.num_hidden_layers * self.hidden_size * (8 * inner + 2 * self.d_ff)
    }

    /// Bytes of keys and values a cached position takes in self-attention, and an encoder state in
    /// cross-attention, at `bytes` a number.
    pub fn kv_bytes(&self, bytes: usize) -> usize {
        2 * self.num_hidden_layers * self.num_attention_heads * self.d_kv * bytes
    }
}

/// Root-mean-square norm: gain, no bias, no mean.
#[derive(Module, Debug)]
pub struct T5Norm {
    /// `[hidden]`
    pub gamma: Param<Tensor<1>>,
}

impl T5Norm {
    fn new(init: &Init, width: usize) -> Self {
        Self { gamma: init.ones("gamma", [width]) }
    }

    /// `x / sqrt(mean(x²) + 1e-6) * gamma` over the last axis.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let scale = (x.clone().square().mean_dim(2) + 1e-6).sqrt().recip();
        x * scale * self.gamma.val().unsqueeze()
    }
}

/// Multi-head attention without biases.
#[derive(Module, Debug)]
pub struct T5Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: usize,
}

impl T5Attention {
    fn new(config: &T5Config, init: &Init) -> Self {
        let (d, inner) = (config.hidden_size, config.num_attention_heads * config.d_kv);
        let (wide, narrow) = ((d as f64).powf(-0.5), (inner as f64).powf(-0.5));
        let query = ((d * config.d_kv) as f64).powf(-0.5);
        Self {
            q: init.linear("q", d, inner, false, query),
            k: init.linear("k", d, inner, false, wide),
            v: init.linear("v", d, inner, false, wide),
            o: init.linear("o", inner, d, false, narrow),
            heads: config.num_attention_heads,
        }
    }

    /// Keys and values `[batch, heads, time, d_kv]` of `x` `[batch, time, hidden]`.
    fn keys_values(&self, x: Tensor<3>) -> (Tensor<4>, Tensor<4>) {
        let key = split_heads(apply(&self.k, x.clone()), self.heads);
        (key, split_heads(apply(&self.v, x), self.heads))
    }

    fn forward(
        &self,
        x: Tensor<3>,
        (key, value): (Tensor<4>, Tensor<4>),
        bias: Option<Tensor<4>>,
        mask: &AttentionMask,
    ) -> Tensor<3> {
        let query = split_heads(apply(&self.q, x), self.heads);
        apply(&self.o, merge_heads(attend(query, key, value, 1.0, bias, mask)))
    }
}

/// One decoder layer: self-attention, cross-attention, ReLU feed-forward, each behind a norm.
#[derive(Module, Debug)]
pub struct T5Block {
    self_attention: T5Attention,
    self_norm: T5Norm,
    cross_attention: T5Attention,
    cross_norm: T5Norm,
    wi: Linear,
    wo: Linear,
    feed_norm: T5Norm,
}

impl T5Block {
    fn new(config: &T5Config, init: &Init) -> Self {
        let (d, ff) = (config.hidden_size, config.d_ff);
        Self {
            self_attention: T5Attention::new(config, &init.at("self_attention")),
            self_norm: T5Norm::new(&init.at("self_norm"), d),
            cross_attention: T5Attention::new(config, &init.at("cross_attention")),
            cross_norm: T5Norm::new(&init.at("cross_norm"), d),
            wi: init.linear("wi", d, ff, false, (d as f64).powf(-0.5)),
            wo: init.linear("wo", ff, d, false, (ff as f64).powf(-0.5)),
            feed_norm: T5Norm::new(&init.at("feed_norm"), d),
        }
    }
}

/// The decoder: blocks, final norm, and the position bias all blocks share.
#[derive(Module, Debug)]
pub struct T5Stack {
    block: Vec<T5Block>,
    final_layer_norm: T5Norm,
    relative_attention_bias: Embedding,
    heads: usize,
    d_kv: usize,
    max_distance: usize,
}

/// The keys and values of encoder states, `[rows, heads, source, d_kv]` each, one pair a layer.
pub type T5States = Vec<(Tensor<4>, Tensor<4>)>;

impl T5Stack {
    /// Blocks and norm at `init`.
    pub fn new(config: &T5Config, init: &Init) -> Self {
        let block = init.at("block");
        let d = config.hidden_size;
        Self {
            block: (0..config.num_hidden_layers)
                .map(|i| T5Block::new(config, &block.at(i)))
                .collect(),
            final_layer_norm: T5Norm::new(&init.at("final_layer_norm"), d),
            relative_attention_bias: init.embedding(
                "relative_attention_bias",
                config.relative_attention_num_buckets,
                config.num_attention_heads,
                (d as f64).powf(-0.5),
            ),
            heads: config.num_attention_heads,
            d_kv: config.d_kv,
            max_distance: config.relative_attention_max_distance,
        }
    }

    /// Empty self-attention caches of `slots` sequences of up to `capacity` positions.
    pub fn new_cache(&self, slots: usize, capacity: usize, device: &Device) -> Vec<KvCache> {
        let one = || KvCache::new(slots, self.heads, capacity, self.d_kv, device);
        self.block.iter().map(|_| one()).collect()
    }

    /// What every layer makes of encoder states `[rows, source, hidden]`, once for all positions.
    pub fn states(&self, states: &Tensor<3>) -> T5States {
        let of = |block: &T5Block| block.cross_attention.keys_values(states.clone());
        self.block.iter().map(of).collect()
    }

    /// Runs new positions at `at`, the same of every row, which see `states`; with a cache, they
    /// see what it holds and are added.
    ///
    /// # Shapes
    /// - `x`: `[rows, time, hidden]`
    /// - output: `[rows, time, hidden]`, after the final norm
    pub fn forward(
        &self,
        mut x: Tensor<3>,
        states: &T5States,
        at: &Positions,
        mut cache: Option<&mut Vec<KvCache>>,
    ) -> Tensor<3> {
        let [_, time, _] = x.dims();
        let bias = self.position_bias(at.furthest(), time, &x.device());
        let mask = causal_by_block(at, time, 1, None);
        for (i, (block, states)) in self.block.iter().zip(states).enumerate() {
            let normed = block.self_norm.forward(x.clone());
            let (mut key, mut value) = block.self_attention.keys_values(normed.clone());
            if let Some(cache) = cache.as_deref_mut() {
                (key, value) = cache[i].write(key, value, at);
            }
            x = x + block.self_attention.forward(normed, (key, value), Some(bias.clone()), &mask);
            let normed = block.cross_norm.forward(x.clone());
            let seen =
                block.cross_attention.forward(normed, states.clone(), None, &AttentionMask::Open);
            x = x + seen;
            let normed = block.feed_norm.forward(x.clone());
            x = x + apply(&block.wo, relu(apply(&block.wi, normed)));
        }
        self.final_layer_norm.forward(x)
    }

    /// Bias `[1, heads, time, past + time]` by distance into the past.
    fn position_bias(&self, past: usize, time: usize, device: &Device) -> Tensor<4> {
        let [buckets, heads] = self.relative_attention_bias.weight.dims();
        let keys = past + time;
        let ids: Vec<i64> = (past..keys)
            .flat_map(|i| (0..keys).map(move |j| i.saturating_sub(j)))
            .map(|distance| bucket(distance, buckets, self.max_distance) as i64)
            .collect();
        let count = ids.len();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), device);
        let table = self.relative_attention_bias.forward(ids.unsqueeze()); // [1, t * k, h]
        table.reshape([1, time, keys, heads]).permute([0, 3, 1, 2])
    }
}

/// Causal bucket of a distance into the past: exact up to half the buckets, then logarithmic.
fn bucket(distance: usize, buckets: usize, max_distance: usize) -> usize {
    let exact = buckets / 2;
    if distance < exact {
        return distance;
    }
    let log = (distance as f64 / exact as f64).ln() / (max_distance as f64 / exact as f64).ln();
    (exact + (log * (buckets - exact) as f64) as usize).min(buckets - 1)
}

#[cfg(test)]
mod tests {
    use super::bucket;

    #[test]
    fn buckets_are_exact_then_logarithmic() {
        // distances and buckets as transformers' _relative_position_bucket(bidirectional=False)
        for (distance, expected) in [(0, 0), (15, 15), (16, 16), (32, 21), (64, 26), (500, 31)] {
            assert_eq!(bucket(distance, 32, 128), expected, "distance {distance}");
        }
    }
}
