//! The memory of a run: what the formula predicts, what the device reports, and the error when there is
//! too little.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use block_transformer_cost::{TrainingMemory, TrainingShape};
use block_transformer_device::{DeviceName, process_memory};
use block_transformer_zoo::{FamilyConfig, ModelConfig};
use burn::tensor::Device;

use crate::config::TrainConfig;
use crate::error::TrainError;

/// The share of the present memory from which a smaller micro-batch is computed after a device was out
/// of memory and its size is not known.
const SMALLER: f64 = 0.9;
/// The share of the memory of a device that a suggested micro-batch takes: other processes need some.
const ROOM: f64 = 0.9;

impl TrainConfig {
    /// The settings that the memory of a step on one of the devices depends on.
    pub fn memory_shape(&self) -> TrainingShape {
        let devices = self.all_devices();
        let (count, batch, accumulate) = (self.replicas(), self.batch, self.accumulate);
        // as the steps are shared: whole micro-batches, or parts of each
        let (batch, accumulate) = if accumulate.is_multiple_of(count) {
            (batch, accumulate / count)
        } else {
            (batch.div_ceil(count), accumulate)
        };
        let (context, precision, recompute) = (self.context, self.precision, self.recompute);
        let holding = devices.first().copied().unwrap_or_default().into();
        let optimizer = self.optimizer;
        TrainingShape { batch, accumulate, context, precision, recompute, holding, optimizer }
    }

    /// Bytes of memory for each replica on the device that has least; `None` where one is not known.
    /// Devices that are given twice share their memory.
    pub fn device_memory(&self) -> Option<u64> {
        let devices = self.all_devices();
        let shared = |device: &DeviceName| {
            let same = |other: &&DeviceName| {
                *other == device || other.is_processor() && device.is_processor()
            };
            Some(device.memory()? / devices.iter().filter(same).count() as u64)
        };
        devices.iter().map(shared).collect::<Option<Vec<u64>>>()?.into_iter().min()
    }

    /// Checks that a run of `model` fits into the memory of each device, where its size is known: weights and
    /// moments; on a processor also the copy that a checkpoint is written from, and a step. The vocabulary of
    /// a model is known only after the corpus is prepared; before, one with a small vocabulary can be checked.
    ///
    /// # Errors
    /// [`TrainError::TooLarge`] when it does not fit.
    pub fn check_memory(&self, model: &ModelConfig) -> Result<(), TrainError> {
        let Some(available) = self.device_memory() else { return Ok(()) };
        let (shape, bytes) = (self.memory_shape(), available as f64);
        let error = |needed: f64, largest| TrainError::TooLarge {
            device: self.all_devices().first().copied().unwrap_or_default(),
            available,
            params: model.num_params(),
            needed: needed as u64,
            batch: self.batch,
            largest,
        };
        // first, because it bounds the size of the model: the formula of a step goes through all layers
        let kept = TrainingMemory::state(model, self.optimizer) + self.copy(model);
        if kept > bytes {
            return Err(error(kept, None));
        }
        // a GPU without memory is an error of the step, a processor without memory ends the process
        let processor = self.all_devices().iter().any(|device| device.is_processor());
        let step = |batch| TrainingMemory::new(model, TrainingShape { batch, ..shape }).total();
        if !processor || step(shape.batch) <= bytes {
            return Ok(());
        }
        let largest = |bytes| TrainingMemory::largest_batch(model, shape, bytes, shape.batch);
        let room = shape.holding.usable(bytes).min(ROOM * bytes);
        let largest = largest(room).or_else(|| largest(bytes));
        Err(match largest {
            None => error(step(1), None),
            largest => error(step(shape.batch), largest.map(|batch| self.all_replicas(batch))),
        })
    }

    /// Whether a step of `model` does not fit into the memory beside the copy that a checkpoint is written from.
    pub(crate) fn waits_for_checkpoints(&self, model: &ModelConfig) -> bool {
        let (step, copy) = (|| TrainingMemory::new(model, self.memory_shape()), self.copy(model));
        let memory = self.device_memory().filter(|_| copy > 0.0);
        memory.is_some_and(|bytes| step().total() + copy > bytes as f64)
    }

    /// The share of each replica in the copy that a checkpoint is written from; 0 on a device with a memory of
    /// its own.
    fn copy(&self, model: &ModelConfig) -> f64 {
        let devices = self.all_devices();
        let processors = devices.iter().filter(|device| device.is_processor()).count();
        let state = || TrainingMemory::state(model, self.optimizer);
        if processors == 0 { 0.0 } else { state() / processors as f64 }
    }

    /// The sequences of a micro-batch of which each device computes `per_device`.
    fn all_replicas(&self, per_device: usize) -> usize {
        let shape = self.memory_shape();
        if shape.batch == self.batch { per_device } else { per_device * self.batch / shape.batch }
    }

    /// The largest micro-batch below the present one with which the formula predicts that `model` fits;
    /// `None` if not even one sequence fits. `memory` is that of the device, if it is known.
    pub(crate) fn smaller_batch(&self, model: &ModelConfig, memory: Option<u64>) -> Option<usize> {
        let shape = self.memory_shape();
        // the present micro-batch did not fit, whatever the formula says
        let present = SMALLER * TrainingMemory::new(model, shape).total();
        let usable = memory.map(|memory| shape.holding.usable(memory as f64));
        let bytes = usable.map_or(present, |usable| present.min(usable));
        let per_device = TrainingMemory::largest_batch(model, shape, bytes, shape.batch - 1)?;
        Some(self.all_replicas(per_device))
    }
}

/// Bytes that `device` takes from its memory: those of its pools, or on flex and ndarray the memory of
/// the process. `None` where they are not known.
pub(crate) fn device_memory(name: DeviceName, device: &Device) -> Option<u64> {
    match name {
        DeviceName::Flex | DeviceName::Ndarray => process_memory(),
        _ => device.memory_pool_usage().map(|pools| pools.bytes_reserved),
    }
}

/// A device has no memory left for a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory;

/// Runs `compute`, and catches the panic with which burn reports that a device is out of memory. Other
/// panics go on.
///
/// CubeCL knows of the failure when it queues an allocation or when results are read, and burn's
/// operations cannot return errors, so there is no `Result` to check. A processor without memory ends
/// the process.
pub(crate) fn catch<T>(compute: impl FnOnce() -> T) -> Result<T, OutOfMemory> {
    catch_unwind(AssertUnwindSafe(compute))
        .map_err(|panic| if is_out_of_memory(&*panic) { OutOfMemory } else { resume_unwind(panic) })
}

/// Returns whether `panic`, the payload of a panic, reports that a device is out of memory. A run turns such a
/// panic into an error, so that a panic hook need not print it.
pub fn is_out_of_memory(panic: &(dyn Any + Send)) -> bool {
    /// Parts of the messages of CubeCL, of CUDA and of wgpu.
    const MESSAGES: [&str; 6] = [
        "out of device memory",
        "out-of-memory",
        "out of memory",
        "out_of_memory",
        "can't allocate buffer of size",
        "not enough memory",
    ];
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    let text = text.to_lowercase();
    MESSAGES.iter().any(|message| text.contains(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_panics_of_a_full_device_are_caught_and_no_others() {
        for message in [
            "called `Result::unwrap()` on an `Err` value: Io(out of device memory allocating 4096 bytes",
            "An out-of-memory error happened during launch\nCaused by:\n  pool",
            "can't allocate buffer of size: 99",
            "CUDA_ERROR_OUT_OF_MEMORY",
        ] {
            assert_eq!(catch(|| panic!("{message}")), Err::<(), _>(OutOfMemory), "{message}");
        }
        assert_eq!(catch(|| 3), Ok(3));
        let other = catch_unwind(|| catch(|| panic!("index out of bounds")));
        assert!(other.is_err());
    }

    #[test]
    fn a_smaller_batch_fits_and_is_as_large_as_the_formula_allows() {
        let config = TrainConfig { batch: 64, ..TrainConfig::from_preset("small-block").unwrap() };
        let model = config.model.clone().with_vocab_size(2048);
        let total = |batch| {
            let shape = TrainingShape { batch, ..config.memory_shape() };
            TrainingMemory::new(&model, shape).total()
        };
        let found = config.smaller_batch(&model, Some(total(20) as u64)).unwrap();
        assert_eq!(found, 20);
        // the size is unknown: what did not fit is the limit
        let found = config.smaller_batch(&model, None).unwrap();
        assert!(
            found < 64 && total(found) <= 0.9 * total(64) && total(found + 1) > 0.9 * total(64)
        );
        assert_eq!(config.smaller_batch(&model, Some(1 << 20)), None);
        let one = TrainConfig { batch: 1, ..config };
        assert_eq!(one.smaller_batch(&model, None), None);
    }

    #[test]
    fn a_run_that_does_not_fit_is_refused_with_the_largest_batch_that_does() {
        let Some(memory) = DeviceName::Flex.memory() else { return };
        let config = TrainConfig::from_preset("small-block").unwrap();
        let model = config.model.clone().with_vocab_size(2048);
        config.check_memory(&model).unwrap();
        assert!(!config.waits_for_checkpoints(&model));
        let many = TrainConfig { batch: 1 << 24, ..config.clone() };
        let error = many.check_memory(&model).unwrap_err();
        let TrainError::TooLarge { largest: Some(batch), needed, available, .. } = error else {
            panic!("{error}")
        };
        assert!(needed > memory && available == memory);
        TrainConfig { batch, ..config.clone() }.check_memory(&model).unwrap();
        // without any room, there is none for the copy of a checkpoint beside a step
        let shape = config.memory_shape();
        let full = TrainingMemory::largest_batch(&model, shape, memory as f64, 1 << 24).unwrap();
        let full = TrainConfig { batch: full, ..config.clone() };
        full.check_memory(&model).unwrap();
        assert!(full.waits_for_checkpoints(&model));
        let total = |batch| {
            let shape = TrainingShape { batch, ..shape };
            TrainingMemory::new(&model, shape).total()
        };
        let most = ROOM * memory as f64;
        assert!(total(batch) <= most && total(batch + 1) > most);
        // weights and moments fit, but not with a copy
        let width = config.model.stacks().context.width;
        let ids = memory as usize / 16 / (2 * width);
        let wide = config.model.with_vocab_size(ids);
        assert!(TrainingMemory::state(&wide, config.optimizer) < memory as f64);
        let error = TrainConfig { batch: 1, ..many }.check_memory(&wide).unwrap_err();
        assert!(matches!(error, TrainError::TooLarge { largest: None, .. }), "{error}");
        assert!(error.to_string().contains("smaller model"), "{error}");
    }

    #[test]
    fn devices_share_a_step_and_the_memory_of_one_machine() {
        let devices = vec![DeviceName::Flex; 2];
        let config =
            TrainConfig { batch: 3, devices, ..TrainConfig::from_preset("debug-block").unwrap() };
        let shape = config.memory_shape();
        assert_eq!((shape.batch, shape.accumulate), (2, 1));
        let shape = TrainConfig { accumulate: 4, ..config.clone() }.memory_shape();
        assert_eq!((shape.batch, shape.accumulate), (3, 2));
        let alone = TrainConfig { devices: Vec::new(), ..config.clone() };
        assert_eq!(config.device_memory().unwrap(), alone.device_memory().unwrap() / 2);
    }
}
