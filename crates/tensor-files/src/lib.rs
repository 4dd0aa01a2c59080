//! Files of tensors: safetensors, PyTorch checkpoints, and several such files with an index.
//!
//! [`TensorFiles::open`] reads names, formats and shapes, and checks them against the size of the file. A
//! tensor is read when it is asked for, so that a model can be loaded with little more memory than it takes
//! itself. Nothing in a file is executed: the pickle in a PyTorch file is parsed as data, and only the
//! calls that build tensors and dictionaries are understood.
//!
//! The files come from outside. A damaged or hostile file gives an error; the memory is bounded by the size of
//! the file's header (at most 100 MB) and of one tensor.

mod error;
mod files;
mod index;
#[cfg(feature = "pytorch")]
mod pytorch;
mod safetensors;
mod source;
mod values;

pub use error::TensorFileError;
pub use files::TensorFiles;
pub use index::{MAX_INDEX_BYTES, shard_names};
pub use source::{HostTensor, HostTensors, TensorSource};
