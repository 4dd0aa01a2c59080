//! Names of devices.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::memory::machine_memory;
use crate::probe::{CudaDevice, CudaParts, Fault, cuda_driver};

/// A device of one of burn's backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// The processor, with burn-flex and this project's kernels for burn-flex. This is the fastest
    /// of the devices that compute on the processor.
    #[default]
    Flex,
    /// The processor, with burn-ndarray, which burn deprecates.
    Ndarray,
    /// An NVIDIA GPU, by its index.
    Cuda(usize),
    /// The default GPU adapter of the system.
    Wgpu,
    /// The adapter that computes on the processor, such as SwiftShader or lavapipe.
    WgpuCpu,
    /// The processor, with CubeCL. It is far slower than [`Flex`](Self::Flex), and serves to test the
    /// kernels of GPUs.
    CubeclCpu,
}

/// A device that cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no device of that name.
    #[error("`{0}` is not a device; the devices are {known}", known = DeviceName::ALL.map(DeviceName::name).join(", "))]
    Unknown(String),
    /// The backend of the device was not built in.
    #[error("the device `{0}` was not built in; build with the feature `{feature}`", feature = .0.feature())]
    NotBuilt(DeviceName),
    /// The machine lacks something that the device needs.
    #[error("the device `{device}` cannot be used: {fault}; {remedy}", remedy = .fault.remedy())]
    Unusable {
        /// The device.
        device: DeviceName,
        /// The thing that is missing.
        fault: Fault,
    },
}

impl DeviceName {
    /// The devices, built in or not; of several GPUs the first.
    pub const ALL: [Self; 6] =
        [Self::Flex, Self::Ndarray, Self::Cuda(0), Self::Wgpu, Self::WgpuCpu, Self::CubeclCpu];

    /// Returns the name, the feature and the description.
    const fn words(self) -> [&'static str; 3] {
        match self {
            Self::Flex => ["flex", "flex", "the processor, with burn-flex (fastest)"],
            Self::Ndarray => {
                ["ndarray", "ndarray", "the processor, with burn-ndarray (deprecated by burn)"]
            }
            Self::Cuda(_) => ["cuda", "cuda", "the first NVIDIA GPU; cuda:1 is the second"],
            Self::Wgpu => ["wgpu", "wgpu", "the default GPU adapter of the system"],
            Self::WgpuCpu => ["wgpu:cpu", "wgpu", "an adapter that computes on the processor"],
            Self::CubeclCpu => {
                ["cubecl-cpu", "cubecl-cpu", "the processor, with CubeCL, to test GPU kernels"]
            }
        }
    }

    /// Returns the name that configurations use and [`FromStr`] parses, without the index of a GPU.
    pub const fn name(self) -> &'static str {
        self.words()[0]
    }

    /// Returns the feature that builds the backend in.
    pub const fn feature(self) -> &'static str {
        self.words()[1]
    }

    /// Describes the device in a few words.
    pub const fn description(self) -> &'static str {
        self.words()[2]
    }

    /// Returns whether the device is the processor, which computes in the memory of the machine.
    pub const fn is_processor(self) -> bool {
        !matches!(self, Self::Cuda(_) | Self::Wgpu)
    }

    /// Returns whether the opened `device` of this name multiplies matrices of bf16. CubeCL's products in bf16
    /// need more shared memory than its runtime for the processor has.
    pub fn multiplies_bf16(self, device: &Device) -> bool {
        self != Self::CubeclCpu && device.supports_dtype(DType::BF16)
    }

    /// Returns whether this build measures the variants of an operation on the device and keeps the
    /// fastest. Variants differ in rounding, and another run can choose other ones.
    pub const fn measures_kernels(self) -> bool {
        cfg!(feature = "autotune") && !matches!(self, Self::Flex | Self::Ndarray)
    }

    /// Returns the bytes of memory of the device; `None` where the system or the driver does not
    /// report it.
    pub fn memory(self) -> Option<u64> {
        match self {
            Self::Cuda(_) => self.cuda_device().map(|gpu| gpu.memory),
            Self::Wgpu => None,
            _ => machine_memory(),
        }
    }

    /// Returns what the driver reports about an NVIDIA GPU; `None` for another device, and without a
    /// driver.
    pub fn cuda_device(self) -> Option<CudaDevice> {
        let Self::Cuda(index) = self else { return None };
        let driver = cuda_driver(&CudaParts::of_system().driver).ok()?;
        driver.devices.into_iter().nth(index)
    }

    /// Opens the device.
    ///
    /// # Errors
    /// [`DeviceError::NotBuilt`] when the backend was not built in, [`DeviceError::Unusable`] when
    /// the machine has no such device or no driver for it.
    pub fn open(self) -> Result<Device, DeviceError> {
        crate::cache::configure(self);
        let opened = self.opened()?;
        self.check_machine(&opened)
            .map_err(|fault| DeviceError::Unusable { device: self, fault })?;
        Ok(opened)
    }

    /// Checks what CubeCL needs when it first uses the device; it would panic then.
    #[allow(unused_variables, reason = "used where a feature is on")]
    fn check_machine(self, device: &Device) -> Result<(), Fault> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => crate::probe::CudaParts::of_system().check(index),
            #[cfg(feature = "wgpu")]
            Self::Wgpu | Self::WgpuCpu => {
                let adapters = Device::enumerate(burn::tensor::DeviceType::Wgpu);
                let found = match self {
                    Self::Wgpu => !adapters.is_empty(),
                    _ => adapters.iter().any(|adapter| adapter == device),
                };
                let processor = self == Self::WgpuCpu;
                if found { Ok(()) } else { Err(Fault::Adapter { processor }) }
            }
            _ => Ok(()),
        }
    }

    /// Returns the device; a GPU is not used yet.
    fn opened(self) -> Result<Device, DeviceError> {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "ndarray")]
            #[expect(deprecated, reason = "supported for as long as burn has it")]
            Self::Ndarray => Ok(Device::ndarray()),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => Ok(Device::cuda(index)),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "wgpu")]
            Self::WgpuCpu => Ok(Device::wgpu(burn::tensor::DeviceKind::Cpu)),
            #[cfg(feature = "cubecl-cpu")]
            Self::CubeclCpu => Ok(Device::cpu()),
            #[allow(unreachable_patterns, reason = "reachable when a feature is off")]
            device => Err(DeviceError::NotBuilt(device)),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cuda(index) if *index > 0 => write!(f, "cuda:{index}"),
            device => f.write_str(device.name()),
        }
    }
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        if let Some(index) = name.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
            return Ok(Self::Cuda(index));
        }
        if name == "cpu" {
            return Ok(Self::Flex);
        }
        let device = Self::ALL.into_iter().find(|device| device.name() == name);
        device.ok_or_else(|| DeviceError::Unknown(name.into()))
    }
}

impl TryFrom<String> for DeviceName {
    type Error = DeviceError;

    fn try_from(name: String) -> Result<Self, DeviceError> {
        name.parse()
    }
}

impl From<DeviceName> for String {
    fn from(device: DeviceName) -> Self {
        device.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_one_name_everywhere() {
        for device in DeviceName::ALL {
            assert_eq!(device.to_string().parse(), Ok(device));
            let json = serde_json::json!(device.name());
            assert_eq!(serde_json::to_value(device).unwrap(), json);
            assert_eq!(serde_json::from_value::<DeviceName>(json).unwrap(), device);
        }
        assert_eq!("cuda:3".parse(), Ok(DeviceName::Cuda(3)));
        assert_eq!(DeviceName::Cuda(3).to_string(), "cuda:3");
        assert_eq!("cpu".parse(), Ok(DeviceName::Flex));
        let error = "gpu".parse::<DeviceName>().unwrap_err().to_string();
        assert!(error.contains("`gpu`") && error.contains("flex, ndarray, cuda"), "{error}");
    }

    #[test]
    fn a_backend_that_is_not_built_in_is_an_error_that_names_its_feature() {
        for device in DeviceName::ALL {
            if let Err(error @ DeviceError::NotBuilt(_)) = device.open() {
                assert_eq!(error, DeviceError::NotBuilt(device));
                assert!(error.to_string().contains(&format!("feature `{}`", device.feature())));
            }
        }
    }

    #[test]
    fn processors_without_cubecl_never_measure_kernels() {
        assert!(!DeviceName::Flex.measures_kernels() && !DeviceName::Ndarray.measures_kernels());
        assert_eq!(DeviceName::Cuda(1).measures_kernels(), cfg!(feature = "autotune"));
    }

    #[test]
    fn the_memory_of_a_processor_is_the_memory_of_the_machine() {
        assert!(DeviceName::Flex.memory().is_some_and(|bytes| bytes > 1 << 28));
        assert_eq!(DeviceName::Wgpu.memory(), None);
        // there is no machine with so many GPUs
        assert_eq!(DeviceName::Cuda(1 << 20).memory(), None);
    }
}
