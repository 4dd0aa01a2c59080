//! The hub of Hugging Face, through the `hf-hub` crate: its cache layout, its token, its way to resume.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;

use crate::error::ExchangeError;
use crate::locate::{WEIGHTS, verify};

/// Files that are fetched besides the weights, where a repository has them.
const BESIDE: [&str; 2] = ["config.json", "tokenizer.json"];

/// Files of an index that are fetched at most.
const MAX_SHARDS: usize = 1000;

/// Access to the hub.
#[derive(Clone, Debug)]
pub struct Hub {
    cache: PathBuf,
    endpoint: Option<String>,
    token: Option<String>,
    offline: bool,
}

/// The progress of a file that is fetched.
#[derive(Clone, Copy, Debug)]
pub struct Download<'a> {
    /// Name of the file.
    pub file: &'a str,
    /// Bytes that are there.
    pub done: u64,
    /// Bytes of the whole file.
    pub total: u64,
}

/// The files of a repository, in the cache.
pub(crate) struct Snapshot {
    /// The id with its commit.
    pub origin: String,
    pub folder: PathBuf,
}

impl Hub {
    /// The hub with the cache and the token of the environment, as the Python library uses them: `HF_HUB_CACHE` or
    /// `HF_HOME/hub` or `~/.cache/huggingface/hub`; `HF_TOKEN` or the file `token` beside the cache; `HF_ENDPOINT`.
    /// With `offline` or `HF_HUB_OFFLINE=1`, only the cache is used.
    pub fn from_env(offline: bool) -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let cache =
            set("HF_HUB_CACHE").map_or_else(|| Cache::from_env().path().clone(), PathBuf::from);
        let offline = offline || set("HF_HUB_OFFLINE").is_some_and(|value| value != "0");
        let hub = Self::new(&cache, set("HF_ENDPOINT"), offline);
        Self { token: set("HF_TOKEN").or(hub.token), ..hub }
    }

    /// The hub at `endpoint` (the public one if `None`) with its cache in the folder `cache`.
    pub fn new(cache: &Path, endpoint: Option<String>, offline: bool) -> Self {
        // links in the cache are relative, which needs absolute paths
        let cache = std::path::absolute(cache).unwrap_or_else(|_| cache.into());
        let token = Cache::new(cache.clone()).token();
        Self { cache, endpoint, token, offline }
    }

    /// Fetches the files of a model, or finds them in the cache.
    pub(crate) fn fetch(
        &self,
        id: &str,
        revision: &str,
        progress: &mut dyn FnMut(Download<'_>),
    ) -> Result<Snapshot, ExchangeError> {
        let repo = Repo::with_revision(id.into(), RepoType::Model, revision.into());
        let folder =
            if self.offline { None } else { Some(self.download(id, repo.clone(), progress)?) };
        let cached = || {
            let cached = Cache::new(self.cache.clone()).repo(repo.clone());
            WEIGHTS.iter().find_map(|name| cached.get(name))?.parent().map(Path::to_path_buf)
        };
        let folder = folder.or_else(cached).ok_or_else(|| ExchangeError::NotCached {
            id: format!("{id}@{revision}"),
            cache: self.cache.clone(),
        })?;
        let commit = folder.file_name().unwrap_or_default().to_string_lossy();
        Ok(Snapshot { origin: format!("{id}@{commit}"), folder: folder.clone() })
    }

    /// Fetches the files that are not in the cache, and returns the folder of the snapshot.
    fn download(
        &self,
        id: &str,
        repo: Repo,
        progress: &mut dyn FnMut(Download<'_>),
    ) -> Result<PathBuf, ExchangeError> {
        let failed = |what: &str, error: &dyn std::error::Error| ExchangeError::Hub {
            id: id.into(),
            what: what.into(),
            reason: chain(error),
        };
        let builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_progress(false)
            .with_retries(3)
            .with_token(self.token.clone());
        let builder = match &self.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint.trim_end_matches('/').into()),
            None => builder,
        };
        let api = builder.build().map_err(|error| failed("an answer", &error))?.repo(repo.clone());
        let info = api.info().map_err(|error| failed("the list of its files", &error))?;
        let has = |name: &str| info.siblings.iter().any(|file| file.rfilename == name);
        let yaml = |name: &&String| !name.contains('/') && name.ends_with(".yaml");
        let names = info.siblings.iter().map(|file| &file.rfilename);
        let beside = BESIDE.into_iter().filter(|name| has(name)).map(String::from);
        let mut files: Vec<String> = beside.chain(names.filter(yaml).cloned()).collect();
        let weights = WEIGHTS.iter().find(|name| has(name));
        let weights = weights.ok_or_else(|| ExchangeError::NoWeights(id.into()))?;
        let progress = RefCell::new(progress);
        let cached = Cache::new(self.cache.clone()).repo(repo);
        let fetch = |name: &str| {
            let of_commit =
                |path: &PathBuf| path.parent().is_some_and(|dir| dir.ends_with(&info.sha));
            let path = match cached.get(name).filter(of_commit) {
                Some(path) => path,
                None => {
                    let report =
                        Report { progress: &progress, name: name.into(), done: 0, total: 0 };
                    api.download_with_progress(name, report)
                        .map_err(|error| failed(name, &error))?
                }
            };
            check(&path)?;
            Ok::<_, ExchangeError>(path)
        };
        let path = fetch(weights)?;
        if weights.ends_with(".index.json") {
            files.extend(shards(&path)?);
        }
        for name in files {
            fetch(&name)?;
        }
        Ok(path.parent().unwrap_or(Path::new(".")).into())
    }
}

/// The names of the files of an index.
fn shards(index: &Path) -> Result<Vec<String>, ExchangeError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let unreadable = |reason: String| ExchangeError::Unreadable { path: index.into(), reason };
    let text = std::fs::read_to_string(index).map_err(|error| unreadable(error.to_string()))?;
    let map =
        serde_json::from_str::<Index>(&text).map_err(|error| unreadable(error.to_string()))?;
    let mut names: Vec<String> = map.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    let plain = |name: &String| !name.contains(['/', '\\']) && !name.starts_with('.');
    if let Some(name) = names.iter().find(|name| !plain(name)) {
        return Err(unreadable(format!(
            "`weight_map` names the file {name:?}, which is not a plain file name"
        )));
    }
    if names.len() > MAX_SHARDS {
        return Err(unreadable(format!("{} files are more than {MAX_SHARDS}", names.len())));
    }
    Ok(names)
}

/// Compares a large file with the SHA-256 that the hub states: it is the name of the file in the cache.
fn check(path: &Path) -> Result<(), ExchangeError> {
    let Ok(blob) = path.canonicalize() else { return Ok(()) };
    let name = blob.file_name().unwrap_or_default().to_string_lossy();
    let is_sha256 = name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit());
    if is_sha256 { verify(&blob, &name) } else { Ok(()) }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

struct Report<'a, 'b> {
    progress: &'a RefCell<&'b mut dyn FnMut(Download<'_>)>,
    name: String,
    done: u64,
    total: u64,
}

impl Report<'_, '_> {
    fn say(&self) {
        (self.progress.borrow_mut())(Download {
            file: &self.name,
            done: self.done,
            total: self.total,
        });
    }
}

impl Progress for Report<'_, '_> {
    fn init(&mut self, size: usize, _: &str) {
        (self.done, self.total) = (0, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        self.say();
    }

    fn finish(&mut self) {
        self.done = self.total;
        self.say();
    }
}
