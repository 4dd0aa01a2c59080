//! The cache folder of CubeCL.

use std::path::{Path, PathBuf};

/// Returns the folder in which CubeCL keeps the choices of autotune and compiled kernels by default:
/// `target/environment` beside the outermost `Cargo.toml` above the current folder, or else `cubecl`
/// in the user's cache folder. A `burn.toml` or `cubecl.toml` can name another one.
pub(crate) fn cubecl_cache() -> PathBuf {
    let current = std::env::current_dir().unwrap_or_default();
    let outermost = current.ancestors().filter(|dir| dir.join("Cargo.toml").exists()).last();
    if let Some(project) = outermost {
        return project.join("target").join("environment");
    }
    let of = |variable| std::env::var_os(variable).map(PathBuf::from);
    let cache = of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("cubecl")
}

/// Returns the bytes of all files below `path`; 0 if there is no such folder.
pub(crate) fn size_of(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size_of(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |metadata| metadata.len()),
        _ => 0,
    });
    sizes.sum()
}
