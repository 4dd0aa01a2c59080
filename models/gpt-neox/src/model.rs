//! Token embedding, GPT-NeoX stack, untied LM head.

use block_transformer_family::Family;
use block_transformer_layers::neox::NeoXStack;
use block_transformer_layers::{Positions, causal_by_block, embed, project};
use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Int, Tensor};

use crate::config::GptNeoXConfig;

/// A GPT-NeoX language model.
#[derive(Module, Debug)]
pub struct GptNeoX {
    pub(crate) embed_in: Embedding,
    pub(crate) stack: NeoXStack,
    pub(crate) embed_out: Linear,
    #[module(skip)]
    pub(crate) config: GptNeoXConfig,
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
    pub(crate) fn hidden_states(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, time] = ids.dims();
        let start = Positions::Same(0);
        let mask = causal_by_block(&start, time, 1, None);
        let rotary = self.stack.rotary(&start, time);
        self.stack.forward(embed(&self.embed_in, ids), &mask, &rotary)
    }

    /// The LM head: `[batch, time, hidden] -> [batch, time, vocab]`.
    pub(crate) fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        project(hidden, self.head(), None)
    }
}
