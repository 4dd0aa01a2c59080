//! What a device needs from the machine, asked without opening it: CubeCL panics where a driver is
//! missing.

mod cuda;
mod fault;
mod library;
mod vulkan;

pub use cuda::{
    CudaDevice, CudaDriver, CudaParts, cuda_driver, cuda_headers, nccl_version, nvrtc_version,
};
pub use fault::Fault;
pub use vulkan::vulkan_loader;
