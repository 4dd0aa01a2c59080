//! The server over loopback, with small models in this process.

mod answers;
mod echo;
mod interface;
mod life;
mod limits;
mod prefixes;
mod sampling;
mod streams;
mod support;
