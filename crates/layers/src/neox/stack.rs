//! The layers of a GPT-NeoX model and the final norm.

use block_transformer_kernels::RotaryTable;
use burn::module::Module;
use burn::nn::LayerNorm;
use burn::tensor::{Device, Tensor};

use super::config::NeoXConfig;
use super::layer::{Cached, INIT_STD, NeoXLayer};
use crate::cache::{KvCache, StackCache};
use crate::init::Init;
use crate::mask::{AttentionMask, causal_by_block};
use crate::positions::Positions;
use crate::rotary::Rotary;

/// Layers and the final norm; no token embedding, no LM head.
#[derive(Module, Debug)]
pub struct NeoXStack {
    layers: Vec<NeoXLayer>,
    final_layer_norm: LayerNorm,
    heads: usize,
    head_dim: usize,
    #[module(skip)]
    rotary: RotaryTable,
}

impl NeoXStack {
    /// Standard deviation of every weight matrix at initialisation, as published.
    pub const INIT_STD: f64 = INIT_STD;

    /// A stack with the parameters of `init`.
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
            rotary: RotaryTable::new(config.rotated(), config.rotary_emb_base),
        }
    }

    /// Empty caches for `slots` sequences of up to `capacity` positions.
    pub fn new_cache(&self, slots: usize, capacity: usize, device: &Device) -> StackCache {
        let layer = || KvCache::new(slots, self.heads, capacity, self.head_dim, device);
        self.layers.iter().map(|_| layer()).collect()
    }

    /// The rotation for `time` positions from the start of each row of `at`.
    pub fn rotary(&self, at: &Positions, time: usize) -> Rotary {
        let starts = at.starts();
        let positions = starts.iter().flat_map(|&start| start..start + time).collect();
        Rotary::new(self.rotary.angles(positions, starts.len()))
    }

    /// The rotation for any positions, the same for every row.
    pub fn rotary_at(&self, positions: Vec<usize>) -> Rotary {
        Rotary::new(self.rotary.angles(positions, 1))
    }

    /// Runs whole sequences.
    ///
    /// # Shapes
    /// - `x`: `[batch, time, hidden]`
    /// - output: `[batch, time, hidden]`, after the final norm
    pub fn forward(&self, mut x: Tensor<3>, mask: &AttentionMask, rotary: &Rotary) -> Tensor<3> {
        for layer in &self.layers {
            x = layer.forward(x, rotary, mask, None);
        }
        self.final_layer_norm.forward(x)
    }

    /// Runs the new positions `at` and appends them to `cache`. They attend to the cached
    /// positions of their row, and to each other causally by groups of `group` positions. Returns
    /// the last `keep` positions of each row; for earlier positions the last layer computes keys
    /// and values only.
    ///
    /// # Shapes
    /// - `x`: `[rows, time, hidden]`
    /// - `rotary`: `time` positions
    /// - output: `[rows, keep, hidden]`, after the final norm
    ///
    /// # Panics
    /// When the positions exceed the capacity of the cache.
    pub fn append(
        &self,
        mut x: Tensor<3>,
        rotary: &Rotary,
        at: &Positions,
        group: usize,
        keep: usize,
        cache: &mut StackCache,
    ) -> Tensor<3> {
        let [rows, time, _] = x.dims();
        let mask = causal_by_block(at, time, group, None);
        let slots = at.slots(rows);
        let last = self.layers.len() - 1;
        for (i, (layer, cache)) in self.layers.iter().zip(cache).enumerate() {
            let keep = if i == last { keep } else { time };
            x = layer.forward(x, rotary, &mask, Some(Cached { cache, at, slots: &slots, keep }));
        }
        self.final_layer_norm.forward(x)
    }
}
