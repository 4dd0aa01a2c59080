//! The speed of decoding and of training, beside published and predicted figures.

use std::path::Path;

use block_transformer_bench::{
    Batches, BenchReport, BenchRow, Candidate, DecodeBench, SequenceBench, StepKind, number,
};
use block_transformer_cost::{Lengths, Machine, Prediction, Workload, published};
use block_transformer_device::DeviceName;
use block_transformer_device::probe::{CudaParts, cuda_driver};
use block_transformer_zoo::{Precision, Preset, preset};

use super::table::table;
use crate::error::CheckError;
use crate::result::PartOutput;
use crate::settings::CheckSettings;

/// The share of a GPU's memory into which the largest batch must fit. The rest is for activations
/// that the formulas do not count on a GPU, and for the pools of CubeCL.
const SHARE: f64 = 0.6;
/// The machine of the published and of the predicted figures.
const MACHINE: &str = "h100";

fn presets(settings: &CheckSettings) -> Result<Vec<&'static Preset>, CheckError> {
    Ok(settings.presets.iter().map(|name| preset(name)).collect::<Result<_, _>>()?)
}

/// Returns the bytes of memory of a GPU.
fn memory(device: DeviceName) -> Result<u64, CheckError> {
    if let DeviceName::Cuda(index) = device {
        let driver = cuda_driver(&CudaParts::of_system().driver);
        let driver = driver
            .map_err(|fault| block_transformer_device::DeviceError::Unusable { device, fault })?;
        return Ok(driver.devices.get(index).map_or(0, |gpu| gpu.memory));
    }
    Ok(device.memory().unwrap_or(8 << 30))
}

pub(super) fn decode(
    settings: &CheckSettings,
    index: usize,
    progress: &mut dyn FnMut(&str),
) -> Result<PartOutput, CheckError> {
    let device = settings.device.open()?;
    let presets = presets(settings)?;
    let lengths: Lengths = settings.lengths[index].parse()?;
    let workload = Workload::Lengths(lengths);
    let batches = match settings.batch {
        Some(batch) => Batches::Sizes(vec![batch]),
        None => Batches::Memory((memory(settings.device)? as f64 * SHARE) as u64),
    };
    let bench = DecodeBench {
        candidates: presets.iter().map(|preset| Candidate::preset(preset)).collect(),
        workloads: vec![workload],
        batches,
        seconds: Some(settings.seconds),
        rounds: 1,
        precision: Precision::default(),
        graphs: true,
        device: settings.device,
    };
    let report = bench.run(&device, &mut |_, row, peaks| {
        progress(&format!(
            "{} x {}: {} tokens/s; {peaks}",
            row.model,
            row.batch,
            number(row.rate.median)
        ));
    })?;
    let h100 = Machine::open(Path::new(MACHINE))?;
    let rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .zip(&presets)
        .map(|(row, preset)| {
            let on_h100 = Prediction::new(&preset.model, &h100, workload, row.batch);
            let published = published(&row.model, lengths).map(|published| published.rate * 1e3);
            let measured = row.rate.median;
            let share = |rate: f64| format!("{:.0}%", 100.0 * measured / rate);
            vec![
                row.model.clone(),
                row.batch.to_string(),
                number(measured),
                number(row.predicted.median),
                share(row.predicted.median),
                number(on_h100.rate),
                published.map_or("-".into(), number),
                published.map_or("-".into(), share),
            ]
        })
        .collect();
    let head = [
        "preset",
        "batch",
        "tokens/s",
        "predicted here",
        "of it",
        "predicted H100, bf16",
        "published H100",
        "of it",
    ];
    let summary = format!("{} tokens/s: {}.", lengths, rates(&report));
    finish(summary, &report, table(&head, 1, &rows))
}

pub(super) fn train(settings: &CheckSettings) -> Result<PartOutput, CheckError> {
    let device = settings.device.open()?;
    let bench = SequenceBench {
        presets: presets(settings)?,
        kind: StepKind::Training,
        batch: settings.train_batch,
        context: settings.train_context,
        steps: settings.train_steps,
        device: settings.device,
    };
    let report = bench.run(&device)?;
    let h100 = Machine::open(Path::new(MACHINE))?;
    let rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .map(|row| {
            vec![
                row.model.clone(),
                format!("{} x {}", row.batch, settings.train_context),
                number(row.rate.median),
                number(row.token_flops / 1e6),
                format!("{:.0}%", 100.0 * row.share.median),
                number(h100.flops / row.token_flops),
                format!("{:.1}%", 100.0 * row.rate.median * row.token_flops / h100.flops),
            ]
        })
        .collect();
    let head = [
        "preset",
        "batch",
        "tokens/s",
        "MFLOP/token",
        "of the measured peak",
        "limit of an H100, bf16",
        "of it",
    ];
    let summary = format!("Training tokens/s: {}. No figures are published.", rates(&report));
    finish(summary, &report, table(&head, 1, &rows))
}

fn rates(report: &BenchReport) -> String {
    let rate = |row: &BenchRow| format!("{} {}", row.model, number(row.rate.median));
    report.rows.iter().map(rate).collect::<Vec<_>>().join(", ")
}

fn finish(summary: String, report: &BenchReport, table: String) -> Result<PartOutput, CheckError> {
    Ok(PartOutput {
        passed: report.rows.iter().all(|row| row.rate.median.is_finite() && row.rate.median > 0.0),
        summary,
        markdown: format!("{table}\n{}.", report.peaks_line()),
        data: serde_json::to_value(report)?,
    })
}
