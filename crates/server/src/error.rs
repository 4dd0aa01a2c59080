//! Errors of the server, and the errors that it answers requests with.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use block_transformer_evaluation::EvalError;
use block_transformer_generation::GenerationError;
use block_transformer_text::TextError;
use serde::Serialize;
use utoipa::ToSchema;

/// The error that ends a server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}; choose another address or port, or end the program that uses it"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: std::io::Error,
    },
    /// The threads or timers of the server cannot be created.
    #[error("cannot start the server")]
    Start(#[source] std::io::Error),
    /// An origin that no header can contain.
    #[error("{0:?} is not an origin; give one such as https://example.org")]
    Origin(String),
    /// Two models have the same name.
    #[error("two models are called {0:?}; give each a name of its own")]
    SameName(String),
    /// A model has no name.
    #[error("a model has an empty name; give it one that requests can use")]
    NoName,
    /// There is no model.
    #[error("a server needs at least one model")]
    NoModel,
    /// A model cannot be loaded.
    #[error("model {model}")]
    Load {
        /// Name of the model.
        model: String,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine of a model cannot be created.
    #[error("model {model}")]
    Engine {
        /// Name of the model.
        model: String,
        /// The reason.
        source: GenerationError,
    },
    /// The scorer of a model cannot be created or failed.
    #[error("model {model}")]
    Scorer {
        /// Name of the model.
        model: String,
        /// The reason.
        source: Box<EvalError>,
    },
    /// The memory holds no sequence.
    #[error(
        "model {model}: {memory} bytes hold no sequence of {tokens} tokens, which needs {needed} bytes: {weights} of them \
         for the weights, {prefixes} for prefixes and {scores} to score prompts; allow more memory or fewer tokens"
    )]
    Memory {
        /// Name of the model.
        model: String,
        /// Bytes that may be used.
        memory: u64,
        /// Tokens of a sequence.
        tokens: usize,
        /// Bytes that one sequence needs.
        needed: u64,
        /// Bytes of the weights.
        weights: u64,
        /// Bytes for the caches of prefixes.
        prefixes: u64,
        /// Bytes of temporary tensors while prompts are scored.
        scores: u64,
    },
    /// The memory holds fewer sequences than asked for.
    #[error(
        "model {model}: {sequences} sequences of {tokens} tokens do not fit into {memory} bytes, but {fit} do; \
         allow more memory, or fewer or shorter sequences"
    )]
    Sequences {
        /// Name of the model.
        model: String,
        /// Sequences that were asked for.
        sequences: usize,
        /// Tokens of a sequence.
        tokens: usize,
        /// Bytes that may be used.
        memory: u64,
        /// Sequences that fit.
        fit: usize,
    },
    /// The engine of a model panicked.
    #[error("the engine of model {model} failed: {reason}")]
    Failed {
        /// Name of the model.
        model: String,
        /// Message and place of the panic.
        reason: String,
    },
}

/// An error that a request is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
    /// Seconds after which the client should try again.
    retry_after: Option<u64>,
}

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorObject,
}

/// An error as OpenAI describes it.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorObject {
    /// What is wrong, and how to correct it.
    message: String,
    /// Class of the error.
    r#type: &'static str,
    /// The field of the request that is wrong.
    param: Option<String>,
    /// A constant for programs.
    code: Option<&'static str>,
}

const INVALID: &str = "invalid_request_error";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), kind, param: None, code: None, retry_after: None }
    }

    fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// A field of the request is wrong.
    pub(crate) fn field(param: &str, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, INVALID, message);
        Self { param: Some(param.into()), ..error }
    }

    /// The body is not JSON.
    pub(crate) fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, message).with_code("invalid_json")
    }

    /// The body is too large.
    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("the body of a request can have {limit} bytes; send less");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, message).with_code("body_too_large")
    }

    /// The body did not arrive in time.
    pub(crate) fn body_timeout() -> Self {
        let message = "the body of the request did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID, message).with_code("body_timeout")
    }

    /// The body is not declared as JSON.
    pub(crate) fn content_type() -> Self {
        let message = "the body must be JSON, with the header `Content-Type: application/json`";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, message)
    }

    /// Prompt and continuation are longer than a sequence can be.
    pub(crate) fn too_long(prompt: usize, new: usize, limit: usize) -> Self {
        let message = format!(
            "this server's sequences have at most {limit} tokens; the request needs {} ({prompt} in the prompt, \
             {new} in the completion): shorten the prompt or lower max_tokens",
            prompt.saturating_add(new)
        );
        let param = if prompt < limit { "max_tokens" } else { "prompt" };
        Self::field(param, message).with_code("context_length_exceeded")
    }

    /// A text has more tokens than a sequence can have, so that they were not counted.
    pub(crate) fn text_too_long(param: &str, limit: usize) -> Self {
        let message = format!(
            "this server's sequences have at most {limit} tokens, for which {param} is too long: shorten it"
        );
        Self::field(param, message).with_code("context_length_exceeded")
    }

    /// The key is missing or wrong.
    pub(crate) fn key() -> Self {
        let message = "the API key is missing or wrong; send it as `Authorization: Bearer KEY`";
        Self::new(StatusCode::UNAUTHORIZED, INVALID, message).with_code("invalid_api_key")
    }

    /// There is no such model.
    pub(crate) fn model(name: &str, known: &[&str]) -> Self {
        let message = format!("there is no model {name:?}; this server has {}", known.join(", "));
        let error = Self::new(StatusCode::NOT_FOUND, INVALID, message);
        Self { param: Some("model".into()), ..error }.with_code("model_not_found")
    }

    /// There is no such route.
    pub(crate) fn route(path: &str) -> Self {
        let message = format!("there is nothing at {path}; /openapi.json lists what there is");
        Self::new(StatusCode::NOT_FOUND, INVALID, message)
    }

    /// The route has other methods.
    pub(crate) fn method() -> Self {
        let message = "this path has other methods; the header Allow names them";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, message)
    }

    /// The queue is full.
    pub(crate) fn queue_full(retry_after: u64) -> Self {
        let message = format!("the queue is full; try again in {retry_after} s");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { retry_after: Some(retry_after), ..error }.with_code("queue_full")
    }

    /// The request waited too long.
    pub(crate) fn queue_timeout(limit: Duration) -> Self {
        let message =
            format!("the request waited for {} s without a free slot", limit.as_secs_f64());
        Self::unavailable(message).with_code("queue_timeout")
    }

    /// The models are being loaded.
    pub(crate) fn loading() -> Self {
        Self::unavailable("the models are being loaded").with_code("loading")
    }

    /// The server shuts down.
    pub(crate) fn draining() -> Self {
        Self::unavailable("the server is shutting down").with_code("shutting_down")
    }

    /// An engine has failed.
    pub(crate) fn unusable() -> Self {
        Self::unavailable("the engine of a model has failed; the server is ending")
    }

    fn unavailable(message: impl Into<String>) -> Self {
        let error =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable_error", message);
        Self { retry_after: Some(1), ..error }
    }

    /// The engine of the model has failed.
    pub(crate) fn engine() -> Self {
        Self::internal("the engine of the model has failed; the server is ending")
    }

    /// The model is damaged.
    pub(crate) fn not_finite() -> Self {
        Self::internal("the logits of the model are not finite; its weights are damaged")
    }

    /// A mistake of the server.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// Chat is not offered.
    pub(crate) fn chat() -> Self {
        let message = "the models of this server are base models, which continue a text and know no chat \
                       template; use POST /v1/completions";
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_implemented_error", message)
    }

    /// The body of the answer, which is also that of an event in a stream.
    pub(crate) fn to_body(&self) -> ErrorBody {
        let Self { message, kind, param, code, .. } = self.clone();
        ErrorBody { error: ErrorObject { message, r#type: kind, param, code } }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &self.to_body());
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::NOT_IMPLEMENTED {
            // clients of OpenAI try again after other errors of the server
            let name = HeaderName::from_static("x-should-retry");
            headers.insert(name, HeaderValue::from_static("false"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An answer with `value` as its body.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // the types of this crate can all be written
    let body = serde_json::to_vec(value).unwrap_or_default();
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], body).into_response()
}

impl From<GenerationError> for ApiError {
    fn from(error: GenerationError) -> Self {
        let param = match &error {
            GenerationError::Temperature(_) => "temperature",
            GenerationError::TopK => "top_k",
            GenerationError::TopP(_) => "top_p",
            GenerationError::MinP(_) => "min_p",
            GenerationError::Penalty { name, .. } => name,
            GenerationError::LogitBias { .. } | GenerationError::LogitBiasId { .. } => "logit_bias",
            GenerationError::EmptyStop => "stop",
            GenerationError::MaxTokens(_) => "max_tokens",
            GenerationError::TooLong { tokens, limit, .. } => {
                return Self::too_long(*tokens, 0, *limit);
            }
            _ => "prompt",
        };
        Self::field(param, error.to_string())
    }
}

impl ApiError {
    /// A text cannot be encoded.
    pub(crate) fn text(param: &str, error: &TextError) -> Self {
        Self::field(param, format!("{param}: {error}"))
    }
}
