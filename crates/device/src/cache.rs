//! The cache of CubeCL devices on disk: the choices of autotune, and on CUDA the compiled kernels.

use std::path::PathBuf;

use crate::name::DeviceName;

/// Returns the folder of the cache, unless a `cubecl.toml` or `burn.toml` names another one: `cubecl` in
/// the user's cache folder.
pub fn kernel_cache() -> PathBuf {
    let of = |variable| std::env::var_os(variable).map(PathBuf::from);
    let cache = of("XDG_CACHE_HOME").or_else(|| of("LOCALAPPDATA"));
    let cache = cache.or_else(|| Some(of("HOME")?.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("cubecl")
}

/// Switches the cache on before `device` is first used. Without this, CubeCL compiles every kernel of
/// CUDA again in each process, and keeps the choices of autotune in the folder of the project that the
/// current folder belongs to.
///
/// A configuration file of CubeCL decides alone. The settings hold for all devices of the process; only
/// the first call has an effect.
#[cfg(any(feature = "cuda", feature = "wgpu", feature = "cubecl-cpu"))]
pub(crate) fn configure(device: DeviceName) {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, cache::CacheConfig};

    if matches!(device, DeviceName::Flex | DeviceName::Ndarray) {
        return;
    }
    let mut config = CubeClRuntimeConfig::from_current_dir();
    if format!("{config:?}") == format!("{:?}", CubeClRuntimeConfig::default()) {
        config.environment.path = CacheConfig::Directory(kernel_cache());
        config.compilation.cache = matches!(device, DeviceName::Cuda(_));
    }
    CubeClRuntimeConfig::try_set(config.override_from_env());
}

#[cfg(not(any(feature = "cuda", feature = "wgpu", feature = "cubecl-cpu")))]
pub(crate) fn configure(_: DeviceName) {}
