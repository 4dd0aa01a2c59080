//! `cargo xtask serve`

mod models;
mod signals;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use block_transformer_device::DeviceName;
use block_transformer_generation::{GenerationError, Speculate};
use block_transformer_server::{Notice, ServeError, Server, ServerConfig, Shutdown};
use block_transformer_training::is_out_of_memory;
use bytesize::ByteSize;

use super::generate::speculate;
use crate::counts::{self, count, positive, up_to_most};
use crate::units::{Stated, duration};
use crate::{OUT_OF_MEMORY, device};

/// Environment variable of the key that requests must have.
pub(crate) const KEY: &str = "BLOCK_TRANSFORMER_API_KEY";

/// Arguments of `serve`.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("models").required(true).multiple(true).args(["checkpoint", "preset"])))]
pub(crate) struct Args {
    /// Checkpoint folder with a model and its tokenizer; can be given several times. Requests choose one by the name
    /// of its folder, and get the first by default
    #[arg(long, value_name = "DIR")]
    checkpoint: Vec<PathBuf>,
    /// More models: presets with random weights, for measurements
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    preset: Vec<String>,
    /// Tokenizer of --preset [default: bytes and pairs of bytes]
    #[arg(long, value_name = "FILE", requires = "preset")]
    tokenizer: Option<PathBuf>,
    /// Names by which requests choose the models, checkpoints first
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    name: Vec<String>,
    /// Address to listen on; 0.0.0.0 for all of this machine
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port to listen on; 0 for any that is free
    #[arg(long, value_name = "N", default_value_t = 8000)]
    port: u16,
    /// Sequences decoded together [default: as many as fit and as have the same text alone and together, at most 64]
    #[arg(long, value_name = "N", value_parser = count())]
    sequences: Option<usize>,
    /// Maximum memory of all models together, such as 4GiB or 500MB [default: all of the device]
    #[arg(long, value_name = "SIZE", value_parser = counts::memory)]
    memory: Option<ByteSize>,
    /// Maximum number of tokens of a sequence, prompt and continuation together [default: the context of the model]
    #[arg(long, value_name = "N", value_parser = count())]
    max_tokens: Option<usize>,
    /// Memory of each model for the caches of prefixes, which later requests with the same prefix use [default: an
    /// eighth of its memory, at most 256 MiB]
    #[arg(long, value_name = "SIZE", value_parser = counts::memory)]
    prefix_memory: Option<ByteSize>,
    /// Sequences that may wait for a free place; more are refused
    #[arg(long, value_name = "N", default_value = "256", value_parser = up_to_most())]
    queue: usize,
    /// Longest time that a request waits for its first sequence, in seconds
    #[arg(long, value_name = "S", default_value = "600", value_parser = duration)]
    queue_timeout: Stated,
    /// Time in seconds in which running requests can end after Ctrl-C or SIGTERM; a second signal ends at once
    #[arg(long, value_name = "S", default_value = "30", value_parser = duration)]
    drain: Stated,
    /// Maximum number of open connections
    #[arg(long, value_name = "N", default_value = "1024", value_parser = positive())]
    max_connections: usize,
    /// Origin of web pages that may send requests, such as https://example.org, or `*`; can be given several times
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
    /// Launch every kernel of a block on its own, where a GPU could replay them as one graph
    #[arg(long)]
    no_graph: bool,
    /// Tokens to guess from repetitions in the text and to verify together: `off`, `auto` for as many
    /// as pay, or the largest number per step. The text stays the same
    #[arg(long, value_name = "off|auto|N", default_value = "off", value_parser = speculate)]
    speculate: Speculate,
    #[command(flatten)]
    storage: device::StorageFlags,
    /// Device to compute on
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

impl Args {
    /// Serves until a signal.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let device = device::open(self.device)?;
        self.storage.check(self.device, &device)?;
        let models = self.models(&device)?;
        let config = self.config()?;
        let has_key = config.api_key.is_some();
        let server = Server::bind(config).map_err(with_flags)?;
        if !self.host.is_loopback() && !has_key {
            note!(
                "warning: everyone who reaches {} can use this server; set {KEY} to a key that requests must have",
                self.host
            );
        }
        let shutdown = Shutdown::default();
        signals::listen(&shutdown)?;
        server.run(models, &shutdown, &mut print).map_err(with_flags)?;
        say!("ended");
        Ok(ExitCode::SUCCESS)
    }

    fn config(&self) -> Result<ServerConfig> {
        let seconds = |stated: &Stated| Duration::try_from_secs_f64(stated.value);
        Ok(ServerConfig {
            address: SocketAddr::new(self.host, self.port),
            api_key: key()?,
            cors: self.cors.clone(),
            queue: self.queue,
            queue_timeout: seconds(&self.queue_timeout).unwrap_or(Duration::MAX),
            drain: seconds(&self.drain).unwrap_or(Duration::MAX),
            max_connections: self.max_connections,
            ..ServerConfig::default()
        })
    }
}

/// The key that requests must have.
fn key() -> Result<Option<String>> {
    let Some(key) = std::env::var_os(KEY).filter(|key| !key.is_empty()) else { return Ok(None) };
    let key = key.into_string().ok().filter(|key| key.bytes().all(|byte| byte.is_ascii_graphic()));
    // without an error, the server would be open, or closed to everyone
    let key = key.with_context(|| {
        format!("{KEY}: the key must consist of printable ASCII characters without blanks")
    })?;
    Ok(Some(key))
}

/// Prints what the server does.
fn print(notice: Notice) {
    match notice {
        Notice::Listening(address) => say!("listening on http://{address}"),
        Notice::Loaded { model, sequences, tokens, slot_bytes, invariant, time } => {
            let same = match invariant {
                Some(most) if sequences <= most => "the same text alone and together".to_string(),
                Some(most) => format!("the same text alone and together for up to {most}"),
                None => "logits of sequences together differ by rounding".to_string(),
            };
            say!(
                "{model}: {sequences} sequences of {tokens} tokens, {} of caches each, {same}; loaded in {:.1} s",
                ByteSize(slot_bytes),
                time.as_secs_f64()
            );
        }
        Notice::Ready => say!("ready"),
        Notice::Draining(time) => {
            say!("ending; running requests have {:.0} s", time.as_secs_f64());
        }
    }
}

/// Names the flag that caused an error, and the remedy.
fn with_flags(error: ServeError) -> Error {
    let flags = match &error {
        ServeError::Bind { .. } => "--host, --port",
        ServeError::Origin(_) => "--cors",
        ServeError::SameName(_) | ServeError::NoName => "--name",
        ServeError::Sequences { .. } => "--memory, --sequences, --max-tokens",
        ServeError::Memory { .. } => "--memory, --prefix-memory, --max-tokens",
        ServeError::Engine { source: GenerationError::NoRoom, .. } => "--max-tokens",
        ServeError::Engine { source: GenerationError::Speculation, .. } => {
            "--speculate (use `auto` or `off` here)"
        }
        ServeError::Engine { source: GenerationError::Vocabulary { .. }, .. } => {
            "--checkpoint, --tokenizer"
        }
        ServeError::Load { .. } => "--checkpoint",
        ServeError::Failed { reason, .. } if is_out_of_memory(reason) => {
            return anyhow!("{OUT_OF_MEMORY} (--sequences, --max-tokens)");
        }
        _ => return error.into(),
    };
    Error::from(error).context(flags)
}
