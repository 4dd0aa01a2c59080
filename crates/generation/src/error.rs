//! Errors of generation.

use block_transformer_text::TextError;

/// A request that cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// A temperature that is negative or not finite.
    #[error("temperature {0}: must be 0 (greedy) or a positive number")]
    Temperature(f64),
    /// A `top_k` of zero.
    #[error("top_k 0: must be at least 1; without `top_k`, every token can be drawn")]
    TopK,
    /// A `top_p` outside (0, 1].
    #[error("top_p {0}: must be above 0 and at most 1")]
    TopP(f64),
    /// A `min_p` outside [0, 1].
    #[error("min_p {0}: must be from 0 to 1")]
    MinP(f64),
    /// A penalty outside [-2, 2].
    #[error("{name} {value}: must be from -2 to 2")]
    Penalty {
        /// `presence_penalty` or `frequency_penalty`.
        name: &'static str,
        /// The value.
        value: f64,
    },
    /// A bias outside [-100, 100].
    #[error("logit_bias {bias} of token id {id}: must be from -100 to 100")]
    LogitBias {
        /// The id.
        id: u32,
        /// The value.
        bias: f32,
    },
    /// A bias of an id that is never chosen.
    #[error(
        "logit_bias: token id {id} is outside the vocabulary of {vocab}; use ids of the tokenizer the model was \
         trained with"
    )]
    LogitBiasId {
        /// The id.
        id: u32,
        /// Ids of the tokenizer, or rows of the model's token tables.
        vocab: usize,
    },
    /// An empty stop string, which every text contains.
    #[error("a stop string must not be empty")]
    EmptyStop,
    /// An `allowed_vocab` of zero.
    #[error("allowed_vocab 0: at least one token must be allowed")]
    NothingAllowed,
    /// An id without an embedding.
    #[error(
        "prompt {prompt}: token id {id} is outside the model's vocabulary of {vocab}; encode it \
         with the tokenizer the model was trained with"
    )]
    PromptId {
        /// [`Options::rng_stream`](crate::Options::rng_stream) of the prompt.
        prompt: usize,
        /// The id.
        id: u32,
        /// Rows of the model's token tables.
        vocab: usize,
    },
    /// A tokenizer with more ids than the model has embeddings.
    #[error(
        "the tokenizer has {tokenizer} ids and the model's vocabulary is {model}: use the \
         tokenizer the model was trained with"
    )]
    Vocabulary {
        /// Ids of the tokenizer.
        tokenizer: usize,
        /// Rows of the model's token tables.
        model: usize,
    },
    /// A number of guessed tokens where guesses cannot be verified.
    #[error(
        "guessed tokens: the model or the device cannot verify them with equal results; models with a \
         T5 token decoder, and devices other than flex, decode without guesses"
    )]
    Speculation,
    /// N-grams of another tokenizer.
    #[error(
        "n-grams: token id {id} is outside the model's vocabulary of {vocab}; count them with the tokenizer \
         the model was trained with"
    )]
    NGrams {
        /// The id.
        id: u32,
        /// Ids in the model's vocabulary.
        vocab: usize,
    },
    /// A cache of integers on a device without it.
    #[error("only the device flex has caches of integers; use f32 or bf16")]
    IntegerCache,
    /// A prompt that cannot be encoded.
    #[error(transparent)]
    Text(#[from] TextError),
    /// More new tokens than a cache can have positions.
    #[error("max_tokens {0}: a sequence has at most {most} positions", most = i32::MAX)]
    MaxTokens(usize),
    /// A sequence longer than the engine's limit.
    #[error(
        "prompt {prompt}: {tokens} tokens with its continuation, but a sequence can have {limit}; \
         shorten the prompt or generate fewer tokens"
    )]
    TooLong {
        /// [`Options::rng_stream`](crate::Options::rng_stream) of the prompt.
        prompt: usize,
        /// Tokens of prompt and continuation.
        tokens: usize,
        /// [`Limits::max_tokens`](crate::Limits::max_tokens).
        limit: usize,
    },
    /// Limits without room for a sequence.
    #[error("an engine needs room for at least one sequence of two tokens")]
    NoRoom,
    /// Less memory than one sequence needs.
    #[error(
        "{given} bytes hold no sequence of {tokens} tokens, which needs {needed} bytes, {weights} \
         of them for the model's weights: allow more memory or fewer tokens"
    )]
    Memory {
        /// Bytes that may be used.
        given: u64,
        /// Tokens of the sequence.
        tokens: usize,
        /// Bytes needed for one such sequence.
        needed: u64,
        /// Bytes of the weights.
        weights: u64,
    },
    /// Logits without a finite value.
    #[error(
        "prompt {prompt}: the model's logits are not finite; its weights are damaged or its \
         training diverged: use an earlier checkpoint"
    )]
    NotFinite {
        /// [`Options::rng_stream`](crate::Options::rng_stream) of the prompt.
        prompt: usize,
    },
    /// The logits could not be read from the device.
    #[error("the logits cannot be read from the device")]
    Device(#[source] Box<dyn std::error::Error + Send + Sync>),
}
