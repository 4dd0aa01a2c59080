//! The hub of Hugging Face, through the `hf-hub` crate: its cache layout, its token, its way to resume.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use block_transformer_files::caught;
use block_transformer_tensor_files::shard_names;
use block_transformer_weights::WeightsError;
use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};

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
        let failed = |what: &str, reason: String| ExchangeError::Hub {
            id: id.into(),
            what: what.into(),
            reason,
        };
        let builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_progress(false)
            .with_retries(3)
            .with_token(self.token.clone());
        let builder = match &self.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint.trim_end_matches('/').into()),
            None => builder,
        };
        let api = builder.build().map_err(|error| failed("an answer", chain(&error)))?;
        let asked = (api.clone(), repo.clone());
        let info = patiently(
            move |_| asked.0.repo(asked.1).info().map_err(|error| chain(&error)),
            &mut |_, _| {},
        );
        let info = info.map_err(|reason| failed("the list of its files", reason))?;
        if !is_plain(&info.sha) {
            return Err(failed("the list of its files", format!("{:?} is no commit", info.sha)));
        }
        let has = |name: &str| info.siblings.iter().any(|file| file.rfilename == name);
        let yaml = |name: &&String| is_plain(name) && name.ends_with(".yaml");
        let names = info.siblings.iter().map(|file| &file.rfilename);
        let beside = BESIDE.into_iter().filter(|name| has(name)).map(String::from);
        let mut files: Vec<String> = beside.chain(names.filter(yaml).cloned()).collect();
        let weights = WEIGHTS.iter().find(|name| has(name));
        let weights = weights.ok_or_else(|| ExchangeError::NoWeights(id.into()))?;
        let cached = Cache::new(self.cache.clone()).repo(repo.clone());
        let mut fetch = |name: &str| {
            let of_commit =
                |path: &PathBuf| path.parent().is_some_and(|dir| dir.ends_with(&info.sha));
            let path = match cached.get(name).filter(of_commit) {
                Some(path) => path,
                None => {
                    let (api, repo, file) = (api.clone(), repo.clone(), name.to_string());
                    let work = move |report| fetched(&api, repo, &file, report);
                    let mut say = |done, total| progress(Download { file: name, done, total });
                    patiently(work, &mut say).map_err(|reason| failed(name, reason))?
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
    let names = shard_names(index).map_err(WeightsError::from)?;
    if names.len() > MAX_SHARDS {
        let reason = format!("{} files are more than {MAX_SHARDS}", names.len());
        return Err(ExchangeError::Unreadable { path: index.into(), reason });
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

/// Whether `name` is the name of a file or a folder, without a path.
fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.chars().all(allowed)
}

/// Fetches the file `name` into the cache. The server's names of commit and content become names of files there, so
/// they are checked first.
fn fetched(api: &Api, repo: Repo, name: &str, report: Report) -> Result<PathBuf, String> {
    let repo = api.repo(repo);
    let metadata = api.metadata(&repo.url(name)).map_err(|error| chain(&error))?;
    for given in [metadata.commit_hash(), metadata.etag()] {
        if !is_plain(given) {
            return Err(format!("the server calls its commit or its content {given:?}"));
        }
    }
    repo.download_with_progress(name, report).map_err(|error| chain(&error))
}

/// Runs `work` on a thread of its own and passes its reports on to `say`. Nothing for [`PATIENCE`] is an error, and so
/// is a panic.
fn patiently<T: Send + 'static>(
    work: impl FnOnce(Report) -> Result<T, String> + Send + 'static,
    say: &mut dyn FnMut(u64, u64),
) -> Result<T, String> {
    let (sender, receiver) = mpsc::channel();
    let reports = sender.clone();
    let say_there = move |done, total| {
        let _ = reports.send(Message::Progress(done, total));
    };
    let report = Report { say: Box::new(say_there), done: 0, total: 0 };
    std::thread::spawn(move || {
        let result = caught(|| work(report));
        let unusable = || Err("the answer of the server could not be used".into());
        let result = result.unwrap_or_else(unusable);
        let _ = sender.send(Message::Result(result));
    });
    loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok(Message::Progress(done, total)) => say(done, total),
            Ok(Message::Result(result)) => return result,
            Err(_) => return Err(format!("nothing arrived for {} seconds", PATIENCE.as_secs())),
        }
    }
}

/// The longest time without a byte of an answer.
const PATIENCE: Duration = Duration::from_secs(60);

enum Message<T> {
    Progress(u64, u64),
    Result(Result<T, String>),
}

/// Sends the progress of a file to the thread that waits for it.
struct Report {
    say: Box<dyn Fn(u64, u64) + Send>,
    done: u64,
    total: u64,
}

impl Report {
    fn say(&self) {
        (self.say)(self.done, self.total);
    }
}

impl Progress for Report {
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
