//! A server in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use anyhow::{Error, Result, anyhow};
use block_transformer_server::{
    EngineOptions, Notice, ServeError, ServedModel, Server, ServerConfig, Shutdown,
};
use block_transformer_text::Tokenizer;
use block_transformer_zoo::family::CacheFormat;
use block_transformer_zoo::{Family, LanguageModel};
use burn::tensor::Device;

/// A model to serve.
pub(super) struct Served {
    pub name: String,
    /// The ids that can be chosen are below this one.
    pub vocab: usize,
    pub model: LanguageModel,
    pub tokenizer: Tokenizer,
}

/// A running server.
pub(super) struct OwnServer {
    address: SocketAddr,
    shutdown: Shutdown,
    thread: JoinHandle<Result<(), ServeError>>,
}

impl OwnServer {
    /// Starts a server of `models`, each with `slots` sequences of `tokens` tokens in `memory` bytes, and waits until it is
    /// ready.
    pub(super) fn start(
        models: &[Served],
        device: &Device,
        cache: CacheFormat,
        tokens: usize,
        slots: Option<usize>,
        memory: Option<u64>,
    ) -> Result<Self> {
        let config =
            ServerConfig { address: (Ipv4Addr::LOCALHOST, 0).into(), ..ServerConfig::default() };
        let server = Server::bind(config)?;
        let served = models.iter().map(|served| {
            let options = EngineOptions {
                cache,
                sequences: slots,
                memory,
                ..EngineOptions::new(device, tokens)
            };
            let (model, config) = (served.model.clone(), served.model.config());
            ServedModel::new(&*served.name, &config, served.tokenizer.clone(), options, || {
                Ok(model)
            })
        });
        let served: Vec<_> = served.collect();
        let (address, shutdown) = (server.local_addr(), Shutdown::default());
        let (sender, notices) = channel();
        let stop = shutdown.clone();
        let thread = std::thread::spawn(move || {
            // nobody listens once the server is ready
            server.run(served, &stop, &mut |notice| drop(sender.send(notice)))
        });
        let started = Self { address, shutdown, thread };
        if is_ready(&notices) {
            Ok(started)
        } else {
            started.stop().and(Err(anyhow!("the server ended")))
        }
    }

    /// The address of the server.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends the server.
    pub(super) fn stop(self) -> Result<()> {
        self.shutdown.begin();
        let ended = self.thread.join().map_err(|_| anyhow!("the server panicked"))?;
        ended.map_err(|error| match error {
            ServeError::Sequences { .. } | ServeError::Engine { .. } => {
                Error::from(error).context("--streams, --lengths")
            }
            _ => error.into(),
        })
    }
}

/// Waits until the server is ready; it is not if it ends before.
fn is_ready(notices: &Receiver<Notice>) -> bool {
    notices.iter().any(|notice| notice == Notice::Ready)
}
