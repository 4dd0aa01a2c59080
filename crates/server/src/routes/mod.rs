//! The routes of the server.

mod app;
mod auth;
mod body;
mod chat;
mod completions;
mod models;
mod openapi;
mod page;
mod router;
mod status;
mod stream;
mod tokenizer;

pub(crate) use app::App;
pub(crate) use router::router;
