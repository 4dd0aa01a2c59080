//! Requests for token ids and texts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::schema;

/// A text to encode.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct TokenizeRequest {
    /// A model of `/v1/models`; by default the first.
    pub model: Option<String>,
    /// The text.
    #[schema(required = true, value_type = String)]
    pub prompt: Option<String>,
    /// Returns the text of each token too.
    pub return_token_strs: Option<bool>,
}

/// The token ids of a text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenizeAnswer {
    /// The ids.
    pub tokens: Vec<u32>,
    /// Number of ids.
    pub count: usize,
    /// The most tokens of prompt and continuation together.
    pub max_model_len: usize,
    /// The text of each token, if the request asks for it.
    pub token_strs: Option<Vec<String>>,
}

/// Token ids to decode.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct DetokenizeRequest {
    /// A model of `/v1/models`; by default the first.
    pub model: Option<String>,
    /// The ids.
    #[schema(required = true, schema_with = schema::ids)]
    pub tokens: Option<Vec<u32>>,
}

/// The text of token ids.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DetokenizeAnswer {
    /// The text.
    pub prompt: String,
}

/// Special tokens of the tokenizer of the first model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenizerInfo {
    /// The token that ends a document.
    pub eos_token: &'static str,
    /// The token before a document: the models are trained on documents after the end of others.
    pub bos_token: &'static str,
    /// The token that fills blocks.
    pub pad_token: &'static str,
    /// Ids of the tokenizer.
    pub vocab_size: usize,
    /// The most tokens of prompt and continuation together.
    pub model_max_length: usize,
    /// Base models have none.
    pub chat_template: Option<String>,
}
