//! Findings about the drivers, compilers, devices and disks of a machine.

use std::path::Path;

use block_transformer_bench::{number, size};
use block_transformer_device::probe::{
    CudaDriver, CudaParts, Fault, cuda_driver, cuda_headers, nccl_version, nvrtc_version,
    vulkan_loader,
};
use block_transformer_device::{DeviceName, free_disk, kernel_cache};

use crate::caches::size_of;
use crate::examine::{Examined, Wanted};
use crate::finding::{Finding, Presence, device_subject};

/// Free bytes of a disk below which a build or a run may fail.
const LITTLE_DISK: u64 = 10 << 30;
/// The version of CUDA that the driver must support.
const LEAST_CUDA: (u32, u32) = (12, 8);

/// Returns what the machine has of everything that the devices need. `device` is also measured.
/// `examine` uses a device, and returns a text if it cannot be used.
pub fn doctor(
    device: DeviceName,
    parts: &CudaParts,
    examine: &dyn Fn(DeviceName, Wanted) -> Result<Examined, String>,
) -> Vec<Finding> {
    let mut findings = cuda_findings(parts);
    let loader = vulkan_loader(&[]);
    findings.push(Finding::of("Vulkan loader", &loader, |(major, minor)| {
        format!("Vulkan {major}.{minor}")
    }));
    let mut devices = DeviceName::ALL.to_vec();
    if !devices.contains(&device) {
        devices.push(device);
    }
    for name in devices {
        findings.push(device_finding(name, &examine(name, Wanted::Types)));
    }
    let usable = crate::finding::is_usable(&findings, device);
    findings.push(if usable {
        peaks_finding(device, examine(device, Wanted::Peaks))
    } else {
        Finding::new(format!("peaks of {device}"), Presence::Unknown, "the device cannot be used")
    });
    findings.extend(disk_findings());
    findings
}

fn cuda_findings(parts: &CudaParts) -> Vec<Finding> {
    let driver = cuda_driver(&parts.driver);
    let dotted = |(major, minor): &(u32, u32)| format!("{major}.{minor}");
    let mut findings = vec![driver_finding(&driver)];
    for (index, gpu) in driver.iter().flat_map(|driver| driver.devices.iter().enumerate()) {
        let found = format!(
            "{}, compute capability {}, {}",
            gpu.name,
            dotted(&gpu.capability),
            size(gpu.memory as f64)
        );
        findings.push(Finding::new(format!("GPU {index}"), Presence::Ok, found));
    }
    findings.push(Finding::of("NVRTC", &nvrtc_version(&parts.nvrtc), dotted));
    let headers = cuda_headers(parts.cuda_path.as_deref());
    findings.push(Finding::of("CUDA headers", &headers, |path| path.display().to_string()));
    let libdevice = "not needed: this project compiles kernels with NVRTC";
    findings.push(Finding::new("libdevice", Presence::Ok, libdevice));
    let nccl = nccl_version(&parts.nccl);
    findings.push(Finding::of("NCCL (several GPUs)", &nccl, |(major, minor, patch)| {
        format!("{major}.{minor}.{patch}")
    }));
    findings
}

fn driver_finding(driver: &Result<CudaDriver, Fault>) -> Finding {
    let mut finding = Finding::of("NVIDIA driver", driver, |driver| {
        let (major, minor) = driver.version;
        format!("supports CUDA {major}.{minor}, {} GPUs", driver.devices.len())
    });
    if driver.as_ref().is_ok_and(|driver| driver.version < LEAST_CUDA) {
        finding.state = Presence::Missing;
        let (major, minor) = LEAST_CUDA;
        finding.remedy = Some(format!("install a driver that supports CUDA {major}.{minor}"));
    }
    finding
}

fn device_finding(name: DeviceName, examined: &Result<Examined, String>) -> Finding {
    let subject = device_subject(name);
    match examined {
        Ok(examined) if examined.two == 2.0 => {
            let types = |supported: bool| {
                let types = examined.types.iter().filter(|(_, has)| *has == supported);
                types.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
            };
            let (has, lacks) = (types(true), types(false));
            let lacks = if lacks.is_empty() { lacks } else { format!("; no {lacks}") };
            Finding::new(subject, Presence::Ok, format!("computes in {has}{lacks}"))
        }
        Ok(examined) => {
            let found = format!("computes 1 + 1 = {}", examined.two);
            let remedy = Some("reinstall its driver; a dry driver computes nothing".into());
            Finding { remedy, ..Finding::new(subject, Presence::Missing, found) }
        }
        Err(message) => {
            // the errors of devices end with their remedy
            let (found, remedy) = match message.split_once("; ") {
                Some((found, remedy)) => (found, Some(remedy.to_string())),
                None => (message.as_str(), None),
            };
            Finding { remedy, ..Finding::new(subject, Presence::Missing, found) }
        }
    }
}

fn peaks_finding(name: DeviceName, examined: Result<Examined, String>) -> Finding {
    let subject = format!("peaks of {name}");
    match examined.map(|examined| examined.peaks) {
        Ok(Some((flops, bandwidth))) => {
            let (flops, bytes) = (number(flops / 1e9), number(bandwidth / 1e9));
            let found = format!("f32 matmul {flops} GFLOP/s, memory {bytes} GB/s, measured");
            Finding::new(subject, Presence::Ok, found)
        }
        Ok(None) => Finding::new(subject, Presence::Unknown, "not measured"),
        Err(message) => Finding::new(subject, Presence::Unknown, message),
    }
}

fn disk_findings() -> Vec<Finding> {
    let cache = kernel_cache();
    let current = std::env::current_dir().unwrap_or_default();
    let mut findings = vec![
        disk_finding("disk of this folder", &current),
        disk_finding("disk of CubeCL's cache", &cache),
    ];
    let found = match size_of(&cache) {
        0 => format!("{}, empty", cache.display()),
        bytes => format!("{}, {}", cache.display(), size(bytes as f64)),
    };
    findings.push(Finding::new("CubeCL's cache", Presence::Ok, found));
    findings
}

fn disk_finding(subject: &str, path: &Path) -> Finding {
    match free_disk(path) {
        None => Finding::new(subject, Presence::Unknown, "this system does not report free space"),
        Some(bytes) => {
            let found = format!("{} free", size(bytes as f64));
            let finding = Finding::new(subject, Presence::Ok, found);
            if bytes >= LITTLE_DISK {
                return finding;
            }
            let remedy = Some(format!("free at least {}", size(LITTLE_DISK as f64)));
            Finding { state: Presence::Missing, remedy, ..finding }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_cuda() -> CudaParts {
        let names = || vec!["lib-that-is-missing.so".into()];
        let cuda_path = Some("/there/is/no/cuda".into());
        CudaParts { driver: names(), nvrtc: names(), nccl: names(), cuda_path }
    }

    fn find<'a>(findings: &'a [Finding], subject: &str) -> &'a Finding {
        findings.iter().find(|finding| finding.subject == subject).unwrap()
    }

    #[test]
    fn a_missing_part_has_a_remedy_and_a_device_that_computes_is_usable() {
        let examine = |name: DeviceName, wanted| match name {
            DeviceName::Flex => Ok(Examined {
                two: 2.0,
                types: vec![("f32".into(), true), ("f16".into(), false)],
                peaks: (wanted == Wanted::Peaks).then_some((1.5e12, 2e11)),
            }),
            DeviceName::Ndarray => Ok(Examined { two: 0.0, types: vec![], peaks: None }),
            _ => Err("it is not there; plug it in".into()),
        };
        let findings = doctor(DeviceName::Flex, &no_cuda(), &examine);
        for subject in ["NVIDIA driver", "NVRTC", "CUDA headers", "NCCL (several GPUs)"] {
            let finding = find(&findings, subject);
            assert_eq!(finding.state, Presence::Missing, "{finding:?}");
            assert!(finding.remedy.is_some(), "{finding:?}");
        }
        assert_eq!(find(&findings, "device flex").found, "computes in f32; no f16");
        assert!(find(&findings, "peaks of flex").found.contains("1500 GFLOP/s"));
        let cuda = find(&findings, "device cuda");
        assert_eq!((cuda.found.as_str(), cuda.state), ("it is not there", Presence::Missing));
        assert_eq!(cuda.remedy.as_deref(), Some("plug it in"));
        assert!(find(&findings, "device ndarray").found.contains("1 + 1 = 0"));
        let usable = |device| crate::finding::is_usable(&findings, device);
        assert!(usable(DeviceName::Flex));
        assert!(!usable(DeviceName::Ndarray) && !usable(DeviceName::Cuda(0)));
    }

    #[test]
    fn a_device_that_cannot_be_used_is_not_measured() {
        let examine = |_, wanted| {
            assert_eq!(wanted, Wanted::Types);
            Err("missing".to_string())
        };
        let findings = doctor(DeviceName::Cuda(3), &no_cuda(), &examine);
        assert_eq!(find(&findings, "peaks of cuda:3").state, Presence::Unknown);
        assert_eq!(find(&findings, "device cuda:3").state, Presence::Missing);
    }
}
