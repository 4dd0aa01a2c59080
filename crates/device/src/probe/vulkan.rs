//! The Vulkan loader.

use std::ffi::OsString;

use super::fault::Fault;
use super::library::Loaded;

/// Loads the first of `names` as the Vulkan loader, and returns its version of Vulkan, such as
/// (1, 3). With no names, those of the system are used.
///
/// # Errors
/// When there is no loader.
pub fn vulkan_loader(names: &[OsString]) -> Result<(u32, u32), Fault> {
    let own: &[OsString] =
        &[if cfg!(windows) { "vulkan-1.dll" } else { "libvulkan.so.1" }].map(OsString::from);
    let loader = Loaded::open(if names.is_empty() { own } else { names })?;
    // SAFETY: the type is that of the Vulkan specification
    let version: unsafe extern "system" fn(*mut u32) -> i32 =
        unsafe { loader.function("vkEnumerateInstanceVersion") }?;
    let mut packed = 0;
    // SAFETY: the function writes one number
    loader.check("vkEnumerateInstanceVersion", unsafe { version(&mut packed) })?;
    Ok(((packed >> 22) & 0x7f, (packed >> 12) & 0x3ff))
}
