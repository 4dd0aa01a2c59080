//! The answer to `POST /v1/completions`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::logprobs::Logprobs;

/// Continuations of prompts, or an event of a stream of them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Completion<'a> {
    /// Identifies the request.
    pub id: &'a str,
    /// `text_completion`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// Name of the model.
    pub model: &'a str,
    /// Identifies the weights.
    pub system_fingerprint: Option<&'a str>,
    /// The choices; empty in the event of a stream that has the usage of all choices.
    pub choices: Vec<Choice>,
    /// Numbers of tokens. Only streams that ask for it have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
}

/// An event of a stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "events are written as text; this describes them")]
pub(crate) struct StreamEvent {
    /// An object of the kind of the answer without `stream`, with new text of a choice; an object with `error`; or `[DONE]`
    /// at the end.
    data: String,
}

/// A choice, or its new text in an event of a stream.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Choice {
    /// The text.
    pub text: String,
    /// Number of the choice: all those of the first prompt come first.
    pub index: usize,
    /// Log-probabilities, if the request asks for them.
    pub logprobs: Option<Logprobs>,
    /// `stop` after the end of the document or a stop text, `length` after the largest number of tokens; `null` while
    /// more follows.
    pub finish_reason: Option<&'static str>,
}

/// Numbers of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
    /// Generated tokens.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
}

impl Usage {
    pub(crate) fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}
