//! Numbers of things, as flags give them.

/// Tokens or sequences that can be counted with.
pub const MOST: usize = block_transformer_cost::Lengths::MOST;

/// A number that is not 0.
pub fn positive(value: &str) -> Result<usize, String> {
    match value.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// A number of tokens or sequences, 1 to 16 million.
pub fn count(value: &str) -> Result<usize, String> {
    match positive(value)? {
        number if number > MOST => Err(format!("must be at most {MOST}")),
        number => Ok(number),
    }
}
