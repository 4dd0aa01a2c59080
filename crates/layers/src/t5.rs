//! The T5 decoder stack (Raffel et al., arXiv 1910.10683): RMS norm, no biases, unscaled attention
//! scores, cross-attention to encoder states, and a relative position bias that all layers share.

use block_transformer_kernels::int_tensor;
use burn::module::Module;
use burn::nn::{Embedding, Linear, RmsNorm};
use burn::tensor::{Bool, DType, Device, Tensor, activation::relu};
use serde::{Deserialize, Serialize};

use crate::attention::{attend, merge_heads, split_heads};
use crate::cache::{KvCache, StackCache};
use crate::embedding::embed;
use crate::init::Init;
use crate::invalid::InvalidConfig;
use crate::linear::apply;
use crate::mask::causal_by_block;
use crate::positions::Positions;
use crate::recompute::run_layer;

/// Epsilon of the RMS norms, added to the mean square.
const EPS: f64 = 1e-6;

/// Shape of a T5 decoder stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct T5Config {
    /// Width of the residual stream (`d_model`).
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads per layer.
    pub num_attention_heads: usize,
    /// Width of one head.
    pub d_kv: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Number of buckets of the relative position bias.
    #[serde(default = "default_buckets")]
    pub relative_attention_num_buckets: usize,
    /// All positions at this distance or further away share the last bucket.
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
    /// Keys of the configuration table.
    pub const KEYS: &[&str] = &[
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "d_kv",
        "d_ff",
        "relative_attention_num_buckets",
        "relative_attention_max_distance",
    ];

    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// Returns an error that names the first key with an invalid value.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let Self { hidden_size, num_hidden_layers, num_attention_heads, d_kv, d_ff, .. } = *self;
        InvalidConfig::check_stack(hidden_size, num_hidden_layers, num_attention_heads)?;
        let most = InvalidConfig::MAX_WIDTH;
        InvalidConfig::check_size("d_kv", d_kv, most / num_attention_heads)?;
        InvalidConfig::check_size("d_ff", d_ff, most)?;
        let (buckets, distance) =
            (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        InvalidConfig::check_size("relative_attention_num_buckets", buckets, most)?;
        // the buckets after the first half are logarithmic up to this distance
        if distance <= buckets / 2 {
            let half = buckets / 2;
            let reason = format!(
                "{distance} must be greater than {half}, half of relative_attention_num_buckets"
            );
            return Err(InvalidConfig::new("relative_attention_max_distance", reason));
        }
        Ok(())
    }

    /// Number of parameters of the stack: self-attention, cross-attention, feed-forward layers,
    /// norms, position bias.
    pub fn num_params(&self) -> usize {
        let (d, inner) = (self.hidden_size, self.num_attention_heads * self.d_kv);
        self.num_hidden_layers * d * (8 * inner + 2 * self.d_ff)
            + (3 * self.num_hidden_layers + 1) * d
            + self.relative_attention_num_buckets * self.num_attention_heads
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

    /// The keys and values `[batch, heads, time, d_kv]` of `x` `[batch, time, hidden]`.
    fn keys_values(&self, x: Tensor<3>) -> (Tensor<4>, Tensor<4>) {
        let key = split_heads(apply(&self.k, x.clone()), self.heads);
        (key, split_heads(apply(&self.v, x), self.heads))
    }

    fn forward(
        &self,
        x: Tensor<3>,
        (key, value): (Tensor<4>, Tensor<4>),
        bias: Option<Tensor<4>>,
        hidden: Option<Tensor<4, Bool>>,
    ) -> Tensor<3> {
        let query = split_heads(apply(&self.q, x), self.heads);
        apply(&self.o, merge_heads(attend(query, key, value, 1.0, bias, hidden)))
    }
}

/// One decoder layer: self-attention, cross-attention and a ReLU feed-forward layer, each with a
/// norm before it.
#[derive(Module, Debug)]
pub struct T5Block {
    self_attention: T5Attention,
    self_norm: RmsNorm,
    cross_attention: T5Attention,
    cross_norm: RmsNorm,
    wi: Linear,
    wo: Linear,
    feed_norm: RmsNorm,
}

impl T5Block {
    fn new(config: &T5Config, init: &Init) -> Self {
        let (d, ff) = (config.hidden_size, config.d_ff);
        Self {
            self_attention: T5Attention::new(config, &init.at("self_attention")),
            self_norm: init.rms_norm("self_norm", d, EPS),
            cross_attention: T5Attention::new(config, &init.at("cross_attention")),
            cross_norm: init.rms_norm("cross_norm", d, EPS),
            wi: init.linear("wi", d, ff, false, (d as f64).powf(-0.5)),
            wo: init.linear("wo", ff, d, false, (ff as f64).powf(-0.5)),
            feed_norm: init.rms_norm("feed_norm", d, EPS),
        }
    }

    /// Runs `[rows, time, hidden]`, which attends to `states` and to the keys and values that `cache`
    /// returns for the layer's own.
    fn forward(
        &self,
        x: Tensor<3>,
        states: (Tensor<4>, Tensor<4>),
        bias: Tensor<4>,
        hidden: Option<Tensor<4, Bool>>,
        cache: impl FnOnce((Tensor<4>, Tensor<4>)) -> (Tensor<4>, Tensor<4>),
    ) -> Tensor<3> {
        let normed = self.self_norm.forward(x.clone());
        let own = cache(self.self_attention.keys_values(normed.clone()));
        let x = x + self.self_attention.forward(normed, own, Some(bias), hidden);
        let normed = self.cross_norm.forward(x.clone());
        let x = x + self.cross_attention.forward(normed, states, None, None);
        let normed = self.feed_norm.forward(x.clone());
        x + apply(&self.wo, relu(apply(&self.wi, normed)))
    }
}

/// The decoder: layers, final norm, and the position bias that all layers share.
#[derive(Module, Debug)]
pub struct T5Stack {
    block: Vec<T5Block>,
    final_layer_norm: RmsNorm,
    relative_attention_bias: Embedding,
    heads: usize,
    d_kv: usize,
    max_distance: usize,
}

/// Keys and values of encoder states, `[rows, heads, source, d_kv]` each, one pair per layer.
pub type T5States = Vec<(Tensor<4>, Tensor<4>)>;

impl T5Stack {
    /// A stack with the parameters of `init`.
    pub fn new(config: &T5Config, init: &Init) -> Self {
        let block = init.at("block");
        let d = config.hidden_size;
        Self {
            block: (0..config.num_hidden_layers)
                .map(|i| T5Block::new(config, &block.at(i)))
                .collect(),
            final_layer_norm: init.rms_norm("final_layer_norm", d, EPS),
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

    /// Empty self-attention caches in `format` for `slots` sequences of up to `capacity` positions.
    pub fn new_cache(
        &self,
        [slots, capacity]: [usize; 2],
        format: DType,
        device: &Device,
    ) -> StackCache {
        let shape = [slots, self.heads, capacity, self.d_kv];
        let layer = || KvCache::new(shape, format, device);
        self.block.iter().map(|_| layer()).collect()
    }

    /// Computes the cross-attention keys and values of encoder states `[rows, source, hidden]`.
    /// All positions attend to them.
    pub fn states(&self, states: &Tensor<3>) -> T5States {
        let of = |block: &T5Block| block.cross_attention.keys_values(states.clone());
        self.block.iter().map(of).collect()
    }

    /// Runs new positions, which attend to `states`. Their start in `at` must be the same in every
    /// row, and 0 without a cache. With a cache, they are appended to it and also attend to the
    /// cached positions.
    ///
    /// # Shapes
    /// - `x`: `[rows, time, hidden]`
    /// - output: `[rows, time, hidden]`, after the final norm
    ///
    /// # Panics
    /// When the positions exceed the capacity of the cache.
    pub fn forward(
        &self,
        mut x: Tensor<3>,
        states: &T5States,
        at: &Positions,
        mut cache: Option<&mut StackCache>,
    ) -> Tensor<3> {
        let [rows, time, _] = x.dims();
        let slots = at.slots(rows);
        let bias = self.position_bias(at.end(0), time, &x.device());
        let hidden = causal_by_block(at, time, 1, None).hidden(&x.device());
        for (i, (block, states)) in self.block.iter().zip(states).enumerate() {
            x = match cache.as_deref_mut() {
                Some(cache) => {
                    let write = |(key, value)| cache[i].write(key, value, (at, &slots));
                    block.forward(x, states.clone(), bias.clone(), hidden.clone(), write)
                }
                None => {
                    let (key, value) = states.clone();
                    let hidden = hidden.clone();
                    run_layer(
                        block,
                        x,
                        vec![bias.clone(), key, value],
                        move |block: &T5Block, x, others| {
                            let Ok([bias, key, value]) = <[Tensor<4>; 3]>::try_from(others) else {
                                unreachable!("there are three inputs besides the hidden states")
                            };
                            block.forward(x, (key, value), bias, hidden.clone(), |own| own)
                        },
                    )
                }
            };
        }
        self.final_layer_norm.forward(x)
    }

    /// The bias `[1, heads, time, past + time]` by distance into the past.
    fn position_bias(&self, past: usize, time: usize, device: &Device) -> Tensor<4> {
        let [buckets, heads] = self.relative_attention_bias.weight.dims();
        let keys = past + time;
        let ids = (past..keys)
            .flat_map(|i| (0..keys).map(move |j| i.saturating_sub(j)))
            .map(|distance| bucket(distance, buckets, self.max_distance));
        let ids = int_tensor(ids, device);
        let table = embed(&self.relative_attention_bias, ids.unsqueeze()); // [1, t * k, h]
        table.reshape([1, time, keys, heads]).permute([0, 3, 1, 2])
    }
}

/// The causal bucket of a distance into the past: exact up to half the buckets, then logarithmic.
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
        // distances and buckets from `_relative_position_bucket(bidirectional=False)` of the
        // `transformers` library
        for (distance, expected) in [(0, 0), (15, 15), (16, 16), (32, 21), (64, 26), (500, 31)] {
            assert_eq!(bucket(distance, 32, 128), expected, "distance {distance}");
        }
    }
}
