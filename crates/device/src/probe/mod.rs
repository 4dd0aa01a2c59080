//! Finds out whether a machine has what a device needs, without opening the device, because CubeCL
//! panics where a driver is missing.

mod cuda;
mod fault;
mod library;
mod vulkan;

pub use cuda::{
    CudaDevice, CudaDriver, CudaParts, cuda_driver, cuda_headers, nccl_version, nvrtc_version,
};
pub use fault::Fault;
pub use vulkan::vulkan_loader;
