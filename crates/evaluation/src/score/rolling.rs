//! Splits a document that is longer than the context, so that each token is predicted once.

use block_transformer_text::EOS;

use crate::score::request::Request;

/// Splits a document into requests. The continuations of all requests, joined in order, are `ids`.
///
/// The first request has EOS as its context. Every later request predicts `context` new tokens
/// after one token of context. If fewer new tokens are left for the last request, its context fills
/// the rest of the window. These are the windows of the EleutherAI harness
/// (`get_rolling_token_windows` with `context_len` 1, then `make_disjoint_window`).
///
/// # Panics
/// When `context` is 0.
pub fn rolling_windows(ids: &[u32], context: usize) -> Vec<Request> {
    assert!(context > 0, "windows need at least one token of context");
    (0..ids.len().div_ceil(context)).map(|i| rolling_window(ids, context, i)).collect()
}

/// Request `i` of [`rolling_windows`].
pub(crate) fn rolling_window(ids: &[u32], context: usize, i: usize) -> Request {
    let done = i * context;
    let end = (done + context).min(ids.len());
    let before = match done {
        0 => vec![EOS],
        // context and continuation together have `context + 1` tokens: the last one is a target only
        _ => ids[end - context - 1..done].to_vec(),
    };
    Request { context: before, continuation: ids[done..end].to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(length: u32, context: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
        let ids: Vec<u32> = (10..10 + length).collect();
        rolling_windows(&ids, context).into_iter().map(|r| (r.context, r.continuation)).collect()
    }

    #[test]
    fn each_token_is_predicted_once_and_windows_are_full() {
        assert_eq!(pairs(0, 4), []);
        assert_eq!(pairs(3, 4), [(vec![0], vec![10, 11, 12])]);
        assert_eq!(pairs(4, 4), [(vec![0], vec![10, 11, 12, 13])]);
        let first = (vec![0], vec![10, 11, 12, 13]);
        assert_eq!(pairs(8, 4), [first.clone(), (vec![13], vec![14, 15, 16, 17])]);
        assert_eq!(pairs(6, 4), [first, (vec![11, 12, 13], vec![14, 15])]);
        assert_eq!(pairs(2, 1), [(vec![0], vec![10]), (vec![10], vec![11])]);
    }
}
