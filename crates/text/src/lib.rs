//! Text to token ids and back: tokenizers, and decoding one id at a time.

mod divide;
mod error;
mod stream;
mod tokenizer;

pub use error::TextError;
pub use stream::StreamDecoder;
pub use tokenizer::{EOS, PAD, Tokenizer};
