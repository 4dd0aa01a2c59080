//! The NVIDIA driver, NVRTC, the CUDA headers and NCCL.

use std::ffi::{CStr, OsString};
use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::library::Loaded;

/// The names and folders in which the parts of CUDA are looked for.
#[derive(Clone, Debug)]
pub struct CudaParts {
    /// Names or paths of the driver library.
    pub driver: Vec<OsString>,
    /// Names or paths of NVRTC.
    pub nvrtc: Vec<OsString>,
    /// Names or paths of NCCL.
    pub nccl: Vec<OsString>,
    /// The folder of CUDA, if one is configured; no other folder is then searched.
    pub cuda_path: Option<PathBuf>,
}

impl CudaParts {
    /// Returns the names of the system's libraries, and the folder that CUDA_PATH names.
    pub fn of_system() -> Self {
        let names = |linux: [&str; 2], windows: &str| -> Vec<OsString> {
            if cfg!(windows) { vec![windows.into()] } else { linux.map(OsString::from).to_vec() }
        };
        Self {
            driver: names(["libcuda.so", "libcuda.so.1"], "nvcuda.dll"),
            nvrtc: names(["libnvrtc.so", "libnvrtc.so.12"], "nvrtc64_120_0.dll"),
            // the only name of NCCL 2 that burn knows
            nccl: vec![if cfg!(windows) { "nccl.dll" } else { "libnccl.so" }.into()],
            cuda_path: std::env::var_os("CUDA_PATH").map(PathBuf::from),
        }
    }

    /// Checks that the GPU with `index` exists, and that kernels can be compiled for it.
    ///
    /// # Errors
    /// The first part that is missing.
    pub fn check(&self, index: usize) -> Result<(), Fault> {
        let count = cuda_driver(&self.driver)?.devices.len();
        if index >= count {
            return Err(Fault::Index { index, count });
        }
        nvrtc_version(&self.nvrtc)?;
        cuda_headers(self.cuda_path.as_deref())?;
        Ok(())
    }
}

/// The NVIDIA driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaDriver {
    /// The newest version of CUDA that the driver supports, such as (12, 8).
    pub version: (u32, u32),
    /// The GPUs, by index.
    pub devices: Vec<CudaDevice>,
}

/// An NVIDIA GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaDevice {
    /// The name of the product.
    pub name: String,
    /// The compute capability, such as (9, 0).
    pub capability: (u32, u32),
    /// Bytes of memory.
    pub memory: u64,
}

/// Numbers of `CUdevice_attribute`: the compute capability's two parts.
const CAPABILITY: [i32; 2] = [75, 76];

/// Loads the first of `names` as the NVIDIA driver, and returns what it reports.
///
/// # Errors
/// When there is no driver, or it fails, for example because there is no GPU.
pub fn cuda_driver(names: &[OsString]) -> Result<CudaDriver, Fault> {
    let driver = Loaded::open(names)?;
    // SAFETY: the types are those of cuda.h, where CUresult and CUdevice are C's int, and every
    // function writes what its last pointer or length allows
    unsafe {
        let init: unsafe extern "C" fn(u32) -> i32 = driver.function("cuInit")?;
        driver.check("cuInit", init(0))?;
        let mut version = 0;
        let get: unsafe extern "C" fn(*mut i32) -> i32 = driver.function("cuDriverGetVersion")?;
        driver.check("cuDriverGetVersion", get(&mut version))?;
        let mut count = 0;
        let get: unsafe extern "C" fn(*mut i32) -> i32 = driver.function("cuDeviceGetCount")?;
        driver.check("cuDeviceGetCount", get(&mut count))?;
        let devices = (0..count).map(|index| device(&driver, index)).collect::<Result<_, _>>()?;
        Ok(CudaDriver { version: decimal(version), devices })
    }
}

/// # Safety
/// `driver` must be the NVIDIA driver, initialized.
unsafe fn device(driver: &Loaded, index: i32) -> Result<CudaDevice, Fault> {
    // SAFETY: as in `cuda_driver`
    unsafe {
        let get: unsafe extern "C" fn(*mut i32, i32) -> i32 = driver.function("cuDeviceGet")?;
        let mut device = 0;
        driver.check("cuDeviceGet", get(&mut device, index))?;
        let name: unsafe extern "C" fn(*mut u8, i32, i32) -> i32 =
            driver.function("cuDeviceGetName")?;
        let mut bytes = [0; 256];
        driver.check("cuDeviceGetName", name(bytes.as_mut_ptr(), 255, device))?;
        let name = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
        let attribute: unsafe extern "C" fn(*mut i32, i32, i32) -> i32 =
            driver.function("cuDeviceGetAttribute")?;
        let mut capability = [0; 2];
        for (part, number) in capability.iter_mut().zip(CAPABILITY) {
            driver.check("cuDeviceGetAttribute", attribute(part, number, device))?;
        }
        let total: unsafe extern "C" fn(*mut usize, i32) -> i32 =
            driver.function("cuDeviceTotalMem_v2")?;
        let mut memory = 0;
        driver.check("cuDeviceTotalMem", total(&mut memory, device))?;
        let [major, minor] = capability.map(i32::unsigned_abs);
        let name = name.to_string_lossy().into_owned();
        Ok(CudaDevice { name, capability: (major, minor), memory: memory as u64 })
    }
}

/// Splits a version that CUDA writes as 1000 * major + 10 * minor.
fn decimal(version: i32) -> (u32, u32) {
    let version = version.unsigned_abs();
    (version / 1000, version % 1000 / 10)
}

/// Loads the first of `names` as NVRTC, and returns its version.
///
/// # Errors
/// When there is no NVRTC.
pub fn nvrtc_version(names: &[OsString]) -> Result<(u32, u32), Fault> {
    let nvrtc = Loaded::open(names)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the type is that of nvrtc.h, where nvrtcResult is C's int
    unsafe {
        let get: unsafe extern "C" fn(*mut i32, *mut i32) -> i32 =
            nvrtc.function("nvrtcVersion")?;
        nvrtc.check("nvrtcVersion", get(&mut major, &mut minor))?;
    }
    Ok((major.unsigned_abs(), minor.unsigned_abs()))
}

/// Loads the first of `names` as NCCL, and returns its version: major, minor, patch.
///
/// # Errors
/// When there is no NCCL.
pub fn nccl_version(names: &[OsString]) -> Result<(u32, u32, u32), Fault> {
    let nccl = Loaded::open(names)?;
    let mut version = 0;
    // SAFETY: the type is that of nccl.h, where ncclResult_t is C's int
    unsafe {
        let get: unsafe extern "C" fn(*mut i32) -> i32 = nccl.function("ncclGetVersion")?;
        nccl.check("ncclGetVersion", get(&mut version))?;
    }
    // 10000 * major + 100 * minor + patch, since NCCL 2.9
    let version = version.unsigned_abs();
    Ok((version / 10_000, version / 100 % 100, version % 100))
}

/// Returns the `include` folder in which CubeCL looks for the CUDA headers: that of `cuda_path`, or
/// of the first folder of CUDA among /usr/local/cuda, /opt/cuda and /usr.
///
/// # Errors
/// When there is no such folder, or `cuda_fp16.h` is not in it.
pub fn cuda_headers(cuda_path: Option<&Path>) -> Result<PathBuf, Fault> {
    let usual = || {
        let installed = ["/usr/local/cuda", "/opt/cuda"].map(Path::new);
        let found = installed.into_iter().find(|path| path.exists());
        found.or(Path::new("/usr/bin/nvcc").exists().then_some(Path::new("/usr")))
    };
    let include = cuda_path.or_else(usual).ok_or(Fault::Cuda)?.join("include");
    if include.join("cuda_fp16.h").exists() { Ok(include) } else { Err(Fault::Headers(include)) }
}
