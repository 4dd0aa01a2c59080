//! The default corpus: sources and documentation of this project's locked dependencies.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use block_transformer_files::FileError;
use cargo_metadata::{Metadata, MetadataCommand};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::error::DatasetError;
use crate::source::DocumentSource;

/// The size limit of the recipe in bytes.
pub(crate) const MAX_BYTES: u64 = 12_000_000;

/// Names of the packages, in the order of reading. `*` matches any end of a name. Their sources are
/// similar to each other and rich in prose, so that a small model can learn from them.
const PACKAGES: [&str; 8] =
    ["burn-*", "tokenizers", "clap_builder", "serde*", "rayon*", "rand*", "regex*", "cubecl-*"];

/// The size limit of a file in bytes; larger files are tables and generated code.
const MAX_FILE: u64 = 128 << 10;

/// Returns whether the current package or folder belongs to this project's workspace. There, the
/// recipe `dependencies` is the default corpus of the commands.
pub fn inside_project() -> bool {
    let members = |manifest| {
        let mut command = MetadataCommand::new();
        command.manifest_path(manifest).no_deps().other_options(vec!["--offline".into()]).exec()
    };
    manifest().ok().and_then(|manifest| members(manifest).ok()).is_some_and(|metadata| {
        metadata.packages.iter().any(|package| package.name.as_str() == env!("CARGO_PKG_NAME"))
    })
}

/// Returns Rust sources and Markdown files of selected packages in the `Cargo.lock` of the current
/// workspace: one document per file, without duplicates, up to `max_bytes` in total. They are the
/// same on every machine.
///
/// # Errors
/// If there is no workspace, or cargo is missing or cannot fetch the packages.
pub(crate) fn dependencies(max_bytes: u64) -> Result<DocumentSource, DatasetError> {
    let manifest = manifest()?;
    let metadata = metadata(&manifest)?;
    let mut packages: Vec<_> = metadata.packages.iter().filter(|p| p.source.is_some()).collect();
    packages.sort_by_key(|package| (package.name.to_string(), package.version.clone()));
    let mut selected = Selected { max_bytes, ..Selected::default() };
    for pattern in PACKAGES {
        for package in packages.iter().filter(|package| matches(pattern, package.name.as_str())) {
            if let Some(root) = package.manifest_path.parent() {
                selected.add_package(root.as_std_path())?;
            }
        }
    }
    if selected.files.is_empty() {
        return Err(DatasetError::NoDependency(manifest));
    }
    Ok(DocumentSource::from_files(selected.files))
}

/// Reads the packages of all platforms with default features, so that the list does not depend on
/// the current build. Never changes `Cargo.lock`, and uses the network only if sources are missing.
fn metadata(manifest: &Path) -> Result<Metadata, DatasetError> {
    let run = |options: &[&str]| {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        MetadataCommand::new().manifest_path(manifest).other_options(options).exec()
    };
    run(&["--locked", "--offline"]).or_else(|_| run(&["--locked"])).map_err(|error| {
        let reason = match error {
            cargo_metadata::Error::CargoMetadata { stderr } => cause(&stderr),
            other => other.to_string(),
        };
        DatasetError::CargoMetadata { manifest: manifest.into(), reason }
    })
}

/// The error message in cargo's output, without the progress lines and without cargo's advice about
/// options that the user did not give.
fn cause(stderr: &str) -> String {
    let lines = stderr.lines().skip_while(|line| !line.starts_with("error"));
    let lines = lines.take_while(|line| !line.starts_with("help") && !line.starts_with("If you"));
    let lines = lines.map(str::trim).filter(|line| !line.is_empty());
    let without_option = |line: &str| {
        let option = [" because --locked was passed", " but --locked was passed"];
        option.iter().find_map(|part| line.find(part)).unwrap_or(line.len())
    };
    lines.map(|line| &line[..without_option(line)]).collect::<Vec<_>>().join(" ")
}

/// Returns the manifest of the package that cargo runs, otherwise the nearest manifest in the
/// current folder or above it.
fn manifest() -> Result<PathBuf, DatasetError> {
    if let Some(dir) = std::env::var_os("CARGO_MANIFEST_DIR") {
        return Ok(Path::new(&dir).join("Cargo.toml"));
    }
    let here = std::env::current_dir().map_err(FileError::read(Path::new(".")))?;
    let found = here.ancestors().map(|dir| dir.join("Cargo.toml")).find(|path| path.exists());
    found.ok_or(DatasetError::NoManifest)
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// The files selected so far.
#[derive(Default)]
struct Selected {
    files: Vec<PathBuf>,
    bytes: u64,
    max_bytes: u64,
    /// SHA-256 of each file.
    contents: HashSet<[u8; 32]>,
}

impl Selected {
    /// Adds the text files of the package at `root` in the order of their paths, except duplicates
    /// and files that would exceed the size limit.
    fn add_package(&mut self, root: &Path) -> Result<(), DatasetError> {
        for entry in WalkDir::new(root).sort_by_file_name() {
            let entry = entry.map_err(|e| FileError::read(root)(e.into()))?;
            let named = entry.path().extension().is_some_and(|e| e == "rs" || e == "md");
            let size = entry.metadata().map_or(0, |meta| meta.len());
            let fits = size > 0 && size <= MAX_FILE && self.bytes + size <= self.max_bytes;
            if !named || !fits || !entry.file_type().is_file() {
                continue;
            }
            let bytes = std::fs::read(entry.path()).map_err(FileError::read(entry.path()))?;
            let is_text = std::str::from_utf8(&bytes).is_ok_and(|text| !text.trim().is_empty());
            if is_text && self.contents.insert(Sha256::digest(&bytes).into()) {
                self.bytes += size;
                self.files.push(entry.into_path());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dependencies_of_this_workspace_are_a_corpus() {
        assert!(inside_project());
        let source = dependencies(300_000).unwrap();
        let bytes = source.bytes().unwrap();
        assert!((100_000..=300_000).contains(&bytes), "{bytes}");
        assert_eq!(source, dependencies(300_000).unwrap());
    }

    #[test]
    fn files_are_sorted_without_duplicates_and_up_to_the_limit() {
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
        let mut selected = Selected { max_bytes: 20, ..Selected::default() };
        selected.add_package(dir.path()).unwrap();
        assert_eq!(selected.files, [dir.path().join("a.md"), dir.path().join("b.rs")]);
        assert_eq!(selected.bytes, 12);
    }

    #[test]
    fn a_failure_of_cargo_names_the_manifest_and_one_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = dir.path().join("Cargo.toml");
        let failure = || metadata(&manifest).unwrap_err().to_string();
        assert!(failure().contains("Cargo.toml"), "{}", failure());
        let package = "[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
        std::fs::write(&manifest, package).unwrap();
        std::fs::create_dir(dir.path().join("src")).unwrap();
        std::fs::write(dir.path().join("src/lib.rs"), "").unwrap();
        let error = failure();
        assert!(error.contains("lock file") && error.contains("run `cargo fetch` in"), "{error}");
        assert!(!error.contains("--locked"), "{error}");
        // the remedy works
        let mut fetch = std::process::Command::new("cargo");
        let fetch = fetch.args(["fetch", "--offline"]).current_dir(dir.path());
        assert!(fetch.output().unwrap().status.success());
        assert!(metadata(&manifest).is_ok());
    }

    #[test]
    fn patterns_match_whole_names_or_prefixes() {
        assert!(matches("burn-*", "burn-nn") && matches("tokenizers", "tokenizers"));
        assert!(!matches("burn-*", "burn") && !matches("rand", "rand_core"));
    }
}
