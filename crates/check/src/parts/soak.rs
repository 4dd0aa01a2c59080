//! Memory during many training steps.

use burn::tensor::Device;
use serde_json::json;

use super::table::table;
use super::training;
use crate::error::CheckError;
use crate::result::PartOutput;
use crate::settings::CheckSettings;

/// The largest growth of memory after the warm-up, relative and in bytes.
const GROWTH: f64 = 0.05;
const SLACK: u64 = 32 << 20;

/// Memory at one moment, in bytes.
#[derive(Clone, Copy, Debug)]
struct MemoryUse {
    step: u64,
    /// Bytes of tensors in the pools of the device.
    in_use: Option<u64>,
    /// Bytes that the pools hold.
    reserved: Option<u64>,
    /// Resident memory of the process.
    process: Option<u64>,
}

impl MemoryUse {
    fn now(step: u64, device: &Device) -> Result<Self, CheckError> {
        device.sync()?;
        let pools = device.memory_pool_usage();
        Ok(Self {
            step,
            in_use: pools.as_ref().map(|pools| pools.bytes_in_use),
            reserved: pools.as_ref().map(|pools| pools.bytes_reserved),
            process: resident(),
        })
    }
}

/// Returns the resident memory of the process; `None` on systems other than Linux.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes << 10)
}

pub(super) fn run(
    settings: &CheckSettings,
    progress: &mut dyn FnMut(&str),
) -> Result<PartOutput, CheckError> {
    let device = settings.device.open()?;
    let steps = settings.soak_steps;
    let config = training::config(&settings.curve_preset, steps)?;
    let (warm, every) = ((steps / 5).max(1), (steps / 10).max(1));
    let mut memory = vec![MemoryUse::now(0, &device)?];
    let (mut failure, mut done) = (None, 0);
    training::train(&config, &device, |step, loss| {
        done = step;
        if step == warm || step % every == 0 || step == steps {
            match MemoryUse::now(step, &device) {
                Ok(now) => memory.push(now),
                Err(error) => failure = Some(error),
            }
            progress(&format!("step {step} of {steps}: loss {loss:.4}"));
        }
        failure.is_none() && loss.is_finite()
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let last = memory[memory.len() - 1];
    let warmed = memory.iter().find(|memory| memory.step == warm).copied().unwrap_or(last);
    // without pools, the process is all there is to see; with them, it belongs to the host
    let bytes = |memory: MemoryUse| memory.reserved.or(memory.process);
    let (before, after) = (bytes(warmed), bytes(last));
    let in_use_grows = grows(warmed.in_use, last.in_use);
    let passed = done == steps && !grows(before, after) && !in_use_grows;
    let mib = |bytes: Option<u64>| bytes.map_or("-".into(), |bytes| (bytes >> 20).to_string());
    let row = |memory: &MemoryUse| {
        let MemoryUse { step, in_use, reserved, process } = *memory;
        vec![step.to_string(), mib(in_use), mib(reserved), mib(process)]
    };
    let rows: Vec<Vec<String>> = memory.iter().map(row).collect();
    let of = if last.reserved.is_some() { "the device's pools" } else { "the process" };
    Ok(PartOutput {
        passed,
        summary: format!(
            "{done} of {steps} steps; {of} had {} MiB after step {warm}, and {} MiB at the end (limit: {:.0}% and {} MiB more).",
            mib(before),
            mib(after),
            100.0 * GROWTH,
            SLACK >> 20
        ),
        markdown: table(&["step", "in use MiB", "reserved MiB", "process MiB"], 0, &rows),
        data: json!({
            "steps": memory.iter().map(|memory| memory.step).collect::<Vec<_>>(),
            "in_use": memory.iter().map(|memory| memory.in_use).collect::<Vec<_>>(),
            "reserved": memory.iter().map(|memory| memory.reserved).collect::<Vec<_>>(),
            "process": memory.iter().map(|memory| memory.process).collect::<Vec<_>>(),
        }),
    })
}

/// Returns whether memory grew by more than the limit.
fn grows(before: Option<u64>, after: Option<u64>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return false };
    after as f64 > before as f64 * (1.0 + GROWTH) + SLACK as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_beyond_the_limit_is_noticed() {
        let gib = Some(1_u64 << 30);
        assert!(!grows(gib, gib.map(|bytes| bytes + (60 << 20))));
        assert!(grows(gib, gib.map(|bytes| bytes + (90 << 20))));
        assert!(!grows(None, gib));
    }
}
