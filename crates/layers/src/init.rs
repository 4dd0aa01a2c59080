//! Seeded initialisation: the initial value of a parameter is a function of (seed, path).

use std::f64::consts::TAU;

use burn::module::{Param, ParamId};
use burn::nn::{Embedding, LayerNorm, LayerNormConfig, Linear, RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Shape, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use siphasher::sip::SipHasher13;

/// The seed of a model, and the path of the module that is being created.
///
/// Parameters are drawn on first access, so replacing them by loaded weights costs nothing.
#[derive(Clone, Debug)]
pub struct Init {
    seed: u64,
    path: String,
    device: Device,
}

impl Init {
    /// The root of a model with its parameters on `device`.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self { seed, path: String::new(), device: device.clone() }
    }

    /// The path of the child called `name`.
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        let path =
            if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) };
        Self { path, ..self.clone() }
    }

    /// A parameter drawn from N(0, `std`²).
    pub fn normal<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        std: f64,
    ) -> Param<Tensor<D>> {
        let seed = self.seed;
        let path = self.at(name).path;
        self.param(name, shape, move |count| normal_values(seed, &path, count, std))
    }

    /// A parameter of zeros.
    pub fn zeros<const D: usize>(&self, name: &str, shape: [usize; D]) -> Param<Tensor<D>> {
        self.param(name, shape, |count| vec![0.0; count])
    }

    /// A parameter of ones.
    pub fn ones<const D: usize>(&self, name: &str, shape: [usize; D]) -> Param<Tensor<D>> {
        self.param(name, shape, |count| vec![1.0; count])
    }

    fn param<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        values: impl FnOnce(usize) -> Vec<f32> + Send + Sync + 'static,
    ) -> Param<Tensor<D>> {
        let id = stable_id(&self.at(name).path);
        let draw = move |device: &Device, require_grad: bool| {
            let values = values(shape.iter().product());
            let tensor = Tensor::<D>::from_data(TensorData::new(values, shape), device);
            tensor.set_require_grad(require_grad)
        };
        Param::uninitialized(id, draw, self.device.clone(), true, Shape::from(shape))
    }

    /// A linear layer `[.., d_in] -> [.., d_out]`, weight N(0, `std`²), bias zero.
    pub fn linear(&self, name: &str, d_in: usize, d_out: usize, bias: bool, std: f64) -> Linear {
        let here = self.at(name);
        Linear {
            weight: here.normal("weight", [d_in, d_out], std),
            bias: bias.then(|| here.zeros("bias", [d_out])),
        }
    }

    /// An embedding table `[rows, width]`, N(0, `std`²).
    pub fn embedding(&self, name: &str, rows: usize, width: usize, std: f64) -> Embedding {
        Embedding { weight: self.at(name).normal("weight", [rows, width], std) }
    }

    /// An RMS norm of the given width: gain one.
    pub fn rms_norm(&self, name: &str, width: usize, epsilon: f64) -> RmsNorm {
        let mut norm = RmsNormConfig::new(width).with_epsilon(epsilon).init(&self.device);
        norm.gamma = self.at(name).ones("gamma", [width]);
        norm
    }

    /// A layer norm of the given width: gain one, bias zero.
    pub fn layer_norm(&self, name: &str, width: usize, epsilon: f64) -> LayerNorm {
        let here = self.at(name);
        let mut norm = LayerNormConfig::new(width).with_epsilon(epsilon).init(&self.device);
        norm.gamma = here.ones("gamma", [width]);
        norm.beta = Some(here.zeros("beta", [width]));
        norm
    }
}

/// The id of the parameter at `path`. It is the same in every process, so that saved optimizer state
/// finds its parameter again.
fn stable_id(path: &str) -> ParamId {
    ParamId::from(hash(0, path))
}

/// SipHash-1-3, with zero keys, of three inputs in order: the seed (little-endian), the path, and a
/// byte 0xff. Checkpoints and initial weights depend on these values.
fn hash(seed: u64, path: &str) -> u64 {
    SipHasher13::new().hash(&[&seed.to_le_bytes(), path.as_bytes(), &[0xff]].concat())
}

/// Draws from N(0, `std`²) with the Box-Muller method and ChaCha8. Another method would change the
/// initial weights.
fn normal_values(seed: u64, path: &str, count: usize, std: f64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(hash(seed, path));
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * std;
        let (sin, cos) = (TAU * rng.random::<f64>()).sin_cos();
        values.push((radius * cos) as f32);
        values.push((radius * sin) as f32);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from `DefaultHasher` in the standard library of Rust 1.95, with which the first
    /// checkpoints were written.
    #[test]
    fn parameter_ids_and_initial_weights_never_change() {
        let path = "stack.layers.0.attention.dense.weight";
        for (seed, path, expected) in [
            (0, path, 0xe626_2e7f_a424_036a),
            (0, "embed_in.weight", 0x23fe_019c_75e6_c737),
            (42, "embed_in.weight", 0x7fb8_18d2_4c47_d2f9),
            (u64::MAX, "", 0xe271_c8ef_95f5_9694),
        ] {
            assert_eq!(hash(seed, path), expected, "{seed} {path}");
        }
        assert_eq!(stable_id(path), ParamId::from(0xe626_2e7f_a424_036a));
        let expected = [-0.009_663_640_5, 0.037_765_507, 0.030_983_731, -0.010_982_715];
        assert_eq!(normal_values(42, "embed_in.weight", 4, 0.02), expected);
        assert_eq!(normal_values(0, path, 2, 1.0), [0.253_953_84, 2.886_586_2]);
    }

    #[test]
    fn draws_have_the_requested_deviation_and_differ_by_path_and_seed() {
        let values = normal_values(1, "a", 100_001, 0.02);
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        let var = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64;
        // four standard errors of each estimate
        assert!(mean.abs() < 4.0 * 0.02 / 316.0, "{mean}");
        assert!((var.sqrt() / 0.02 - 1.0).abs() < 4.0 / 447.0, "{var}");
        assert_ne!(values[0], normal_values(1, "b", 1, 0.02)[0]);
        assert_ne!(values[0], normal_values(2, "a", 1, 0.02)[0]);
        assert_eq!(values[0], normal_values(1, "a", 1, 0.02)[0]);
    }
}
