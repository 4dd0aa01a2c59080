//! burn-train's step traits, with which [`LanguageModel`] trains in burn's own trainer.

use block_transformer_family::{Family, TokenBatch};
use burn::tensor::Tensor;
use burn::train::{InferenceStep, SequenceOutput, TrainOutput, TrainStep};

use crate::families::LanguageModel;

impl LanguageModel {
    fn sequence_output(&self, batch: &TokenBatch) -> SequenceOutput {
        let losses = self.losses(batch);
        SequenceOutput::new(
            losses.mean(),
            losses.logits,
            None::<Tensor<2, burn::tensor::Int>>,
            losses.targets,
        )
    }
}

impl TrainStep for LanguageModel {
    type Input = TokenBatch;
    type Output = SequenceOutput;

    fn step(&self, batch: TokenBatch) -> TrainOutput<SequenceOutput> {
        let output = self.sequence_output(&batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for LanguageModel {
    type Input = TokenBatch;
    type Output = SequenceOutput;

    fn step(&self, batch: TokenBatch) -> SequenceOutput {
        self.sequence_output(&batch)
    }
}
