//! The model as a family: constructor, hidden states and decoding state.

use block_transformer_family::{BlockDecoding, CacheRoom, Continuations, Family, TokenBatch};
use block_transformer_layers::neox::NeoXStack;
use block_transformer_layers::{Init, int_tensor};
use burn::tensor::{Device, Tensor};

use crate::config::GptNeoXConfig;
use crate::decoding::TokenDecodingState;
use crate::model::GptNeoX;

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

    fn decoder(&self, room: CacheRoom, device: &Device) -> Box<dyn BlockDecoding> {
        Box::new(TokenDecodingState::new(self.clone(), room, device))
    }
}
