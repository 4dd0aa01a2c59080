//! Token embedding, GPT-NeoX stack, untied LM head.

use block_transformer_layers::neox::{NeoXStack, StackCache};
use block_transformer_layers::{Init, Positions, causal_by_block, project};
use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Int, Tensor};

use crate::config::GptNeoXConfig;

/// The KV caches of [`GptNeoX`], one position per token.
pub type GptNeoXCache = StackCache;

/// A GPT-NeoX language model.
#[derive(Module, Debug)]
pub struct GptNeoX {
    embed_in: Embedding,
    stack: NeoXStack,
    pub(crate) embed_out: Linear,
    #[module(skip)]
    pub(crate) config: GptNeoXConfig,
}

impl GptNeoX {
    /// A model with parameters drawn from `init`.
    pub fn new(config: &GptNeoXConfig, init: &Init) -> Self {
        let (vocab, hidden, std) =
            (config.vocab_size, config.stack.hidden_size, NeoXStack::INIT_STD);
        Self {
            embed_in: init.embedding("embed_in", vocab, hidden, std),
            stack: NeoXStack::new(&config.stack, &init.at("stack")),
            embed_out: init.linear("embed_out", hidden, vocab, false, std),
            config: config.clone(),
        }
    }

    /// Logits of every position.
    ///
    /// # Shapes
    /// - `ids`: `[batch, time]`
    /// - output: `[batch, time, vocab]`
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.logits(self.hidden_states(ids))
    }

    /// Hidden states of every position after the final norm.
    ///
    /// # Shapes
    /// - `ids`: `[batch, time]`
    /// - output: `[batch, time, hidden]`
    pub fn hidden_states(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, time] = ids.dims();
        let start = Positions::Same(0);
        let mask = causal_by_block(&start, time, 1, None);
        let rotary = self.stack.rotary(&start, time);
        self.stack.forward(self.embed_in.forward(ids), &mask, &rotary)
    }

    /// Adds the new positions at `at` to `cache`. Returns the hidden states, after the final norm, of
    /// each row's last `keep` positions.
    ///
    /// # Shapes
    /// - `ids`: `[rows, time]`
    /// - output: `[rows, keep, hidden]`
    pub fn hidden_cached(
        &self,
        ids: Tensor<2, Int>,
        at: &Positions,
        keep: usize,
        cache: &mut GptNeoXCache,
    ) -> Tensor<3> {
        let [_, time] = ids.dims();
        let rotary = self.stack.rotary(at, time);
        self.stack.append(self.embed_in.forward(ids), &rotary, at, 1, keep, cache)
    }

    /// The LM head: `[batch, time, hidden] -> [batch, time, vocab]`.
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        project(hidden, self.embed_out.weight.val(), None)
    }

    /// Empty caches of `slots` sequences of up to `capacity` tokens.
    pub fn new_cache(&self, slots: usize, capacity: usize, device: &Device) -> GptNeoXCache {
        self.stack.new_cache(slots, capacity, device)
    }
}
