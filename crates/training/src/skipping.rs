//! AdamW that skips a step by a flag on the device.

use std::sync::{Arc, Mutex, PoisonError};

use burn::optim::{AdamW, AdamWState, Optimizer};
use burn::tensor::{Bool, Device, Tensor};

/// Whether the next step is skipped: `[1]`, on the device of the weights. `None` runs every step
/// without looking.
#[derive(Clone, Default)]
pub(crate) struct SkipFlag(Arc<Mutex<Option<Tensor<1, Bool>>>>);

impl SkipFlag {
    pub(crate) fn set(&self, skip: Option<Tensor<1, Bool>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = skip;
    }

    fn get(&self) -> Option<Tensor<1, Bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// burn's AdamW, with the same state. A skipped step leaves weights and moments as they are; it
/// counts as a step in the correction of the moments' bias, whose counter is on the host.
#[derive(Clone)]
pub(crate) struct SkippingAdamW {
    adamw: AdamW,
    skip: SkipFlag,
}

impl SkippingAdamW {
    /// `adamw`, which does not use AMSGrad, and the flag that skips its steps.
    pub(crate) fn new(adamw: AdamW) -> (Self, SkipFlag) {
        let skip = SkipFlag::default();
        (Self { adamw, skip: skip.clone() }, skip)
    }
}

impl Optimizer for SkippingAdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let Some(skip) = self.skip.get() else {
            return self.adamw.step(lr, weights, gradient, state);
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
    use burn::optim::AdamWConfig;

    fn values(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.to_data().iter::<f32>().collect()
    }

    #[test]
    fn a_skipped_step_leaves_weights_and_moments_and_another_one_is_burns() {
        let device = Device::flex();
        let tensor = |values: [f32; 2]| Tensor::<1>::from_data(values, &device);
        let flag = |skip: bool| Some(Tensor::<1, Bool>::from_data([skip], &device));
        let burns = AdamWConfig::new().with_weight_decay(0.1).build();
        let (adamw, skip) = SkippingAdamW::new(burns.clone());
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
}
