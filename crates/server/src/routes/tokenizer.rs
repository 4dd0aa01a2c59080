//! `POST /tokenize`, `POST /detokenize`, `GET /tokenizer_info`

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use block_transformer_text::Tokenizer;

use crate::api::{
    DetokenizeAnswer, DetokenizeRequest, TokenizeAnswer, TokenizeRequest, TokenizerInfo,
};
use crate::error::{ApiError, ErrorBody, json};
use crate::routes::app::App;
use crate::routes::body::JsonBody;
use crate::token_text::{TokenTexts, decode, encode};

/// Returns the token ids of a text.
#[utoipa::path(
    post,
    path = "/tokenize",
    request_body = TokenizeRequest,
    responses(
        (status = 200, description = "The ids", body = TokenizeAnswer),
        (status = 400, description = "A field is wrong", body = ErrorBody),
        (status = 401, description = "The key is missing or wrong", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not JSON", body = ErrorBody)
    )
)]
pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<TokenizeRequest>,
) -> Result<Response, ApiError> {
    let model = app.model(request.model.as_deref())?.clone();
    let missing = || ApiError::field("prompt", "prompt: is missing; give a text");
    let prompt = request.prompt.ok_or_else(missing)?;
    app.work(prompt.len(), move || {
        let tokens = encode(&model.tokenizer, &prompt, usize::MAX);
        let tokens = tokens.map_err(|error| ApiError::text("prompt", &error))?.unwrap_or_default();
        let token_strs = request.return_token_strs.unwrap_or(false).then(|| {
            // before a model is loaded, there is no table of all tokens
            let loaded = model.loaded.get().map(|loaded| &loaded.texts);
            let text = |&id: &u32| match loaded {
                Some(texts) => texts.text(id, false),
                None => TokenTexts::of(&model.tokenizer, id),
            };
            tokens.iter().map(text).collect()
        });
        let (count, max_model_len) = (tokens.len(), model.facts.max_tokens);
        Ok(json(StatusCode::OK, &TokenizeAnswer { tokens, count, max_model_len, token_strs }))
    })
    .await
}

/// Returns the text of token ids.
#[utoipa::path(
    post,
    path = "/detokenize",
    request_body = DetokenizeRequest,
    responses(
        (status = 200, description = "The text", body = DetokenizeAnswer),
        (status = 400, description = "A field is wrong", body = ErrorBody),
        (status = 401, description = "The key is missing or wrong", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not JSON", body = ErrorBody)
    )
)]
pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<DetokenizeRequest>,
) -> Result<Response, ApiError> {
    let model = app.model(request.model.as_deref())?.clone();
    let missing = || ApiError::field("tokens", "tokens: is missing; give a list of token ids");
    let tokens = request.tokens.ok_or_else(missing)?;
    app.work(tokens.len() * size_of::<u32>(), move || {
        let (prompt, _) = decode(&model.tokenizer, &tokens);
        Ok(json(StatusCode::OK, &DetokenizeAnswer { prompt }))
    })
    .await
}

/// Describes the tokenizer of the first model.
#[utoipa::path(
    get,
    path = "/tokenizer_info",
    responses(
        (status = 200, description = "The special tokens", body = TokenizerInfo),
        (status = 401, description = "The key is missing or wrong", body = ErrorBody)
    )
)]
pub(crate) async fn info(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let facts = &app.model(None)?.facts;
    let info = TokenizerInfo {
        eos_token: Tokenizer::EOS_TEXT,
        bos_token: Tokenizer::EOS_TEXT,
        pad_token: Tokenizer::PAD_TEXT,
        vocab_size: facts.tokenizer_vocab,
        model_max_length: facts.max_tokens,
        chat_template: None,
    };
    Ok(json(StatusCode::OK, &info))
}
