//! The check that a model fits into the memory of a device, before anything is created.

use anyhow::{Result, bail};
use block_transformer_device::DeviceName;
use block_transformer_zoo::FamilyConfig;
use bytesize::ByteSize;

/// Bytes per parameter in training: weight, gradient and two moments of the optimizer in f32.
pub(super) const TRAINING_BYTES: u64 = 16;
/// Bytes per parameter without gradients.
pub(super) const INFERENCE_BYTES: u64 = 4;

/// Checks that `params` parameters of `bytes` bytes each fit into the memory of `device`, if its size is
/// known. Activations come on top, so that a model that passes can still be too large. `origin` is the
/// flag or the file of the model.
pub(super) fn check(params: usize, bytes: u64, device: DeviceName, origin: &str) -> Result<()> {
    let needed = (params as u64).saturating_mul(bytes);
    let Some(memory) = device.memory().filter(|&memory| needed > memory) else { return Ok(()) };
    let what =
        if bytes == TRAINING_BYTES { "weights, gradients and optimizer state" } else { "weights" };
    bail!(
        "{origin}: the {what} of {params} parameters take {}, and the device {device} has {}; use a \
         smaller model",
        ByteSize(needed),
        ByteSize(memory)
    )
}

/// [`check`] for a training run, whose vocabulary is not known yet: without the token tables.
pub(super) fn check_layers<C: FamilyConfig>(
    model: &C,
    devices: &[DeviceName],
    origin: &str,
) -> Result<()> {
    let params = model.num_params_non_embedding();
    devices.iter().try_for_each(|&device| check(params, TRAINING_BYTES, device, origin))
}

/// [`check`] for a training run.
pub(super) fn check_training<C: FamilyConfig>(
    model: &C,
    devices: &[DeviceName],
    origin: &str,
) -> Result<()> {
    let params = model.num_params();
    devices.iter().try_for_each(|&device| check(params, TRAINING_BYTES, device, origin))
}
