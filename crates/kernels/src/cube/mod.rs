//! The folder for kernels of the CubeCL backends (CUDA, ROCm, wgpu, CPU). It has no kernels yet: on
//! those devices every layer is composed from burn's operations.
//!
//! A kernel in this folder is a function with the same name and signature as in `lib.rs`. It
//! returns `None` where it does not apply. The function in `lib.rs` then tries the backends in
//! turn: `flex::linear(x, weight, bias).or_else(|| cube::linear(x, weight, bias))`.
//!
//! One implementation for `burn_cubecl::CubeBackend` serves all CubeCL devices. It is declared with
//! `#[backend_extension(Cube, Fusion, Autodiff)]`. Check the device of a tensor before calling it,
//! because the operation panics on a backend that is not in this list.
//!
//! The arguments need no transfer from the device to the host:
//! - [`RotaryAngles::table`](crate::RotaryAngles::table) stays on the device as long as the model
//!   does; only the positions of a call are uploaded, through [`Indices`](crate::Indices)
//! - [`CausalMask`](crate::CausalMask) gives its starts and its key mask as tensors; a kernel needs
//!   no mask of queries by keys
//! - [`TargetScores::Device`](crate::TargetScores::Device) is read once, after the last chunk
