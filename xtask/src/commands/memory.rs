//! The memory of training as a table, for `train` and `plan`.

use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

use anyhow::Result;
use block_transformer_bench::{size, table};
use block_transformer_cost::{
    Holding, Machine, OptimizerKind, Peaks, TrainingMemory, TrainingShape,
};
use block_transformer_device::DeviceName;
use block_transformer_training::{TrainConfig, TrainingRun};
use block_transformer_zoo::{FamilyConfig, Precision, Preset};
use burn::tensor::Device;

/// Prints what a run will hold on each device, the largest micro-batch that fits, and how the gradients of
/// several devices are summed.
pub(super) fn announce(run: &TrainingRun, config: &TrainConfig) {
    let (memory, shape) = (run.memory(), config.memory_shape());
    let sequences = format!("{} x {} tokens", shape.batch, shape.context);
    let head = ["micro-batch", "weights", "gradients", "optimizer", "activations", "logits", "sum"];
    let TrainingMemory { weights, gradients, optimizer, activations, logits } = memory;
    let bytes = [weights, gradients, optimizer, activations, logits, memory.total()];
    let row = std::iter::once(sequences).chain(bytes.map(size)).collect();
    say!("memory of each device at the moment when a step holds most, by formula:");
    say!("{}", table(&head, 1, [row]).trim_fmt());
    if let Some(bytes) = config.device_memory() {
        let largest = run.largest_batch(bytes).map_or("none".into(), |batch| batch.to_string());
        let of = if config.all_devices().len() > 1 { " for each replica" } else { "" };
        say!("largest micro-batch that fits into {}{of}: {largest}", size(bytes as f64));
    }
    let (copy, waits) = run.checkpoint_copy();
    let when =
        if waits { "; there is no room beside a step, so training waits for it" } else { "" };
    say!("a checkpoint is written from a copy of {}{when}", size(copy));
    if config.all_devices().len() > 1 {
        match run.no_collectives() {
            None => say!("gradients are summed from GPU to GPU by NCCL"),
            Some(reason) => say!("gradients are summed in the memory of the process: {reason}"),
        }
    }
}

/// The TFLOP/s that a device can have.
pub(super) const PEAKS: RangeInclusive<f64> = 1e-6..=1e9;

/// The peak of `--peak-tflops`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Peak {
    /// TFLOP/s of one device.
    Stated(f64),
    /// The speed of a matrix product, measured before the run.
    Measure,
}

impl FromStr for Peak {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "measure" {
            return Ok(Self::Measure);
        }
        let peak = text.parse().ok().filter(|peak| PEAKS.contains(peak));
        let (least, most) = (PEAKS.start(), PEAKS.end());
        peak.map(Self::Stated)
            .ok_or_else(|| format!("must be a number from {least} to {most}, or `measure`"))
    }
}

/// Returns the FLOP/s of all devices of `config` together: stated, measured on `device`, or those of
/// the data sheet of the GPU; `None` if they are not known.
pub(super) fn peak(
    config: &TrainConfig,
    given: Option<Peak>,
    device: &Device,
) -> Result<Option<f64>> {
    let names = config.all_devices();
    let name = names.first().copied().unwrap_or_default();
    let one = match given {
        Some(Peak::Stated(peak)) => Some(peak * 1e12),
        Some(Peak::Measure) => Some(Peaks::measure(name, device)?.flops),
        None => sheet(name, config.precision),
    };
    Ok(one.map(|one| one * names.len() as f64))
}

/// Returns the peak of a GPU by its data sheet. Products of f32 use TF32, whose peak is half of that of
/// bf16.
fn sheet(name: DeviceName, precision: Precision) -> Option<f64> {
    let gpu = name.cuda_device()?.name;
    let machine = match_sheet(&gpu)?;
    let bf16 = Machine::open(Path::new(machine)).ok()?.flops;
    Some(if precision == Precision::Bf16 { bf16 } else { bf16 / 2.0 })
}

/// The machine of the cost model that the driver calls `gpu`. Cards for PCIe are slower than their
/// sheets of SXM say, so they are not known.
fn match_sheet(gpu: &str) -> Option<&'static str> {
    let is_sxm = !["PCIe", "NVL", "MIG"].iter().any(|other| gpu.contains(other));
    [("H100", "h100"), ("A100", "a100")]
        .into_iter()
        .find_map(|(part, machine)| (is_sxm && gpu.contains(part)).then_some(machine))
}

/// Returns a table of the memory of training each preset on `machine`, one sequence per micro-batch,
/// and of the largest micro-batches.
pub(super) fn planned(presets: &[&Preset], machine: &Machine, processor: bool) -> String {
    let head = [
        "preset",
        "context",
        "weights",
        "gradients",
        "optimizer",
        "activ./sequence",
        "recomputed",
        "largest batch",
        "recomputed",
    ];
    let narrow = machine.precision.matrices().bytes() < Precision::F32.matrices().bytes();
    let precision = if narrow { Precision::Bf16 } else { Precision::F32 };
    let holding = if processor { Holding::Flex } else { Holding::Cube };
    let row = |preset: &&Preset| {
        let (model, context) = (&preset.model, preset.train.context);
        let shape = |batch, recompute| TrainingShape {
            batch,
            accumulate: 2,
            context,
            precision,
            recompute,
            holding,
            optimizer: OptimizerKind::Adamw,
        };
        let of = |recompute| TrainingMemory::new(model, shape(1, recompute));
        // what one more sequence adds
        let sequence = |recompute| {
            let total = |batch| TrainingMemory::new(model, shape(batch, recompute)).total();
            size(total(65) - total(64))
        };
        let largest = |recompute| {
            let most = TrainConfig::MAX_BATCH_TOKENS / context;
            let shape = shape(1, recompute);
            TrainingMemory::largest_batch(model, shape, holding.usable(machine.memory), most)
                .map_or("none".into(), |batch| batch.to_string())
        };
        let memory = of(false);
        vec![
            preset.name.clone(),
            context.to_string(),
            size(memory.weights),
            size(4.0 * model.num_params() as f64),
            size(memory.optimizer),
            sequence(false),
            sequence(true),
            largest(false),
            largest(true),
        ]
    };
    table(&head, 1, presets.iter().map(row)).trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_a_number_or_measured() {
        assert_eq!("989.4".parse(), Ok(Peak::Stated(989.4)));
        assert_eq!("measure".parse(), Ok(Peak::Measure));
        for text in ["0", "-1", "inf", "1e-300", "1e10", "nan", "fast"] {
            assert!(text.parse::<Peak>().unwrap_err().contains("measure"), "{text}");
        }
    }

    #[test]
    fn only_gpus_whose_sheet_is_known_have_a_peak() {
        assert_eq!(match_sheet("NVIDIA H100 80GB HBM3"), Some("h100"));
        assert_eq!(match_sheet("NVIDIA A100-SXM4-80GB"), Some("a100"));
        for other in ["NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA L4"] {
            assert_eq!(match_sheet(other), None);
        }
        assert_eq!(sheet(DeviceName::Flex, Precision::F32), None);
    }
}
