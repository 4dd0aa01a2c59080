//! Gradients and optimizer steps on the recorded batch.

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Device;
use zoo_weights::{HostTensors, Source, published_tensors};

use crate::{Case, ParityError, compare::values};

/// Gradients of the mean loss, by published name.
pub(crate) fn gradients(case: &Case, device: &Device) -> Result<HostTensors, ParityError> {
    let device = device.clone().autodiff();
    let model = case.model(&device)?;
    let loss = model.loss(&case.batch(&device)?);
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    Ok(published_tensors(&model, &case.config, &Source::Gradients(&gradients)))
}

/// The loss before each of `steps` AdamW steps: lr 1e-2, betas 0.9/0.95, eps 1e-8, decay 0.1 on
/// every parameter, global-norm clip 1.0.
pub(crate) fn adamw_losses(
    case: &Case,
    device: &Device,
    steps: usize,
) -> Result<Vec<f32>, ParityError> {
    let device = device.clone().autodiff();
    let mut model = case.model(&device)?;
    let batch = case.batch(&device)?;
    let mut optimizer =
        AdamWConfig::new().with_beta_2(0.95).with_epsilon(1e-8).with_weight_decay(0.1).init();
    let mut losses = Vec::with_capacity(steps);
    for _ in 0..steps {
        let loss = model.loss(&batch);
        losses.extend(values(loss.clone().inner()));
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let (gradients, _) = clip_global_norm(&model, gradients, 1.0);
        model = optimizer.step(1e-2, model, gradients);
    }
    Ok(losses)
}

// TEMPORARY
struct Sq<'a>(&'a GradientsParams, f64);
impl burn::module::ModuleVisitor for Sq<'_> {
    fn visit_float<const D: usize>(&mut self, p: &burn::module::Param<burn::tensor::Tensor<D>>) {
        if let Some(g) = self.0.get::<D>(p.id) { self.1 += g.square().sum().into_scalar::<f32>() as f64; }
    }
}
struct Sc<'a>(&'a mut GradientsParams, f64);
impl burn::module::ModuleVisitor for Sc<'_> {
    fn visit_float<const D: usize>(&mut self, p: &burn::module::Param<burn::tensor::Tensor<D>>) {
        if let Some(g) = self.0.remove::<D>(p.id) { self.0.register(p.id, g * self.1); }
    }
}
/// temporary
pub fn clip_global_norm<M: Module>(model: &M, mut g: GradientsParams, max: f64) -> (GradientsParams, f64) {
    let mut v = Sq(&g, 0.0);
    model.visit(&mut v);
    let norm = v.1.sqrt();
    if norm > max { model.visit(&mut Sc(&mut g, max / (norm + 1e-6))); }
    (g, norm)
}
