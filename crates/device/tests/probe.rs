//! The parts of CUDA, present and missing. The driver is `tests/gpu/driver.c`, which computes
//! nothing; without a C compiler, the tests that need it say that they are skipped.

#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use block_transformer_device::probe::{
    CudaDevice, CudaParts, Fault, cuda_driver, cuda_headers, nccl_version, nvrtc_version,
    vulkan_loader,
};
use block_transformer_device::{DeviceError, DeviceName};
use tempfile::TempDir;

/// Compiles C code as the shared library `name`; `None` without a C compiler.
fn library(dir: &Path, name: &str, code: &Path) -> Option<PathBuf> {
    let path = dir.join(name);
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-shared", "-fPIC", "-w", "-o"]).arg(&path).arg(code);
    let Ok(output) = cc.output() else {
        eprintln!("skipped: there is no C compiler `cc`");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(path)
}

/// A folder, and in it the driver that computes nothing, NVRTC 12.8 as a stub, and headers.
fn parts() -> Option<(TempDir, CudaParts)> {
    let dir = tempfile::tempdir().unwrap();
    let code = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/gpu/driver.c");
    let driver = library(dir.path(), "libcuda-dry.so", &code)?;
    let stub = dir.path().join("nvrtc.c");
    let text = "int nvrtcVersion(int *major, int *minor) { *major = 12; *minor = 8; return 0; }\n\
                int ncclGetVersion(int *version) { *version = 22704; return 0; }\n";
    std::fs::write(&stub, text).unwrap();
    let nvrtc = library(dir.path(), "libnvrtc-stub.so", &stub)?;
    std::fs::create_dir(dir.path().join("include")).unwrap();
    std::fs::write(dir.path().join("include/cuda_fp16.h"), "").unwrap();
    let parts = CudaParts {
        driver: vec![driver.into()],
        nvrtc: vec![nvrtc.clone().into()],
        nccl: vec![nvrtc.into()],
        cuda_path: Some(dir.path().into()),
    };
    Some((dir, parts))
}

fn missing() -> Vec<OsString> {
    vec!["libcuda-that-is-missing.so.1".into()]
}

#[test]
fn a_missing_library_is_a_fault_with_its_name_and_a_remedy() {
    let fault = cuda_driver(&missing()).unwrap_err();
    assert!(fault.to_string().contains("libcuda-that-is-missing.so.1"), "{fault}");
    assert!(fault.remedy().contains("NVIDIA driver"));
    let fault = nvrtc_version(&["libnvrtc-that-is-missing.so".into()]).unwrap_err();
    assert!(fault.remedy().contains("nvidia-cuda-nvrtc-cu12"));
    let fault = nccl_version(&["libnccl-that-is-missing.so".into()]).unwrap_err();
    assert!(fault.remedy().contains("nvidia-nccl-cu12"));
    let fault = vulkan_loader(&["libvulkan-that-is-missing.so".into()]).unwrap_err();
    assert!(fault.remedy().contains("libvulkan1"));
    let error = DeviceError::Unusable { device: DeviceName::Cuda(1), fault };
    let text = error.to_string();
    assert!(text.contains("`cuda:1`") && text.contains("libvulkan1"), "{text}");
}

#[test]
fn a_library_that_is_no_driver_is_a_fault() {
    let Some((_dir, parts)) = parts() else { return };
    assert!(matches!(cuda_driver(&parts.nvrtc), Err(Fault::Library { .. })));
    assert!(matches!(nvrtc_version(&parts.driver), Err(Fault::Library { .. })));
}

#[test]
fn the_driver_reports_its_version_and_its_gpus() {
    let Some((_dir, parts)) = parts() else { return };
    let driver = cuda_driver(&parts.driver).unwrap();
    assert_eq!(driver.version, (12, 9));
    let name = "Dry H100 (computes nothing)".to_string();
    let gpu = CudaDevice { name, capability: (9, 0), memory: 80 << 30 };
    assert_eq!(driver.devices, [gpu]);
    assert_eq!(nvrtc_version(&parts.nvrtc), Ok((12, 8)));
    assert_eq!(nccl_version(&parts.nccl), Ok((2, 27, 4)));
}

#[test]
fn a_device_is_usable_if_every_part_is_there() {
    let Some((dir, parts)) = parts() else { return };
    assert_eq!(parts.check(0), Ok(()));
    assert_eq!(parts.check(9), Err(Fault::Index { index: 9, count: 1 }));
    let without = CudaParts { driver: missing(), ..parts.clone() };
    assert!(matches!(without.check(0), Err(Fault::Library { .. })));
    let without = CudaParts { nvrtc: missing(), ..parts.clone() };
    assert!(matches!(without.check(0), Err(Fault::Library { .. })));
    std::fs::remove_file(dir.path().join("include/cuda_fp16.h")).unwrap();
    assert_eq!(parts.check(0), Err(Fault::Headers(dir.path().join("include"))));
}

#[test]
fn headers_are_searched_only_where_the_variable_points() {
    let dir = tempfile::tempdir().unwrap();
    let include = dir.path().join("include");
    assert_eq!(cuda_headers(Some(dir.path())), Err(Fault::Headers(include.clone())));
    std::fs::create_dir(&include).unwrap();
    std::fs::write(include.join("cuda_fp16.h"), "").unwrap();
    assert_eq!(cuda_headers(Some(dir.path())), Ok(include));
}

#[test]
fn the_disk_of_a_folder_has_space_also_before_the_folder_exists() {
    let dir = tempfile::tempdir().unwrap();
    let space = |path: &Path| block_transformer_device::free_disk(path).unwrap();
    assert!(space(dir.path()) > 0);
    assert!(space(&dir.path().join("not/yet")) > 0);
}
