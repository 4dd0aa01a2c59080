//! AdamW that skips a step by a flag on the device.

use std::sync::{Arc, Mutex, PoisonError};

use block_transformer_layers::{AdamWStep, adamw};
use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer};
use burn::tensor::{Bool, DType, Device, Tensor};

/// The decision of the device about the next step.
#[derive(Clone)]
pub(crate) enum Decision {
    /// Whether the step is skipped, `[1]`. The gradients are scaled.
    Skip(Tensor<1, Bool>),
    /// For the kernel: the factor of the gradients, and 1 if the step is skipped, otherwise 0, `[2]`.
    Control(Tensor<1>),
}

/// The decision about the next step, on the device of the weights. `None` runs every step without
/// looking.
#[derive(Clone, Default)]
pub(crate) struct SkipFlag(Arc<Mutex<Option<Decision>>>);

impl SkipFlag {
    pub(crate) fn set(&self, decision: Option<Decision>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = decision;
    }

    pub(crate) fn get(&self) -> Option<Decision> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Hyper-parameters of AdamW.
#[derive(Clone, Copy)]
pub(crate) struct Constants {
    pub beta_1: f32,
    pub beta_2: f32,
    pub epsilon: f32,
    pub weight_decay: f32,
}

/// burn's AdamW, with the same state. A skipped step leaves weights and moments as they are; it
/// counts as a step in the correction of the moments' bias, whose counter is on the host.
#[derive(Clone)]
pub(crate) struct SkippingAdamW {
    adamw: AdamW,
    constants: Constants,
    skip: SkipFlag,
}

impl SkippingAdamW {
    /// AdamW without AMSGrad, and the flag that skips its steps.
    pub(crate) fn new(constants: Constants) -> (Self, SkipFlag) {
        let adamw = AdamWConfig::new()
            .with_beta_1(constants.beta_1)
            .with_beta_2(constants.beta_2)
            .with_epsilon(constants.epsilon)
            .with_weight_decay(constants.weight_decay)
            .build();
        let skip = SkipFlag::default();
        (Self { adamw, constants, skip: skip.clone() }, skip)
    }

    /// The step as a kernel.
    fn in_one_pass<const D: usize>(
        &self,
        lr: f64,
        weights: Tensor<D>,
        gradient: &Tensor<D>,
        state: Option<AdamWState<D>>,
        control: &Tensor<1>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let Constants { beta_1, beta_2, epsilon, weight_decay } = self.constants;
        let (time, first, second) = match state {
            Some(AdamWState { momentum }) => (momentum.time, momentum.moment_1, momentum.moment_2),
            None => (0, weights.zeros_like(), weights.zeros_like()),
        };
        let time = time + 1;
        let step = AdamWStep {
            beta_1,
            beta_2,
            correction_1: 1.0 - beta_1.powi(time as i32),
            correction_2: 1.0 - beta_2.powi(time as i32),
            epsilon,
            keep: (1.0 - lr * f64::from(weight_decay)) as f32,
            lr: lr as f32,
            is_first: time == 1,
        };
        let done = adamw([weights, first, second], gradient, control, step);
        let [weights, first, second] = done.expect("a control is given where the kernel applies");
        (weights, Some(AdamWState::new(AdaptiveMomentumState::new(time, first, second))))
    }
}

impl Optimizer for SkippingAdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        weights: Tensor<D>,
        mut gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let skip = match self.skip.get() {
            None => return self.adamw.step(lr, weights, gradient, state),
            Some(Decision::Control(control)) if weights.dtype() == DType::F32 => {
                return self.in_one_pass(lr, weights, &gradient, state, &control);
            }
            // no kernel takes other formats
            Some(Decision::Control(control)) => {
                let factor = control.clone().narrow(0, 0, 1).reshape([1; D]);
                gradient = gradient.clone() * factor.cast(gradient.dtype());
                control.narrow(0, 1, 1).greater_scalar(0.0)
            }
            Some(Decision::Skip(skip)) => skip,
        };
        let skip = skip.reshape([1; D]).expand(weights.dims());
        // a selection, not a product with 0, which would keep values that are not finite
        let select = |new: Tensor<D>, old: Tensor<D>| new.mask_where(skip.clone(), old);
        let (old, moments) = (weights.clone(), state.as_ref().map(|state| state.momentum.clone()));
        let (weights, state) = self.adamw.step(lr, weights, gradient, state);
        let state = state.map(|mut state| {
            let new = &mut state.momentum;
            let zeros = || old.zeros_like();
            let (first, second) = match moments {
                Some(moments) => (moments.moment_1, moments.moment_2),
                None => (zeros(), zeros()),
            };
            new.moment_1 = select(new.moment_1.clone(), first);
            new.moment_2 = select(new.moment_2.clone(), second);
            state
        });
        (select(weights, old), state)
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        <AdamW as Optimizer>::to_device(state, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.to_data().iter::<f32>().collect()
    }

    #[test]
    fn a_skipped_step_leaves_weights_and_moments_and_another_one_is_burns() {
        let device = Device::flex();
        let tensor = |values: [f32; 2]| Tensor::<1>::from_data(values, &device);
        let flag = |skip: bool| Some(Decision::Skip(Tensor::<1, Bool>::from_data([skip], &device)));
        let burns = AdamWConfig::new().with_beta_2(0.99).with_weight_decay(0.1).build();
        let constants = Constants { beta_1: 0.9, beta_2: 0.99, epsilon: 1e-5, weight_decay: 0.1 };
        let (adamw, skip) = SkippingAdamW::new(constants);
        let (weights, gradient) = (tensor([1.0, -2.0]), tensor([0.5, 0.25]));
        let nan = tensor([f32::NAN, f32::INFINITY]);

        let (w, state) = burns.step(0.1, weights.clone(), gradient.clone(), None);
        for run in [None, flag(false)] {
            skip.set(run);
            let (same, _) = adamw.step(0.1, weights.clone(), gradient.clone(), None);
            assert_eq!(values(&same), values(&w));
        }
        skip.set(flag(true));
        let before = state.clone().unwrap().momentum;
        let (same, state) = adamw.step(0.1, w.clone(), nan.clone(), state);
        let after = state.unwrap().momentum;
        assert_eq!(values(&same), values(&w));
        assert_eq!(values(&after.moment_1), values(&before.moment_1));
        assert_eq!(values(&after.moment_2), values(&before.moment_2));
        assert_eq!(after.time, before.time + 1);
        // moments that do not exist yet begin as zeros
        let (same, state) = adamw.step(0.1, w.clone(), nan, None);
        assert_eq!(values(&same), values(&w));
        assert_eq!(values(&state.unwrap().momentum.moment_2), [0.0, 0.0]);
    }

    #[test]
    fn a_step_in_one_pass_has_the_bits_of_burns() {
        let device = Device::flex();
        let constants = Constants { beta_1: 0.9, beta_2: 0.98, epsilon: 1e-8, weight_decay: 0.1 };
        let burns = AdamWConfig::new()
            .with_beta_1(constants.beta_1)
            .with_beta_2(constants.beta_2)
            .with_epsilon(constants.epsilon)
            .with_weight_decay(constants.weight_decay)
            .build();
        let (adamw, skip) = SkippingAdamW::new(constants);
        // more than one task, and a remainder of vectors; gradients with zeros of both signs
        let count = (1 << 16) + 37;
        let values_of = |step: usize| -> Vec<f32> {
            let value = |i: usize| ((i * 7919 + step * 31) % 1013) as f32 * 1e-3 - 0.5;
            (0..count).map(|i| [value(i), 0.0, -0.0][i % 97 / 32 % 3]).collect()
        };
        let tensor = |values: Vec<f32>| Tensor::<1>::from_floats(&values[..], &device);
        let mut weights = tensor(values_of(0));
        let (mut theirs, mut state, mut their_state) = (weights.clone(), None, None);
        let bits = |tensor: &Tensor<1>| -> Vec<u32> {
            values(tensor).into_iter().map(f32::to_bits).collect()
        };
        for (step, factor) in [(1, 0.37_f32), (2, 1.0), (3, 1e-3)] {
            let (lr, gradient) = (0.01 / step as f64, tensor(values_of(step)));
            let scaled = gradient.clone() * f64::from(factor);
            (theirs, their_state) = burns.step(lr, theirs, scaled, their_state);
            skip.set(Some(Decision::Control(tensor(vec![factor, 0.0]))));
            let kept = weights.clone();
            (weights, state) = adamw.step(lr, weights, gradient, state);
            assert_eq!(bits(&weights), bits(&theirs), "step {step}");
            let [ours, burns] =
                [&state, &their_state].map(|state| &state.as_ref().unwrap().momentum);
            assert_eq!(bits(&ours.moment_1), bits(&burns.moment_1), "step {step}");
            assert_eq!(bits(&ours.moment_2), bits(&burns.moment_2), "step {step}");
            // another owner of the weights keeps its values
            assert_ne!(bits(&kept), bits(&weights));
        }
    }
}
