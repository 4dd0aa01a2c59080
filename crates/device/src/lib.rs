//! Devices by name, what they need from the machine, the instruction set of the processor, and the memory of
//! the process and the machine.
//!
//! The features of this crate choose which backends of burn are built in: `flex`, `ndarray`,
//! `cuda`, `wgpu` and `cubecl-cpu`. No feature is on by default.

mod cache;
mod disk;
mod memory;
mod name;
pub mod probe;

pub use block_transformer_layers::{InstructionSet, InvalidInstructionSet, instruction_set};
pub use cache::kernel_cache;
pub use disk::free_disk;
pub use memory::{keep_freed_memory, machine_memory, process_memory};
pub use name::{DeviceError, DeviceName};
