//! Parsers of counts on the command line.

use block_transformer_cost::Lengths;
use clap::builder::RangedU64ValueParser;

/// Parses a whole number of at least 1.
pub(crate) fn positive() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// Parses a number of tokens or sequences, from 1 to 16 million.
pub(crate) fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=Lengths::MOST as u64)
}
