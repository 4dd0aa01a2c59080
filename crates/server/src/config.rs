//! Settings of a server and of its engines.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use block_transformer_family::CacheFormat;
use block_transformer_generation::Speculate;
use burn::tensor::Device;

/// The largest number of sequences that an engine decodes together, unless
/// [`EngineOptions::sequences`] sets another one.
pub const DEFAULT_SEQUENCES: usize = 64;

/// Settings of a [`Server`](crate::Server).
#[derive(Clone)]
pub struct ServerConfig {
    /// The address to listen on. With port 0, the system chooses a port.
    pub address: SocketAddr,
    /// The key that requests must have. With `None`, requests need no key.
    pub api_key: Option<String>,
    /// Origins of web pages that may send requests, such as `https://example.org`; `*` stands for all.
    pub cors: Vec<String>,
    /// Sequences that may wait for a slot, in addition to those that have one.
    pub queue: usize,
    /// The longest time that a request waits until the first of its sequences has a slot.
    pub queue_timeout: Duration,
    /// The time after a [shutdown](crate::Shutdown) in which running requests can end.
    pub drain: Duration,
    /// Connections at a time. More wait until one of these is closed.
    pub max_connections: usize,
    /// The largest body of a request in bytes.
    pub max_body: usize,
    /// The longest time for the headers of a request; a connection without a request is closed after it.
    pub header_timeout: Duration,
    /// The longest time for the body of a request.
    pub body_timeout: Duration,
    /// The longest time in which a client takes none of the bytes that wait for it.
    pub write_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 8000).into(),
            api_key: None,
            cors: Vec::new(),
            queue: 256,
            queue_timeout: Duration::from_secs(600),
            drain: Duration::from_secs(30),
            max_connections: 1024,
            max_body: 2 << 20,
            header_timeout: Duration::from_secs(20),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
        }
    }
}

// without the key
impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Settings of the engine of a model.
pub struct EngineOptions {
    /// The device of the model.
    pub device: Device,
    /// Storage format of keys and values.
    pub cache: CacheFormat,
    /// Sequences decoded together. With `None`, these are at most [`DEFAULT_SEQUENCES`], as many as fit into
    /// `memory`, and as many as have the same tokens alone and together.
    pub sequences: Option<usize>,
    /// Bytes for the weights, the caches and the temporary tensors of the model. `None` sets no limit.
    pub memory: Option<u64>,
    /// Tokens of a sequence, prompt and continuation together.
    pub max_tokens: usize,
    /// Bytes, of those in `memory`, for the caches of prefixes.
    pub prefix_bytes: u64,
    /// Tokens to guess and to verify together.
    pub speculate: Speculate,
    /// Whether decoded blocks are captured as graphs of the device; `None` leaves it to the device.
    pub graphs: Option<bool>,
    /// Threads that compute; 0 for one per core.
    pub threads: usize,
    /// Called before each step, by tests.
    #[doc(hidden)]
    pub on_step: Option<Box<dyn FnMut() + Send>>,
}

impl EngineOptions {
    /// The options of an engine on `device` for sequences of `max_tokens` tokens, with caches in f32.
    pub fn new(device: &Device, max_tokens: usize) -> Self {
        Self {
            device: device.clone(),
            cache: CacheFormat::F32,
            sequences: None,
            memory: None,
            max_tokens,
            prefix_bytes: 0,
            speculate: Speculate::Off,
            graphs: None,
            threads: 0,
            on_step: None,
        }
    }
}

impl fmt::Debug for EngineOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("EngineOptions");
        debug.field("sequences", &self.sequences).field("memory", &self.memory);
        debug.field("max_tokens", &self.max_tokens).finish_non_exhaustive()
    }
}
