//! Parsers of counts and amounts on the command line.

use block_transformer_cost::Lengths;
use bytesize::ByteSize;
use clap::builder::RangedU64ValueParser;

/// Parses a whole number of at least 1.
pub(crate) fn positive() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// Parses a number of tokens or sequences, from 1 to 16 million.
pub(crate) fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=Lengths::MOST as u64)
}

/// Parses a number from 0 to 16 million.
pub(crate) fn up_to_most() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(..=Lengths::MOST as u64)
}

/// Parses a whole number that TOML can state.
pub(crate) fn toml_integer() -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(..=i64::MAX as u64)
}

/// Parses an amount of memory.
pub(crate) fn memory(text: &str) -> Result<ByteSize, String> {
    text.parse().map_err(|_| "must be an amount of memory above 0, such as 16GiB or 500MB".into())
}

/// Parses a number of tokens per shard.
pub(crate) fn shard_tokens() -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(1..=1 << 40)
}
