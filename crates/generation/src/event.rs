//! Sequences and the events of a decoding step.

use block_transformer_layers::TokenLogProbs;

/// Identifies a sequence of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub(crate) u64);

impl SequenceId {
    /// Returns how many sequences were submitted to the engine before this one.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Something that happened to a sequence in a step of an [`Engine`](crate::Engine).
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The model chose the sequence's next token.
    Token {
        /// The sequence.
        id: SequenceId,
        /// The token.
        token: u32,
        /// Log-probabilities before temperature, bias and penalties, if
        /// [`Options::logprobs`](crate::Options::logprobs) asks for them.
        logprobs: Option<Box<TokenLogProbs>>,
    },
    /// The sequence ended; no event of it follows.
    Finished {
        /// The sequence.
        id: SequenceId,
        /// The reason.
        reason: Finish,
    },
}

impl Event {
    /// Returns the sequence that the event belongs to.
    pub fn id(&self) -> SequenceId {
        match self {
            Self::Token { id, .. } | Self::Finished { id, .. } => *id,
        }
    }
}

/// The reason why a sequence ended.
///
/// [`Engine`](crate::Engine) reports `Length`, `Eos`, `Stop` and `NotFinite`;
/// [`TextEngine`](crate::TextEngine) reports all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The sequence has [`Options::max_tokens`](crate::Options::max_tokens) new tokens.
    Length,
    /// The model chose [`Options::eos`](crate::Options::eos), which is not reported as a token.
    Eos,
    /// The model chose one of [`Options::stop_tokens`](crate::Options::stop_tokens), or the text contained a stop string.
    Stop,
    /// The caller cancelled the sequence.
    Cancelled,
    /// No logit of an allowed token is finite: the weights are damaged.
    NotFinite,
}
