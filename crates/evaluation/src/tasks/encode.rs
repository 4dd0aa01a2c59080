//! Encoding prompts as token ids.

use block_transformer_text::{EOS, Tokenizer};

use crate::error::EvalError;
use crate::score::Request;
use crate::tasks::item::Prompt;
use crate::tasks::python;

/// Checks that a model with a vocabulary of `vocab_size` ids can read the tokens of `tokenizer`.
///
/// # Errors
/// When the tokenizer has more ids than the model.
pub fn check_tokenizer(tokenizer: &Tokenizer, vocab_size: usize) -> Result<(), EvalError> {
    match tokenizer.vocab_size() {
        ids if ids > vocab_size => Err(EvalError::Vocabulary { tokenizer: ids, model: vocab_size }),
        _ => Ok(()),
    }
}

/// Encodes prompts as the EleutherAI harness does: white space at the end of a context moves to the
/// continuation, and both are encoded as one text. The first `len(encode(context))` tokens are the
/// context, and the rest are the continuation. EOS stands for an empty context.
///
/// # Errors
/// When the tokenizer rejects a text, or merges a continuation completely into the last token of
/// the context.
pub fn encode(tokenizer: &Tokenizer, prompts: &[Prompt]) -> Result<Vec<Request>, EvalError> {
    let whole: Vec<String> =
        prompts.iter().map(|prompt| prompt.context.clone() + &prompt.continuation).collect();
    let whole = tokenizer.encode_batch(&whole)?;
    // the options of a question share their context, which is encoded once
    let mut contexts: Vec<String> = Vec::new();
    let mut indices = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let context = prompt.context.trim_end_matches(python::is_space);
        if contexts.last().is_none_or(|last| last != context) {
            contexts.push(context.into());
        }
        indices.push(contexts.len() - 1);
    }
    let lengths: Vec<usize> = tokenizer.encode_batch(&contexts)?.iter().map(Vec::len).collect();
    let mut requests = Vec::with_capacity(prompts.len());
    for ((mut ids, index), prompt) in whole.into_iter().zip(indices).zip(prompts) {
        let context_length = match lengths[index] {
            0 if ids.first() != Some(&EOS) => {
                ids.insert(0, EOS);
                1
            }
            length => length.max(1),
        };
        if ids.len() <= context_length {
            return Err(EvalError::NoTokens(prompt.continuation.clone()));
        }
        let continuation = ids.split_off(context_length);
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
    fn blanks_go_to_the_continuation_and_eos_stands_for_an_empty_context() {
        assert_eq!(one("a b", " c").unwrap(), (bytes("a b"), bytes(" c")));
        assert_eq!(one("a \n", "c").unwrap(), (bytes("a"), bytes(" \nc")));
        assert_eq!(one("", " c").unwrap(), (vec![EOS], bytes(" c")));
        assert!(matches!(one("a", ""), Err(EvalError::NoTokens(_))));
        assert!(matches!(one("", ""), Err(EvalError::NoTokens(_))));
    }

    #[test]
    fn options_that_share_a_context_all_get_it() {
        let texts = [("a", " x"), ("a", " y"), ("bc", " x"), ("a", "z")];
        let prompts = texts.map(|(context, continuation)| Prompt {
            context: context.into(),
            continuation: continuation.into(),
        });
        let requests = encode(&Tokenizer::Bytes, &prompts).unwrap();
        for (request, (context, continuation)) in requests.iter().zip(texts) {
            assert_eq!(request.context, bytes(context));
            assert_eq!(request.continuation, bytes(continuation));
        }
    }
}
