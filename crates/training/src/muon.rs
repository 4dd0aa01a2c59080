//! Muon that skips a step by a flag on the device, as [`SkippingAdamW`](crate::skipping::SkippingAdamW) does.

use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdjustLrFn, Muon, MuonConfig, Optimizer, RecordState, StateSink, StateSource,
    decay::WeightDecayConfig,
};
use burn::tensor::{Device, Tensor};

use crate::gradients::square_sum_in_parts;
use crate::skipping::{Decision, SkipFlag};

/// Share of the velocity of the step before, with Nesterov's look ahead, as published.
const MOMENTUM: f64 = 0.95;
/// Norm of the matrix that burn's Muon gets, below 1: see [`SkippingMuon::new`].
const NORM: f64 = 0.999;
/// Least norm by which a matrix is divided.
const LEAST_NORM: f64 = 1e-7;
/// The field of a record.
const VELOCITY: &str = "velocity";

/// The velocity of a matrix.
#[derive(Clone)]
pub(crate) struct Velocity<const D: usize>(Tensor<D>);

impl<const D: usize> RecordState for Velocity<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_tensor(prefix, VELOCITY, self.0.to_data());
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let data = src.take_tensor(prefix, VELOCITY)?;
        Some(Self(Tensor::from_data(data, device)))
    }
}

/// burn's Muon (Jordan et al., 2024) for matrices, with the scale of updates of "Muon is Scalable for LLM
/// Training" (arXiv 2502.16982): an update has the root mean square of one of AdamW, so that both use one
/// learning rate and weight decay. A skipped step leaves weights and velocities as they are.
#[derive(Clone)]
pub(crate) struct SkippingMuon {
    muon: Muon,
    skip: SkipFlag,
}

impl SkippingMuon {
    /// Muon that skips its steps by `skip`.
    ///
    /// The momentum is kept here, because the state of burn's Muon gives no access to it and a skipped step
    /// must not change it. burn divides a matrix by the larger of its norm and its epsilon. Its sum of squares
    /// depends on the threads from 4 million elements on, so this crate divides by a norm of its own before,
    /// and burn by its epsilon, 1.
    pub(crate) fn new(weight_decay: f64, skip: SkipFlag) -> Self {
        let muon = MuonConfig::new()
            .with_weight_decay(Some(WeightDecayConfig::new(weight_decay as f32)))
            .with_momentum(MomentumConfig { momentum: 0.0, dampening: 0.0, nesterov: false })
            .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW)
            .with_epsilon(1.0)
            .build();
        Self { muon, skip }
    }
}

impl Optimizer for SkippingMuon {
    type State<const D: usize> = Velocity<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<Velocity<D>>,
    ) -> (Tensor<D>, Option<Velocity<D>>) {
        let (gradient, skip) = match self.skip.get() {
            None => (gradient, None),
            Some(Decision::Skip(skip)) => (gradient, Some(skip)),
            Some(Decision::Control(control)) => {
                let factor = control.clone().narrow(0, 0, 1).reshape([1; D]);
                let skip = control.narrow(0, 1, 1).greater_scalar(0.0);
                (gradient.clone() * factor.cast(gradient.dtype()), Some(skip))
            }
        };
        let velocity = match &state {
            Some(Velocity(velocity)) => velocity.clone() * MOMENTUM + gradient.clone(),
            None => gradient.clone(),
        };
        let ahead = velocity.clone() * MOMENTUM + gradient;
        let norm = square_sum_in_parts(ahead.clone()).sqrt().clamp_min(LEAST_NORM) / NORM;
        let matrix = ahead.clone() / norm.reshape([1; D]).cast(ahead.dtype());
        let (new, _) = self.muon.step(lr, weights.clone(), matrix, None);
        let Some(skip) = skip else { return (new, Some(Velocity(velocity))) };
        let skip = skip.reshape([1; D]).expand(weights.dims());
        let before = state.map_or_else(|| weights.zeros_like(), |Velocity(velocity)| velocity);
        let velocity = velocity.mask_where(skip.clone(), before);
        (new.mask_where(skip, weights), Some(Velocity(velocity)))
    }

    fn to_device<const D: usize>(state: Velocity<D>, device: &Device) -> Velocity<D> {
        Velocity(state.0.to_device(device))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Bool;

    use super::*;

    const LR: f64 = 0.01;
    const DECAY: f64 = 0.1;

    fn matrix(step: usize) -> Tensor<2> {
        let value = |i: usize| ((i * 7919 + step * 31) % 1013) as f32 * 1e-3 - 0.5;
        let values: Vec<f32> = (0..24 * 40).map(value).collect();
        Tensor::<1>::from_floats(&values[..], &Device::flex()).reshape([24, 40])
    }

    fn values(tensor: &Tensor<2>) -> Vec<f32> {
        tensor.to_data().iter::<f32>().collect()
    }

    /// The largest difference, and the root mean square of `b`.
    fn difference(a: &Tensor<2>, b: &Tensor<2>) -> (f32, f32) {
        let (a, b) = (values(a), values(b));
        let largest = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let squares: f32 = b.iter().map(|b| b * b).sum();
        (largest, (squares / b.len() as f32).sqrt())
    }

    #[test]
    fn steps_are_those_of_burns_muon() {
        let burns = MuonConfig::new()
            .with_weight_decay(Some(WeightDecayConfig::new(DECAY as f32)))
            .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW)
            .build();
        let ours = SkippingMuon::new(DECAY, SkipFlag::default());
        let (mut state, mut their_state) = (None, None);
        let (mut weights, mut theirs) = (matrix(0), matrix(0));
        for step in 1..4 {
            let before = weights.clone();
            (weights, state) = ours.step(LR, weights, matrix(step), state);
            (theirs, their_state) = burns.step(LR, theirs, matrix(step), their_state);
            let update = (weights.clone() - before * (1.0 - LR * DECAY)) / LR;
            // an update has the root mean square of one of AdamW, about 0.2
            let (_, size) = difference(&update, &update);
            assert!((0.1..0.3).contains(&size), "step {step}: {size}");
            // the norm before the iteration is 0.1% smaller
            let (largest, _) = difference(&weights, &theirs);
            assert!(f64::from(largest) < 0.01 * LR, "step {step}: {largest}");
        }
    }

    #[test]
    fn the_size_of_a_gradient_does_not_matter_even_if_it_is_zero() {
        let muon = SkippingMuon::new(0.0, SkipFlag::default());
        let step = |scale: f64| muon.step(LR, matrix(0), matrix(1) * scale, None).0;
        let (largest, _) = difference(&step(1e-3), &step(1e3));
        assert!(f64::from(largest) < 1e-3 * LR, "{largest}");
        assert_eq!(values(&step(0.0)), values(&matrix(0)));
    }

    #[test]
    fn a_skipped_step_leaves_weights_and_velocities() {
        let device = Device::flex();
        let flag = SkipFlag::default();
        let muon = SkippingMuon::new(DECAY, flag.clone());
        let (weights, state) = muon.step(LR, matrix(0), matrix(1), None);
        let velocity = values(&state.as_ref().unwrap().0);
        let nan = matrix(2) * f64::NAN;
        let skip = |skip: bool| Decision::Skip(Tensor::<1, Bool>::from_data([skip], &device));
        let control = |control: [f32; 2]| Decision::Control(Tensor::from_data(control, &device));
        for decision in [skip(true), control([f32::NAN, 1.0])] {
            flag.set(Some(decision));
            let (same, kept) = muon.step(LR, weights.clone(), nan.clone(), state.clone());
            assert_eq!(values(&same), values(&weights));
            assert_eq!(values(&kept.unwrap().0), velocity);
            // a velocity that does not exist yet begins as zeros
            let (same, kept) = muon.step(LR, weights.clone(), nan.clone(), None);
            assert_eq!(values(&same), values(&weights));
            assert!(values(&kept.unwrap().0).iter().all(|value| *value == 0.0));
        }
        // a step that is not skipped is the same with a factor of the gradient and with its product
        flag.set(Some(control([0.25, 0.0])));
        let (a, kept) = muon.step(LR, weights.clone(), matrix(2), state.clone());
        flag.set(Some(skip(false)));
        let (b, same) = muon.step(LR, weights.clone(), matrix(2) * 0.25, state.clone());
        assert_eq!(values(&a), values(&b));
        assert_eq!(values(&kept.unwrap().0), values(&same.unwrap().0));
        assert_ne!(values(&a), values(&weights));
    }
}
