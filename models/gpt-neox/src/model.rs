//! Token embedding, GPT-NeoX stack, untied LM head.

use block_transformer_family::{BlockDecoding, Continuations, Family, TokenBatch};
use block_transformer_layers::neox::NeoXStack;
use block_transformer_layers::{Init, Positions, causal_by_block, int_tensor, project};
use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Int, Tensor};

use crate::config::GptNeoXConfig;
use crate::decoding::DecodingState;

/// A GPT-NeoX language model.
#[derive(Module, Debug)]
pub struct GptNeoX {
    pub(crate) embed_in: Embedding,
    pub(crate) stack: NeoXStack,
    embed_out: Linear,
    #[module(skip)]
    config: GptNeoXConfig,
}

impl GptNeoX {
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
    fn hidden_states(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, time] = ids.dims();
        let start = Positions::Same(0);
        let mask = causal_by_block(&start, time, 1, None);
        let rotary = self.stack.rotary(&start, time);
        self.stack.forward(self.embed_in.forward(ids), &mask, &rotary)
    }

    /// The LM head: `[batch, time, hidden] -> [batch, time, vocab]`.
    pub(crate) fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        project(hidden, self.head(), None)
    }
}

impl Family for GptNeoX {
    type Config = GptNeoXConfig;

    fn init(config: &GptNeoXConfig, seed: u64, device: &Device) -> Self {
        let (vocab, hidden, std) =
            (config.vocab_size, config.stack.hidden_size, NeoXStack::INIT_STD);
        let init = Init::new(seed, device);
        Self {
            embed_in: init.embedding("embed_in", vocab, hidden, std),
            stack: NeoXStack::new(&config.stack, &init.at("stack")),
            embed_out: init.linear("embed_out", hidden, vocab, false, std),
            config: config.clone(),
        }
    }

    fn config(&self) -> GptNeoXConfig {
        self.config.clone()
    }

    fn hidden(&self, batch: &TokenBatch) -> Tensor<2> {
        let [b, time] = batch.ids.dims();
        // the last token is never an input; padding comes after the tokens, so causal attention
        // does not reach it
        let hidden = self.hidden_states(batch.ids.clone().narrow(1, 0, time - 1));
        let [_, _, width] = hidden.dims();
        hidden.reshape([b * (time - 1), width])
    }

    fn head(&self) -> Tensor<2> {
        self.embed_out.weight.val()
    }

    fn continuation_hidden(&self, Continuations { ids, before, .. }: Continuations) -> Tensor<3> {
        let ([rows, time, _], device, count) = (ids.dims(), ids.device(), before.len());
        let hidden = self.hidden_states(ids.reshape([rows, time]));
        let [_, _, width] = hidden.dims();
        let before = int_tensor(before, &device);
        hidden.reshape([rows * time, width]).select(0, before).reshape([count, 1, width])
    }

    fn decoder(&self, slots: usize, blocks: usize, device: &Device) -> Box<dyn BlockDecoding> {
        Box::new(DecodingState::new(self.clone(), slots, blocks, device))
    }
}
