//! The error of a configuration with sizes that do not fit together.

/// A configuration value that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct InvalidConfig {
    /// The key with its path, such as `token_decoder.expansion_ratio`.
    pub key: String,
    /// The reason why the value is not accepted.
    pub reason: String,
}

impl InvalidConfig {
    /// Largest width of a layer, and largest vocabulary. With this limit, counts of parameters fit
    /// into 64 bits.
    pub const MAX_WIDTH: usize = 1 << 20;
    /// Largest number of layers in a stack.
    pub const MAX_LAYERS: usize = 1 << 10;

    /// An error about `key`.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: reason.into() }
    }

    /// Checks that a size is between 1 and `most`.
    ///
    /// # Errors
    /// When it is out of this range.
    pub fn check_size(key: &str, value: usize, most: usize) -> Result<(), Self> {
        if (1..=most).contains(&value) {
            return Ok(());
        }
        Err(Self::new(key, format!("{value} must be between 1 and {most}")))
    }

    /// Checks the width, layers and heads of a stack of layers.
    ///
    /// # Errors
    /// When one of them is 0 or too large.
    pub fn check_stack(width: usize, layers: usize, heads: usize) -> Result<(), Self> {
        Self::check_size("hidden_size", width, Self::MAX_WIDTH)?;
        Self::check_size("num_hidden_layers", layers, Self::MAX_LAYERS)?;
        Self::check_size("num_attention_heads", heads, Self::MAX_WIDTH)
    }

    /// Checks a stack whose layers have an MLP and heads that divide the width.
    ///
    /// # Errors
    /// When a size is 0 or too large, or the heads do not divide the width.
    pub fn check_layers(
        width: usize,
        layers: usize,
        heads: usize,
        mlp_width: Option<usize>,
    ) -> Result<(), Self> {
        Self::check_stack(width, layers, heads)?;
        Self::check_size("intermediate_size", mlp_width.unwrap_or(1), Self::MAX_WIDTH)?;
        if width.is_multiple_of(heads) {
            return Ok(());
        }
        let reason = format!("{heads} does not divide hidden_size {width}");
        Err(Self::new("num_attention_heads", reason))
    }

    /// Adds the path of the table that contains the key.
    pub fn under(self, table: &str) -> Self {
        Self { key: format!("{table}.{}", self.key), ..self }
    }
}
