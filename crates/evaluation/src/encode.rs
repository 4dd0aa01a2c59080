//! Text to requests.

use block_transformer_text::Tokenizer;

use crate::{EOS, EvalError, Request, python};

/// A continuation to score, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What stands before it; may be empty.
    pub context: String,
    /// The text to score, with the white space that parts it from the context.
    pub continuation: String,
}

/// The requests of `prompts`, cut into tokens as the EleutherAI harness does: blanks at the end of
/// a context belong to its continuation, both are tokenized as one text, and the continuation's
/// tokens are those after as many as the context has alone. EOS stands for an empty context.
///
/// # Errors
/// When the tokenizer refuses a text, or a continuation has no tokens of its own.
pub fn encode(tokenizer: &Tokenizer, prompts: &[Prompt]) -> Result<Vec<Request>, EvalError> {
    let whole: Vec<String> =
        prompts.iter().map(|prompt| prompt.context.clone() + &prompt.continuation).collect();
    let whole = tokenizer.encode_batch(&whole)?;
    // the options of a question share their context
    let mut contexts: Vec<String> = Vec::new();
    let mut which = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let context = prompt.context.trim_end_matches(python::is_space);
        if contexts.last().is_none_or(|last| last != context) {
            contexts.push(context.into());
        }
        which.push(contexts.len() - 1);
    }
    let lengths: Vec<usize> = tokenizer.encode_batch(&contexts)?.iter().map(Vec::len).collect();
    let mut requests = Vec::with_capacity(prompts.len());
    for ((mut ids, at), prompt) in whole.into_iter().zip(which).zip(prompts) {
        // of an empty context, and EOS in front of the continuation
        let known = match lengths[at] {
            0 if ids.first() != Some(&EOS) => {
                ids.insert(0, EOS);
                1
            }
            length => length.max(1),
        };
        if ids.len() <= known {
            return Err(EvalError::NoTokens { text: prompt.continuation.clone() });
        }
        let continuation = ids.split_off(known);
        requests.push(Request { context: ids, continuation });
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(context: &str, continuation: &str) -> Result<(Vec<u32>, Vec<u32>), EvalError> {
        let prompt = Prompt { context: context.into(), continuation: continuation.into() };
        let request = encode(&Tokenizer::Bytes, &[prompt])?.remove(0);
        Ok((request.context, request.continuation))
    }

    fn bytes(text: &str) -> Vec<u32> {
        text.bytes().map(|byte| u32::from(byte) + 2).collect()
    }

    #[test]
    fn blanks_go_to_the_continuation_and_eos_stands_for_nothing() {
        assert_eq!(one("a b", " c").unwrap(), (bytes("a b"), bytes(" c")));
        assert_eq!(one("a \n", "c").unwrap(), (bytes("a"), bytes(" \nc")));
        assert_eq!(one("", " c").unwrap(), (vec![EOS], bytes(" c")));
        assert!(matches!(one("a", ""), Err(EvalError::NoTokens { .. })));
        assert!(matches!(one("", ""), Err(EvalError::NoTokens { .. })));
    }

    #[test]
    fn options_that_share_a_context_get_it() {
        let prompt = |context: &str, continuation: &str| Prompt {
            context: context.into(),
            continuation: continuation.into(),
        };
        let prompts = [prompt("a", " x"), prompt("a", " y"), prompt("bc", " x"), prompt("a", "z")];
        let requests = encode(&Tokenizer::Bytes, &prompts).unwrap();
        for (request, prompt) in requests.iter().zip(&prompts) {
            assert_eq!(request.context, bytes(&prompt.context));
            assert_eq!(request.continuation, bytes(&prompt.continuation));
        }
    }
}
