//! An HTTP server for base models with the completions interface of OpenAI.
//!
//! [`Server::bind`] opens a socket, and [`Server::run`] serves models on it until a [`Shutdown`]. An engine
//! decodes all sequences of a model on a thread of its own; the handlers of requests only encode text, send
//! commands to it, and receive its events. `docs/serving.md` describes the interface.

mod admission;
mod api;
mod config;
mod engine;
mod error;
mod lifecycle;
mod metrics;
mod model;
mod routes;
mod serve;
mod token_text;

pub use config::{DEFAULT_SEQUENCES, EngineOptions, ServerConfig};
pub use engine::{ServedModel, keep_panic};
pub use error::ServeError;
pub use lifecycle::{Notice, Shutdown};
pub use serve::Server;
