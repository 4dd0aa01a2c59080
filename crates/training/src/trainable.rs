//! A language model in the form that the learner of burn-train needs.

use block_transformer_zoo::{Family, LanguageModel, TokenBatch};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, ExecutionError, Tensor};
use burn::train::metric::{Adaptor, LossInput};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};

/// A language model of any family with the steps of burn-train, for [`burn::train::Learner`].
#[derive(Module, Debug)]
pub struct Trainable<M: Module> {
    /// The model.
    pub model: M,
}

/// The model of a run.
pub(crate) type Learned = Trainable<LanguageModel>;

/// Output of a training or validation step, from which metrics are computed.
#[derive(Clone, Debug)]
pub struct StepOutput {
    /// Mean loss in nats per token, `[1]`.
    pub loss: Tensor<1>,
    /// Global norm of the gradient before clipping; NaN where there is none.
    pub grad_norm: f64,
    /// Tokens per second; NaN where they are not measured.
    pub tokens_per_second: f64,
    /// Share of the peak, in percent; NaN where it is not known.
    pub mfu_percent: f64,
    /// Memory of the first device in use, in GiB; NaN where it is not known.
    pub device_memory: f64,
}

impl StepOutput {
    /// Creates the output of a step from values on the host.
    pub(crate) fn new(loss: f64, grad_norm: f64, tokens_per_second: f64) -> Self {
        // burn-train includes the Flex backend, whose device memory is host memory
        let loss = Tensor::from_data([loss as f32], &Device::flex());
        Self { grad_norm, tokens_per_second, ..Self::of(loss) }
    }

    fn of(loss: Tensor<1>) -> Self {
        let (grad_norm, tokens_per_second) = (f64::NAN, f64::NAN);
        Self { loss, grad_norm, tokens_per_second, mfu_percent: f64::NAN, device_memory: f64::NAN }
    }
}

impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        self.loss.device().flush()?;
        Ok(Self { loss: self.loss.without_autodiff(), ..self })
    }
}

impl Adaptor<LossInput> for StepOutput {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.loss.clone())
    }
}

/// For metrics that take the whole output as input.
impl Adaptor<StepOutput> for StepOutput {
    fn adapt(&self) -> StepOutput {
        self.clone()
    }
}

impl<M: Family> TrainStep for Trainable<M> {
    type Input = TokenBatch;
    type Output = StepOutput;

    fn step(&self, batch: TokenBatch) -> TrainOutput<StepOutput> {
        let loss = self.model.loss(&batch);
        let grads = GradientsParams::from_grads(loss.backward(), &self.model);
        TrainOutput { grads, item: StepOutput::of(loss) }
    }
}

impl<M: Family> InferenceStep for Trainable<M> {
    type Input = TokenBatch;
    type Output = StepOutput;

    fn step(&self, batch: TokenBatch) -> StepOutput {
        StepOutput::of(self.model.loss(&batch))
    }
}
