//! The layers of a GPT-NeoX model and the final norm.

use block_transformer_kernels::{RotaryTable, chooses};
use burn::module::Module;
use burn::nn::LayerNorm;
use burn::tensor::{DType, Device, Tensor};

use super::config::NeoXConfig;
use super::layer::{INIT_STD, NeoXLayer, Run};
use crate::cache::{KvCache, StackCache};
use crate::init::Init;
use crate::mask::AttentionMask;
use crate::norm::layer_norm;
use crate::places::Places;
use crate::positions::Positions;
use crate::recompute::run_layer;
use crate::rotary::Rotary;

/// Layers and the final norm; no token embedding, no LM head.
#[derive(Module, Debug)]
pub struct NeoXStack {
    layers: Vec<NeoXLayer>,
    final_layer_norm: LayerNorm,
    norm_epsilon: f64,
    heads: usize,
    head_dim: usize,
    #[module(skip)]
    rotary: RotaryTable,
}

/// The angles of a stack with the configuration `config`.
fn rotary_table(config: &NeoXConfig) -> RotaryTable {
    let (rotated, base) = (config.rotated(), config.rotary_emb_base);
    match config.rope_scaling {
        None => RotaryTable::new(rotated, base),
        Some(scaling) => {
            let (base, divisor) = scaling.of(rotated, base);
            RotaryTable::divided(rotated, base, divisor)
        }
    }
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
            norm_epsilon: config.layer_norm_eps,
            heads: config.num_attention_heads,
            head_dim: config.head_dim(),
            rotary: rotary_table(config),
        }
    }

    /// Empty caches in `format` for `slots` sequences of up to `capacity` positions.
    pub fn new_cache(
        &self,
        [slots, capacity]: [usize; 2],
        format: DType,
        device: &Device,
    ) -> StackCache {
        let shape = [slots, self.heads, capacity, self.head_dim];
        let layer = || KvCache::new(shape, format, device);
        self.layers.iter().map(|_| layer()).collect()
    }

    /// Returns the stack with a rotary table of its own, for `positions` positions. Graphs that were
    /// captured on a device need it: a table shared with other users of the model is replaced when
    /// one of them needs more positions.
    pub fn with_positions(mut self, positions: usize) -> Self {
        self.rotary = self.rotary.with_positions(positions);
        self
    }

    /// Whether a kernel of the device appends positions that only the device knows.
    pub fn appends_on_device(&self, device: &Device) -> bool {
        chooses(device) && self.rotary.rotated() > 0
    }

    /// The rotation for `time` positions from the start of each row of `at`, or for its lengths.
    pub fn rotary(&self, at: &Positions, time: usize) -> Rotary {
        let rows = if at.lengths().is_some() { 1 } else { at.starts().len() };
        Rotary::new(self.rotary.angles(at.all(time), rows))
    }

    /// The rotation for any positions `[rows][time]`. One row serves all rows of a batch.
    pub fn rotary_at(&self, positions: Vec<usize>, rows: usize) -> Rotary {
        Rotary::new(self.rotary.angles(positions, rows))
    }

    /// Runs whole sequences.
    ///
    /// # Shapes
    /// - `x`: `[batch, time, hidden]`
    /// - output: `[batch, time, hidden]`, after the final norm
    pub fn forward(&self, x: Tensor<3>, mask: &AttentionMask, rotary: &Rotary) -> Tensor<3> {
        self.forward_last(x, mask, rotary, None)
    }

    /// Runs whole sequences. Returns the last `keep` positions of each, or all; for earlier positions the last
    /// layer computes keys and values only.
    ///
    /// # Shapes
    /// - `x`: `[batch, time, hidden]`
    /// - output: `[batch, keep, hidden]`, after the final norm
    pub fn forward_last(
        &self,
        mut x: Tensor<3>,
        mask: &AttentionMask,
        rotary: &Rotary,
        keep: Option<usize>,
    ) -> Tensor<3> {
        let last = self.layers.len() - 1;
        for (i, layer) in self.layers.iter().enumerate() {
            let (mask, rotary) = (mask.clone(), rotary.clone());
            let keep = keep.filter(|_| i == last);
            let forward = move |layer: &NeoXLayer, x: Tensor<3>, _| {
                layer.forward(x, Run::Whole { rotary: &rotary, mask: &mask, keep })
            };
            x = run_layer(layer, x, Vec::new(), forward);
        }
        layer_norm(&self.final_layer_norm, self.norm_epsilon, x)
    }

    /// The places of `time` new positions in each of `rows` rows at `at`, which attend to each other
    /// causally by groups of `group` positions.
    pub fn places(&self, at: &Positions, [rows, time]: [usize; 2], group: usize) -> Places {
        Places::new(at.clone(), [rows, time], group, &|at, time| self.rotary(at, time))
    }

    /// Runs the new positions `places` and appends them to `cache`. They attend to the cached
    /// positions of their row, and to each other. Returns the last `keep` positions of each row, or all; for
    /// other positions the last layer computes keys and values only.
    ///
    /// # Shapes
    /// - `x`: `[rows, time, hidden]`; `[1, all positions, hidden]` for rows with lengths of their own
    /// - output: `[rows, keep, hidden]`, or like `x`, after the final norm
    ///
    /// # Panics
    /// When the positions exceed the capacity of the cache.
    pub fn append(
        &self,
        mut x: Tensor<3>,
        places: &Places,
        keep: Option<usize>,
        cache: &mut StackCache,
    ) -> Tensor<3> {
        let last = self.layers.len() - 1;
        for (i, (layer, cache)) in self.layers.iter().zip(cache).enumerate() {
            let keep = keep.filter(|_| i == last);
            x = layer.forward(x, Run::New { places, cache, keep });
        }
        layer_norm(&self.final_layer_norm, self.norm_epsilon, x)
    }
}
