//! The update of a training step. Parity tests and benchmarks use the same code.

use block_transformer_layers::has_adamw;
use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{DType, Tensor};

use crate::gradients;
use crate::skipping::{Decision, SkipFlag};

/// As in `torch.nn.utils.clip_grad_norm_`.
const NORM_EPSILON: f64 = 1e-6;

/// Loss and gradient norm of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// Mean loss of the micro-batches before the step, in nats per token.
    pub loss: f64,
    /// Global norm of the averaged gradient before clipping.
    pub grad_norm: f64,
}

impl StepResult {
    /// The result of a step without data.
    pub(crate) const NONE: Self = Self { loss: f64::NAN, grad_norm: f64::NAN };

    /// Whether both values are finite. If not, the step changed nothing.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.grad_norm.is_finite()
    }

    /// The result from the sums of the losses and of the squares of the gradient over `n`
    /// micro-batches. Without gradients there is no norm.
    fn of(sums: &[f64], n: f64) -> Self {
        let grad_norm = sums.get(1).map_or(f64::NAN, |squares| squares.sqrt() / n);
        Self { loss: sums[0] / n, grad_norm }
    }
}

/// The result of a step, which may still be on the device.
pub(crate) enum StepValues {
    Read(StepResult),
    /// The sums of the losses and of the squares of the gradient, `[2]`, over `count` micro-batches.
    Unread {
        sums: Box<Tensor<1>>,
        count: usize,
    },
}

impl StepValues {
    /// Copies the results of `steps` to the host, in one transfer.
    pub(crate) fn read_all(steps: Vec<Self>) -> Vec<StepResult> {
        let unread = |step: &Self| match step {
            Self::Unread { sums, .. } => Some((**sums).clone()),
            Self::Read(_) => None,
        };
        let unread: Vec<Tensor<1>> = steps.iter().filter_map(unread).collect();
        let read = if unread.is_empty() { Vec::new() } else { host(Tensor::cat(unread, 0)) };
        let mut sums = read.chunks_exact(2);
        let result = |step| match step {
            Self::Read(result) => result,
            Self::Unread { count, .. } => {
                sums.next().map_or(StepResult::NONE, |sums| StepResult::of(sums, count as f64))
            }
        };
        steps.into_iter().map(result).collect()
    }
}

/// Averages the gradients of `count` micro-batches, clips them to the global norm `clip`, and runs
/// one optimizer step at learning rate `lr`. `losses` (`[1]`, off the autodiff graph) and `sum` are
/// the sums of the micro-batches' losses and gradients. If the loss or the norm is not finite,
/// nothing changes.
///
/// Takes the model by value, as burn's optimizers do: weights that are not shared are updated in
/// place. (burn's own clipping takes the norm of each tensor separately.)
pub fn apply_update<M: Module>(
    model: M,
    optimizer: &mut ModuleOptimizer,
    losses: Tensor<1>,
    sum: GradientsParams,
    count: usize,
    clip: f64,
    lr: f64,
) -> (M, StepResult) {
    read_update(model, (optimizer, None), losses, sum, count, clip, lr)
}

/// [`apply_update`]. With `skip`, by which the optimizer skips a step, the optimizer counts a step
/// whose loss or norm is not finite, as it does in [`queue_update`].
pub(crate) fn read_update<M: Module>(
    model: M,
    (optimizer, skip): (&mut ModuleOptimizer, Option<&SkipFlag>),
    losses: Tensor<1>,
    sum: GradientsParams,
    count: usize,
    clip: f64,
    lr: f64,
) -> (M, StepResult) {
    let n = count as f64;
    let device = losses.device();
    // the only read from the device in a step
    let read = match gradients::sum_of_squares(&model, &sum) {
        Some(squares) => host(Tensor::cat(vec![losses, squares], 0)),
        None => host(losses),
    };
    let result = StepResult::of(&read, n);
    if result.is_finite() {
        let factor = (clip / (result.grad_norm + NORM_EPSILON)).min(1.0) / n;
        let model = match skip {
            Some(skip) if has_adamw(&device) => {
                let control = Tensor::from_data([factor as f32, 0.0], &device);
                skip.set(Some(Decision::Control(control)));
                let model = optimizer.step(lr, model, sum);
                skip.set(None);
                model
            }
            _ if factor == 1.0 => optimizer.step(lr, model, sum),
            _ => {
                let sum = gradients::scale(&model, sum, factor);
                optimizer.step(lr, model, sum)
            }
        };
        return (model, result);
    }
    let Some(skip) = skip else { return (model, result) };
    skip.set(Some(Decision::Skip(Tensor::from_data([true], &device))));
    let model = optimizer.step(lr, model, sum);
    skip.set(None);
    (model, result)
}

/// [`apply_update`] without a read from the device. The optimizer must skip its step by `skip`. The
/// weights have the same bits as those of `apply_update` on devices that compute in f64.
pub(crate) fn queue_update<M: Module>(
    model: M,
    (optimizer, skip): (&mut ModuleOptimizer, &SkipFlag),
    losses: Tensor<1>,
    sum: GradientsParams,
    count: usize,
    clip: f64,
    lr: f64,
) -> (M, StepValues) {
    let n = count as f64;
    let Some(squares) = gradients::sum_of_squares(&model, &sum) else {
        return (model, StepValues::Read(StepResult::NONE));
    };
    let sums = Tensor::cat(vec![losses, squares.clone()], 0);
    let device = sums.device();
    let wide = if device.supports_dtype(DType::F64) { DType::F64 } else { DType::F32 };
    let norm = squares.clone().cast(wide).sqrt() / n;
    let clip = Tensor::<1>::full([1], clip, (&device, wide));
    let factor = (clip / (norm + NORM_EPSILON)).clamp_max(1.0) / n;
    let factor = factor.cast(squares.dtype());
    let is_bad = sums.clone().is_finite().bool_not().any();
    let gradients = if has_adamw(&device) {
        let control = vec![factor, is_bad.float().cast(squares.dtype())];
        skip.set(Some(Decision::Control(Tensor::cat(control, 0))));
        sum
    } else {
        skip.set(Some(Decision::Skip(is_bad)));
        gradients::scale_by(&model, sum, &factor)
    };
    let model = optimizer.step(lr, model, gradients);
    skip.set(None);
    (model, StepValues::Unread { sums: Box::new(sums), count })
}

pub(crate) fn host(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::token_batch;
    use crate::config::TrainConfig;
    use crate::optimizer::optimizer;
    use block_transformer_cost::OptimizerKind;
    use block_transformer_datasets::Window;
    use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, preset};
    use burn::module::{ModuleVisitor, Param};
    use burn::tensor::Device;

    const STEPS: usize = 5;
    const KINDS: [OptimizerKind; 2] = [OptimizerKind::Adamw, OptimizerKind::Muon];

    /// Bits of all weights.
    fn bits(model: &LanguageModel) -> Vec<u32> {
        struct Bits(Vec<u32>);
        impl ModuleVisitor for Bits {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.0.extend(param.val().into_data().iter::<f32>().map(f32::to_bits));
            }
        }
        let mut bits = Bits(Vec::new());
        model.visit(&mut bits);
        bits.0
    }

    /// The bits of the weights after each step, and the results. The gradients of step `bad` are not
    /// finite.
    fn trained(
        kind: OptimizerKind,
        on_device: bool,
        bad: Option<usize>,
    ) -> (Vec<Vec<u32>>, Vec<StepResult>) {
        let device = Device::flex().autodiff();
        let config = preset("debug-block").unwrap().model.clone().with_vocab_size(64);
        let mut model = LanguageModel::init(&config, 0, &device);
        let defaults = TrainConfig::from_preset("debug-block").unwrap();
        let run = TrainConfig { optimizer: kind, beta2: 0.999, epsilon: 1e-5, ..defaults };
        let (mut optimizer, skip) = optimizer(&run);
        let (mut weights, mut values) = (Vec::new(), Vec::new());
        for step in 0..STEPS {
            let ids = (0..32).map(|i| (i * 7 + step as u32) % 64).collect();
            let window = Window { ids, is_token: vec![true; 32] };
            let loss = model.loss(&token_batch(&[window], config.block_length(), &device));
            let losses = loss.clone().inner();
            let mut sum = GradientsParams::from_grads(loss.backward(), &model);
            if bad == Some(step) {
                sum = gradients::scale(&model, sum, f64::NAN);
            }
            // 3 micro-batches and a small norm, so that the factor has many digits
            let (count, clip, lr) = (3, 0.01, 1e-2);
            let value;
            (model, value) = if on_device {
                queue_update(model, (&mut optimizer, &skip), losses, sum, count, clip, lr)
            } else {
                let optimizer = (&mut optimizer, Some(&skip));
                let (model, result) = read_update(model, optimizer, losses, sum, count, clip, lr);
                (model, StepValues::Read(result))
            };
            assert_eq!(matches!(value, StepValues::Unread { .. }), on_device);
            values.push(value);
            weights.push(bits(&model));
        }
        (weights, StepValues::read_all(values))
    }

    #[test]
    fn an_update_without_a_read_has_the_same_bits() {
        for kind in KINDS {
            let (expected, results) = trained(kind, false, None);
            let (weights, late) = trained(kind, true, None);
            assert!(weights == expected);
            assert_eq!(late, results);
            assert!(results.iter().all(StepResult::is_finite));
            assert!(results[0].grad_norm > 0.01, "the gradient is clipped: {results:?}");
        }
    }

    #[test]
    fn a_step_that_is_not_finite_is_skipped_with_and_without_a_read() {
        for (kind, bad) in KINDS.into_iter().flat_map(|kind| [(kind, 0), (kind, 2)]) {
            let (expected, results) = trained(kind, false, Some(bad));
            let (weights, late) = trained(kind, true, Some(bad));
            assert!(weights == expected);
            for results in [results, late] {
                let finite: Vec<bool> = results.iter().map(StepResult::is_finite).collect();
                assert_eq!(finite, (0..STEPS).map(|step| step != bad).collect::<Vec<_>>());
            }
            for step in 1..STEPS {
                assert_eq!(weights[step] == weights[step - 1], step == bad, "{step}");
            }
            assert!(weights.last().unwrap().iter().all(|bits| f32::from_bits(*bits).is_finite()));
        }
    }
}
