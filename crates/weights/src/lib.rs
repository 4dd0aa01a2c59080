//! Import and export of published weight files.
//!
//! A model family names its parameters once, through [`PublishedNames`]. [`import`] and [`export`]
//! both read that table, so weights that are exported and imported again have the same bits.

mod error;
mod layout;
mod safetensors_io;
mod visit;

pub use block_transformer_family::{FloatFormat, PublishedNames};
pub use block_transformer_tensor_files::{
    HostTensor, HostTensors, TensorFileError, TensorFiles, TensorSource,
};
pub use error::WeightsError;
pub use safetensors_io::{export, import, read_tensors, write_tensors};
pub use visit::{Source, cast, load, published_tensors};
