//! Checkpoints: folders that hold a model, its tokenizer, and everything a training run needs to
//! continue.
//!
//! A checkpoint folder is complete or absent, even if the writing process is killed. Its manifest
//! holds the SHA-256 of every file. [`Checkpoint::open`] accepts a checkpoint folder or the folder
//! of a training run ([`RunFolder`]). Opening a checkpoint needs no trainer.

mod checkpoint;
mod error;
mod folder;
mod format;
mod lineage;
mod manifest;
mod mismatch;
mod snapshot;
mod state;
mod streamed;

pub use checkpoint::Checkpoint;
pub use error::CheckpointError;
pub use folder::RunFolder;
pub use lineage::Lineage;
pub use snapshot::{Contents, Snapshot};
pub use state::State;
