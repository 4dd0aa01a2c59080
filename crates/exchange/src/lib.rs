//! Models of other programs.
//!
//! [`locate`] finds the files of a model: a file, a folder, a repository on the hub of Hugging Face, or published
//! weights by their name here. [`Located::config`] reads the model's shape from a configuration of `transformers`
//! or of the published Block Transformer. [`write_folder`] writes a model for the Python world, with a model card.

mod card;
mod error;
mod folder;
mod hub;
mod hugging_face;
mod locate;
mod published_yaml;

pub use card::{Card, CurvePoint};
pub use error::ExchangeError;
pub use folder::write_folder;
pub use hub::{Download, Hub};
pub use hugging_face::{from_hugging_face, to_hugging_face};
pub use locate::{Located, locate};
pub use published_yaml::from_training_yaml;
