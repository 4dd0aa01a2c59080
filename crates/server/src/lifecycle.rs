//! Start and end of a server.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;

/// Ends a [`Server`](crate::Server): it takes no more connections, lets running requests end within
/// [`ServerConfig::drain`](crate::ServerConfig::drain), and cancels the rest.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Sender<bool>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Shutdown {
    /// Ends the server. More calls have no effect.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Waits until [`begin`](Self::begin) is called.
    pub(crate) async fn begun(&self) {
        // there is a sender: `self`
        let _ = self.0.subscribe().wait_for(|begun| *begun).await;
    }
}

/// What a server does.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// It listens to this address. Models are being loaded.
    Listening(SocketAddr),
    /// A model can be used.
    Loaded {
        /// Name of the model.
        model: String,
        /// Sequences that are decoded together.
        sequences: usize,
        /// Tokens of a sequence.
        tokens: usize,
        /// Bytes of the caches of a sequence.
        slot_bytes: u64,
        /// The largest number of sequences with the same tokens alone and together; `None` if there is none.
        invariant: Option<usize>,
        /// The time it took.
        time: Duration,
    },
    /// All models can be used.
    Ready,
    /// The server ends; running requests can end within this time.
    Draining(Duration),
}
