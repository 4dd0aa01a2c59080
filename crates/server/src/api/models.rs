//! The answer to `GET /v1/models`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::Model;

/// All models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    /// `list`
    pub object: &'static str,
    /// The models; the first is used by requests that name none.
    pub data: Vec<ModelCard>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelCard {
    /// The name by which requests choose the model.
    id: String,
    /// `model`
    object: &'static str,
    /// Seconds since 1970 at the start of the server.
    created: u64,
    /// `block-transformer`
    owned_by: &'static str,
    /// The most tokens of prompt and continuation together.
    max_model_len: usize,
    /// `block` or `vanilla`.
    family: &'static str,
    /// Tokens per block; 1 for models without blocks.
    block_length: usize,
    /// Parameters of the model.
    parameters: usize,
    /// Bytes of the KV caches per token of context.
    kv_bytes_per_token: f64,
    /// Bytes of the KV caches of a sequence; `null` until the model is loaded.
    slot_bytes: Option<u64>,
    /// Sequences that are decoded together; `null` until the model is loaded.
    slots: Option<usize>,
    /// Whether the answer to a request with a seed is the same to the bit whatever else the server does. If not, logits
    /// differ by rounding; `null` until the model is loaded.
    batch_invariant: Option<bool>,
    /// Identifies the weights.
    system_fingerprint: Option<String>,
}

impl ModelCard {
    pub(crate) fn new(model: &Model, created: u64) -> Self {
        let (facts, loaded) = (&model.facts, model.loaded.get());
        Self {
            id: facts.name.clone(),
            object: "model",
            created,
            owned_by: "block-transformer",
            max_model_len: facts.max_tokens,
            family: facts.family,
            block_length: facts.block_length,
            parameters: facts.parameters,
            kv_bytes_per_token: facts.kv_bytes_per_token,
            slot_bytes: loaded.map(|loaded| loaded.slot_bytes),
            slots: loaded.map(|loaded| loaded.slots),
            batch_invariant: loaded
                .map(|loaded| loaded.invariant.is_some_and(|most| loaded.slots <= most)),
            system_fingerprint: facts.fingerprint.clone(),
        }
    }
}
