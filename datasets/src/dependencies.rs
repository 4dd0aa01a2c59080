//! The default corpus: what the project's own locked dependencies say.

use std::path::{Path, PathBuf};

use cargo_metadata::{CargoOpt, MetadataCommand};
use walkdir::WalkDir;
use zoo_text::DocumentSource;

use crate::DatasetError;

/// How much text is taken.
pub(crate) const MAX_BYTES: u64 = 12_000_000;

/// Packages it is taken from, by name or by name up to a `*`, in this order: prose-rich sources of
/// one kind, so that a small model finds something to learn.
const PACKAGES: [&str; 8] =
    ["burn-*", "tokenizers", "clap_builder", "serde*", "rayon*", "rand*", "regex*", "cubecl-*"];

/// Larger files are tables and generated code.
const MAX_FILE: u64 = 128 << 10;

/// Rust sources and Markdown of the chosen packages, one document a file, up to `max_bytes`.
pub(crate) fn source(max_bytes: u64) -> Result<DocumentSource, DatasetError> {
    let failed = |e: cargo_metadata::Error| DatasetError::Cargo(format!("cargo metadata: {e}"));
    let metadata = MetadataCommand::new()
        .manifest_path(manifest()?)
        .features(CargoOpt::AllFeatures)
        .other_options(["--locked".to_string(), "--offline".to_string()])
        .exec()
        .or_else(|_| {
            MetadataCommand::new().manifest_path(manifest()?.as_path()).exec().map_err(failed)
        })?;
    let mut packages: Vec<_> = metadata.packages.iter().filter(|p| p.source.is_some()).collect();
    packages.sort_by_key(|package| (package.name.to_string(), package.version.clone()));
    let mut files = Vec::new();
    let mut bytes = 0;
    for pattern in PACKAGES {
        for package in packages.iter().filter(|package| matches(pattern, package.name.as_str())) {
            let Some(root) = package.manifest_path.parent() else { continue };
            for (path, size) in text_files(root.as_std_path()) {
                if bytes + size <= max_bytes {
                    bytes += size;
                    files.push(path);
                }
            }
        }
    }
    if files.is_empty() {
        return Err(DatasetError::Cargo("no source of a dependency is on this machine".into()));
    }
    Ok(DocumentSource::from_files(files))
}

/// The workspace's manifest: cargo's word for it, else the nearest one upwards.
fn manifest() -> Result<PathBuf, DatasetError> {
    if let Some(dir) = std::env::var_os("CARGO_MANIFEST_DIR") {
        return Ok(Path::new(&dir).join("Cargo.toml"));
    }
    let here = std::env::current_dir()
        .map_err(|source| DatasetError::Io { path: PathBuf::from("."), source })?;
    let found = here.ancestors().map(|dir| dir.join("Cargo.toml")).find(|path| path.exists());
    found.ok_or_else(|| DatasetError::Cargo("run it inside the project's folder".into()))
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// Text files below `root` with their sizes, sorted.
fn text_files(root: &Path) -> Vec<(PathBuf, u64)> {
    let walk = WalkDir::new(root).sort_by_file_name().into_iter().filter_map(Result::ok);
    walk.filter(|entry| entry.file_type().is_file())
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "rs" || e == "md"))
        .filter_map(|entry| {
            let size = entry.metadata().ok()?.len();
            let text = size > 0
                && size <= MAX_FILE
                && std::fs::read(entry.path())
                    .is_ok_and(|b| std::str::from_utf8(&b).is_ok_and(|t| !t.trim().is_empty()));
            text.then(|| (entry.into_path(), size))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dependencies_of_this_build_are_a_corpus() {
        let source = source(300_000).unwrap();
        let bytes = source.bytes().unwrap();
        assert!((100_000..=300_000).contains(&bytes), "{bytes}");
        assert_eq!(source, super::source(300_000).unwrap());
    }
}
