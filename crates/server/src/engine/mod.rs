//! The thread that decodes the sequences of a model.

mod command;
mod panic;
mod scoring;
mod slots;
mod spawn;
mod worker;

pub(crate) use command::{Command, Generate, Reply, Score, first_allowed};
pub use panic::keep_panic;
pub use spawn::ServedModel;
pub(crate) use spawn::{EngineEvent, Engines};
