//! Import and export of published weight files.
//!
//! A model family names its parameters once, through [`PublishedNames`]. [`import`] and [`export`]
//! both read that table, so weights that are exported and imported again have the same bits.

mod error;
mod layout;
mod safetensors_io;
mod visit;

pub use block_transformer_family::{FloatFormat, PublishedNames};
pub use error::WeightsError;
pub use layout::Layout;
pub use safetensors_io::{export, import, read_tensors, write_tensors};
pub use visit::{Entry, Source, cast, entries, load, published_tensors};

use std::collections::BTreeMap;

/// A tensor on the host, in its published layout.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Sizes of its axes.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f32>,
}

/// Tensors by published name.
pub type HostTensors = BTreeMap<String, HostTensor>;
