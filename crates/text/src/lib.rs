//! Text to tokens to training windows: documents, tokenizers, token files, packing.

mod error;
mod file;
mod megatron;
mod megatron_corpus;
mod packing;
mod prepare;
mod source;
mod stream;
mod token_file;
mod tokenizer;

pub use error::TextError;
pub use megatron::MegatronFile;
pub use megatron_corpus::prepare_megatron;
pub use packing::{Packing, Window};
pub use prepare::{CorpusInfo, MegatronPair, PrepareOptions, PreparedCorpus, SplitInfo, prepare};
pub use source::DocumentSource;
pub use stream::StreamDecoder;
pub use token_file::{Documents, TokenFile, TokenFileWriter};
pub use tokenizer::{EOS, PAD, Tokenizer};
