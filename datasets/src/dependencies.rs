//! The default corpus: what the project's own locked dependencies say.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use block_transformer_text::DocumentSource;
use cargo_metadata::{Metadata, MetadataCommand};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::DatasetError;

/// How much text the recipe takes.
pub(crate) const MAX_BYTES: u64 = 12_000_000;

/// Packages it is taken from, by name or by name up to a `*`, in this order: prose-rich sources of
/// one kind, so that a small model finds something to learn.
const PACKAGES: [&str; 8] =
    ["burn-*", "tokenizers", "clap_builder", "serde*", "rayon*", "rand*", "regex*", "cubecl-*"];

/// Larger files are tables and generated code.
const MAX_FILE: u64 = 128 << 10;

/// Rust sources and Markdown of chosen packages that the project's `Cargo.lock` pins, one document
/// a file, no content twice, up to `max_bytes`: the same on every machine.
///
/// # Errors
/// When cargo is missing, or the packages' sources are and cannot be fetched.
pub fn dependencies(max_bytes: u64) -> Result<DocumentSource, DatasetError> {
    let metadata = metadata(&manifest()?)?;
    let mut packages: Vec<_> = metadata.packages.iter().filter(|p| p.source.is_some()).collect();
    packages.sort_by_key(|package| (package.name.to_string(), package.version.clone()));
    let mut chosen = Chosen { max_bytes, ..Chosen::default() };
    for pattern in PACKAGES {
        for package in packages.iter().filter(|package| matches(pattern, package.name.as_str())) {
            if let Some(root) = package.manifest_path.parent() {
                chosen.add_package(root.as_std_path())?;
            }
        }
    }
    if chosen.files.is_empty() {
        return Err(DatasetError::Cargo("no source of a dependency is on this machine".into()));
    }
    Ok(DocumentSource::from_files(chosen.files))
}

/// Default features of all platforms, so that it does not depend on what this machine builds. Never
/// changes `Cargo.lock`; asks the network only when sources are missing.
fn metadata(manifest: &Path) -> Result<Metadata, DatasetError> {
    let run = |options: &[&str]| {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        MetadataCommand::new().manifest_path(manifest).other_options(options).exec()
    };
    run(&["--locked", "--offline"]).or_else(|_| run(&["--locked"])).map_err(|e| {
        let manifest = manifest.display();
        let e = e.to_string();
        DatasetError::Cargo(format!(
            "`cargo metadata --locked` of {manifest} failed ({}); run `cargo fetch --locked` there",
            e.trim()
        ))
    })
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

/// Files taken so far.
#[derive(Default)]
struct Chosen {
    files: Vec<PathBuf>,
    bytes: u64,
    max_bytes: u64,
    seen: HashSet<[u8; 32]>,
}

impl Chosen {
    /// Text files of the package at `root`, sorted by path, as far as they fit.
    fn add_package(&mut self, root: &Path) -> Result<(), DatasetError> {
        for entry in WalkDir::new(root).sort_by_file_name() {
            let entry = entry.map_err(|e| DatasetError::Cargo(e.to_string()))?;
            let text = entry.path().extension().is_some_and(|e| e == "rs" || e == "md");
            let size = entry.metadata().map_or(0, |meta| meta.len());
            let fits = size > 0 && size <= MAX_FILE && self.bytes + size <= self.max_bytes;
            if text && fits && entry.file_type().is_file() {
                self.add(entry.into_path(), size)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf, size: u64) -> Result<(), DatasetError> {
        let bytes = std::fs::read(&path)
            .map_err(|source| DatasetError::Io { path: path.clone(), source })?;
        let is_text = std::str::from_utf8(&bytes).is_ok_and(|text| !text.trim().is_empty());
        if is_text && self.seen.insert(Sha256::digest(&bytes).into()) {
            self.bytes += size;
            self.files.push(path);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dependencies_of_this_build_are_a_corpus() {
        let source = dependencies(300_000).unwrap();
        let bytes = source.bytes().unwrap();
        assert!((100_000..=300_000).contains(&bytes), "{bytes}");
        assert_eq!(source, dependencies(300_000).unwrap());
    }

    #[test]
    fn files_are_taken_once_sorted_and_as_far_as_they_fit() {
        let dir = tempfile::tempdir().unwrap();
        let files: [(&str, &[u8]); 7] = [
            ("b.rs", b"fn b() {}"),
            ("a.md", b"# a"),
            ("c.rs", b"fn b() {}"),
            ("d.rs", b"\xFF\xFE"),
            ("e.txt", b"no"),
            ("f.rs", b"  \n"),
            ("g.rs", b"fn g_is_too_long() {}"),
        ];
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let mut chosen = Chosen { max_bytes: 20, ..Chosen::default() };
        chosen.add_package(dir.path()).unwrap();
        assert_eq!(chosen.files, [dir.path().join("a.md"), dir.path().join("b.rs")]);
        assert_eq!(chosen.bytes, 12);
    }

    #[test]
    fn a_failing_cargo_names_the_manifest_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let error = metadata(&dir.path().join("Cargo.toml")).unwrap_err().to_string();
        assert!(error.contains("Cargo.toml") && error.contains("cargo fetch --locked"), "{error}");
    }

    #[test]
    fn patterns_match_whole_names_or_beginnings() {
        assert!(matches("burn-*", "burn-nn") && matches("tokenizers", "tokenizers"));
        assert!(!matches("burn-*", "burn") && !matches("rand", "rand_core"));
    }
}
