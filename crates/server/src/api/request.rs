//! The body of `POST /v1/completions`.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::schema;

/// A request to continue prompts. Fields that are not listed are ignored, and `null` is the same as leaving a field
/// out.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct CompletionRequest {
    /// A model of `/v1/models`; by default the first.
    pub model: Option<String>,
    /// The texts to continue, or their token ids. The answer has `n` choices for each.
    #[schema(required = true, schema_with = schema::prompt)]
    pub prompt: Option<PromptField>,
    /// A text, or its token ids, before every prompt. Its caches are kept for later requests. It is padded on its own
    /// to whole blocks, so that a block model continues it with the same block limits after any prompt.
    #[schema(schema_with = schema::text_or_ids)]
    pub prefix: Option<TextOrIds>,
    /// The largest number of new tokens. With 0, nothing is generated: `echo` with `logprobs` then scores the prompt.
    #[schema(default = 16, minimum = 0)]
    pub max_tokens: Option<u32>,
    /// Divides the logits. With 0, the most likely token is chosen.
    #[schema(default = 1.0, minimum = 0)]
    pub temperature: Option<f64>,
    /// Draws from the smallest set of most likely tokens with at least this probability.
    #[schema(default = 1.0, exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Draws from this many of the most likely tokens; 0 and -1 draw from all.
    #[schema(default = -1, minimum = -1)]
    pub top_k: Option<i32>,
    /// Draws from the tokens with at least this part of the largest probability.
    #[schema(default = 0.0, minimum = 0, maximum = 1)]
    pub min_p: Option<f64>,
    /// Subtracted from the logits of tokens that the continuation contains.
    #[schema(default = 0.0, minimum = -2, maximum = 2)]
    pub presence_penalty: Option<f64>,
    /// Subtracted from the logit of a token for each time that the continuation contains it.
    #[schema(default = 0.0, minimum = -2, maximum = 2)]
    pub frequency_penalty: Option<f64>,
    /// Values, from -100 to 100, that are added to the logits of token ids.
    #[schema(schema_with = schema::logit_bias)]
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// The same request with the same seed has the same answer, whatever else the server does. By default, the seed
    /// is random.
    pub seed: Option<i64>,
    /// Choices for each prompt.
    #[schema(default = 1, minimum = 1, maximum = 1024)]
    pub n: Option<u32>,
    /// Choices to generate for each prompt, of which the `n` with the largest mean log-probability are returned.
    #[schema(minimum = 1, maximum = 1024)]
    pub best_of: Option<u32>,
    /// Texts that end a choice and are not part of it.
    #[schema(schema_with = schema::stop)]
    pub stop: Option<StopField>,
    /// Token ids that end a choice and are not part of it.
    #[schema(max_items = 1024)]
    pub stop_token_ids: Option<Vec<u32>>,
    /// Continues after the model has ended the document.
    #[schema(default = false)]
    pub ignore_eos: Option<bool>,
    /// Returns the prompt too, before the continuation.
    #[schema(default = false)]
    pub echo: Option<bool>,
    /// Returns the log-probability of each token, and of this many of the most likely tokens.
    #[schema(minimum = 0, maximum = 20)]
    pub logprobs: Option<u32>,
    /// Writes tokens in `logprobs` as `token_id:7` instead of their texts.
    #[schema(default = false)]
    pub return_tokens_as_token_ids: Option<bool>,
    /// Returns text as it is generated, as server-sent events.
    #[schema(default = false)]
    pub stream: Option<bool>,
    /// Options of `stream`.
    pub stream_options: Option<StreamOptions>,
    /// A text after the continuation. The models cannot fill gaps: only an empty text is accepted.
    #[schema(max_length = 0)]
    pub suffix: Option<String>,
}

/// Texts or token ids.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "must be a string, a list of strings, a list of token ids, or a list of lists of token ids"
)]
pub(crate) enum PromptField {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    Lists(Vec<Vec<u32>>),
}

/// A text or token ids.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "must be a string or a list of token ids")]
pub(crate) enum TextOrIds {
    Text(String),
    Ids(Vec<u32>),
}

/// One text or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "must be a string or a list of strings")]
pub(crate) enum StopField {
    One(String),
    Many(Vec<String>),
}

/// Options of a stream.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct StreamOptions {
    /// Sends the numbers of tokens of all choices before the end.
    pub include_usage: Option<bool>,
    /// Sends the numbers of tokens of a choice so far with each of its events.
    pub continuous_usage_stats: Option<bool>,
}
