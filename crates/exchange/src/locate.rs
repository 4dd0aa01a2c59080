//! Finds the files of a model.

use std::path::{Path, PathBuf};

use block_transformer_files::{FileError, digest, nearest, read_text_up_to};
use block_transformer_weights::TensorFiles;
use block_transformer_zoo::{ModelConfig, PublishedWeights, published_weights};
use serde_json::Value;

use crate::error::ExchangeError;
use crate::hub::{Download, Hub};
use crate::hugging_face::from_hugging_face;
use crate::published_yaml::from_training_yaml;

/// The largest configuration that is read.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Names of weights files in the order of preference. All are what `transformers` writes.
pub(crate) const WEIGHTS: [&str; 4] = [
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
];

/// The files of a model.
#[derive(Clone, Debug)]
pub struct Located {
    /// Where the model is from: its path, or its id on the hub with the commit.
    pub origin: String,
    /// The weights file, or the index of several.
    pub weights: PathBuf,
    /// The folder of the weights.
    pub folder: PathBuf,
    /// The row of the table of published weights, if the model was given by its name there.
    pub published: Option<&'static PublishedWeights>,
}

/// Finds the model that `given` names: a weights file or an index, a folder, published weights, or a repository on
/// the hub (`owner/name` or `owner/name@revision`), whose files are fetched.
///
/// # Errors
/// When there is no such model, the hub does not give it, or a file differs from its published SHA-256.
pub fn locate(
    given: &str,
    hub: &Hub,
    progress: &mut dyn FnMut(Download<'_>),
) -> Result<Located, ExchangeError> {
    let path = Path::new(given);
    if path.exists() {
        let weights = if path.is_dir() { weights_of(path)? } else { path.to_path_buf() };
        return Ok(Located::new(given.into(), weights, None));
    }
    if let Some(row) = published_weights().iter().find(|row| row.name == given) {
        let Some(id) = &row.hub else {
            return Err(ExchangeError::ByHand {
                name: row.name.clone(),
                source_page: row.source.clone().unwrap_or_default(),
                folder: row.folder.clone().unwrap_or_default(),
            });
        };
        let snapshot = hub.fetch(id, "main", progress)?;
        let weights = weights_of(&snapshot.folder)?;
        if let Some(expected) = &row.sha256 {
            verify(&weights, expected)?;
        }
        return Ok(Located::new(snapshot.origin, weights, Some(row)));
    }
    let (id, revision) = given.split_once('@').unwrap_or((given, "main"));
    if !is_id(id) || !is_revision(revision) {
        let names = published_weights().iter().map(|row| row.name.as_str());
        let nearest = nearest(given, names).unwrap_or_default().to_string();
        return Err(ExchangeError::Unknown { given: given.into(), nearest });
    }
    let snapshot = hub.fetch(id, revision, progress)?;
    let weights = weights_of(&snapshot.folder)?;
    Ok(Located::new(snapshot.origin, weights, None))
}

/// Whether `id` has the form `owner/name` of a repository on the hub.
fn is_id(id: &str) -> bool {
    let plain = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && part.chars().all(allowed) && !part.starts_with('.')
    };
    id.split_once('/').is_some_and(|(owner, name)| plain(owner) && plain(name))
}

fn is_revision(revision: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let parts = || revision.split('/');
    revision.chars().all(allowed) && parts().all(|part| !part.is_empty() && !part.starts_with('.'))
}

/// The weights file in `folder`.
fn weights_of(folder: &Path) -> Result<PathBuf, ExchangeError> {
    if let Some(path) = WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.exists()) {
        return Ok(path);
    }
    let entries = std::fs::read_dir(folder).map_err(FileError::read(folder))?;
    let mut files =
        entries.flatten().map(|entry| entry.path()).filter(|path| TensorFiles::has_format(path));
    match (files.next(), files.next()) {
        (Some(path), None) => Ok(path),
        _ => Err(ExchangeError::NoWeights(folder.into())),
    }
}

/// Compares the SHA-256 of a file with the published one.
pub(crate) fn verify(path: &Path, expected: &str) -> Result<(), ExchangeError> {
    let (_, found) = digest(path)?;
    if found == expected {
        return Ok(());
    }
    Err(ExchangeError::Digest { path: path.into(), found, expected: expected.into() })
}

impl Located {
    fn new(origin: String, weights: PathBuf, published: Option<&'static PublishedWeights>) -> Self {
        let folder = weights.parent().unwrap_or(Path::new("."));
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        Self { origin, folder: folder.into(), weights, published }
    }

    /// The shape of the model: from the `config.json` beside the weights (of this project or of `transformers`),
    /// from the training configuration (YAML) beside them, or from the table of published weights. `None` if
    /// there is none of these.
    ///
    /// # Errors
    /// When the file is damaged, or describes a model of another kind.
    pub fn config(&self) -> Result<Option<ModelConfig>, ExchangeError> {
        let json = self.folder.join("config.json");
        if json.exists() {
            return config_json(&json).map(Some);
        }
        if let Some(yaml) = self.yaml()? {
            return from_training_yaml(&text(&yaml)?, &yaml).map(Some);
        }
        Ok(self.published.map(|row| row.model().clone()))
    }

    /// The only YAML file beside the weights.
    fn yaml(&self) -> Result<Option<PathBuf>, ExchangeError> {
        let entries = std::fs::read_dir(&self.folder).map_err(FileError::read(&self.folder))?;
        let is_yaml = |path: &PathBuf| path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        let mut files = entries.flatten().map(|entry| entry.path()).filter(is_yaml);
        Ok(files.next().filter(|_| files.next().is_none()))
    }

    /// The tokenizer beside the weights, if there is one.
    pub fn tokenizer(&self) -> Option<PathBuf> {
        let path = self.folder.join("tokenizer.json");
        path.exists().then_some(path)
    }
}

/// Reads a `config.json` of this project or of `transformers`.
fn config_json(path: &Path) -> Result<ModelConfig, ExchangeError> {
    let json = text(path)?;
    let value: Value = serde_json::from_str(&json).map_err(|error| ExchangeError::Unreadable {
        path: path.into(),
        reason: error.to_string(),
    })?;
    if value.get("model_type").is_none() {
        return Ok(ModelConfig::from_json(&json, &path.display().to_string())?);
    }
    let config = from_hugging_face(&value, path)?;
    // the same checks as for a table of this project
    let table = serde_json::to_string(&config).unwrap_or_default();
    Ok(ModelConfig::from_json(&table, &path.display().to_string())?)
}

fn text(path: &Path) -> Result<String, ExchangeError> {
    Ok(read_text_up_to(path, MAX_CONFIG_BYTES)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn ids_and_revisions_of_the_hub_are_plain() {
        assert!(
            is_id("EleutherAI/pythia-1.4b-deduped")
                && is_revision("step1000")
                && is_revision("refs/pr/3")
        );
        for id in ["pythia", "a/b/c", "../a", "a/..", "a/b c", "/b", "a/", "https://x/y"] {
            assert!(!is_id(id), "{id}");
        }
        for revision in ["", "..", "a/../b", "a//b", "a b", "/a"] {
            assert!(!is_revision(revision), "{revision}");
        }
    }

    #[test]
    fn a_configuration_of_gigabytes_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let weights = dir.path().join("model.safetensors");
        for name in ["config.json", "a.yaml"] {
            let path = dir.path().join(name);
            File::create(&path).unwrap().set_len(8 << 30).unwrap();
            let error = Located::new("x".into(), weights.clone(), None).config().unwrap_err();
            let ExchangeError::File(error) = error else { panic!("{error}") };
            assert!(error.source.to_string().contains("at most 4194304 are read"), "{error:?}");
            assert_eq!(error.path, path);
            std::fs::remove_file(path).unwrap();
        }
    }
}
