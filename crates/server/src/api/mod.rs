//! Requests and answers.

mod answer;
mod choices;
mod logprobs;
mod models;
mod plan;
mod request;
mod schema;
mod tokens;

pub(crate) use answer::{Choice, Completion, StreamEvent, Usage};
pub(crate) use choices::{Choices, Delta, EncodedPrompt};
pub(crate) use models::{ModelCard, ModelList};
pub(crate) use plan::{Plan, Texts};
pub(crate) use request::CompletionRequest;
pub(crate) use tokens::{
    DetokenizeAnswer, DetokenizeRequest, TokenizeAnswer, TokenizeRequest, TokenizerInfo,
};
