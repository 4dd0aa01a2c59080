//! Log-probabilities in the shape of the first completions interface of OpenAI.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::token_text::TokenTexts;

/// In place of minus infinity, which JSON does not have.
const LOWEST: f64 = -9999.0;

/// Log-probabilities of tokens; all lists have an element for each token.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Logprobs {
    /// The tokens.
    tokens: Vec<String>,
    /// Their log-probabilities; `null` for the first token of a prompt.
    token_logprobs: Vec<Option<f64>>,
    /// The most likely tokens in falling order, and the token itself; `null` for the first token of a prompt.
    #[schema(value_type = Vec<Option<std::collections::BTreeMap<String, f64>>>)]
    top_logprobs: Vec<Option<Top>>,
    /// Characters of the text before each token.
    text_offset: Vec<usize>,
}

/// Log-probabilities by token, in this order.
#[derive(Clone, Debug, Default)]
struct Top(Vec<(String, f64)>);

impl Serialize for Top {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, value) in &self.0 {
            map.serialize_entry(token, value)?;
        }
        map.end()
    }
}

impl Top {
    /// Adds a token. Of several with the same text, the first stays, which is the most likely one.
    fn add(&mut self, token: String, value: f64) {
        if self.0.iter().all(|(known, _)| *known != token) {
            self.0.push((token, value));
        }
    }
}

impl Logprobs {
    /// Adds a token without a prediction.
    pub(crate) fn add_first(&mut self, token: String, offset: usize) {
        self.tokens.push(token);
        self.token_logprobs.push(None);
        self.top_logprobs.push(None);
        self.text_offset.push(offset);
    }

    /// Adds a token with its log-probability and those of the most likely tokens, in falling order.
    pub(crate) fn add(
        &mut self,
        (token, log_prob): (u32, f64),
        top: &[(u32, f64)],
        offset: usize,
        texts: &TokenTexts,
        as_ids: bool,
    ) {
        let text = texts.text(token, as_ids);
        let log_prob = log_prob.max(LOWEST);
        let mut map = Top::default();
        for &(id, value) in top {
            map.add(texts.text(id, as_ids), value.max(LOWEST));
        }
        map.add(text.clone(), log_prob);
        self.tokens.push(text);
        self.token_logprobs.push(Some(log_prob));
        self.top_logprobs.push(Some(map));
        self.text_offset.push(offset);
    }

    /// Appends those of later tokens.
    pub(crate) fn append(&mut self, later: Self) {
        let Self { tokens, token_logprobs, top_logprobs, text_offset } = later;
        self.tokens.extend(tokens);
        self.token_logprobs.extend(token_logprobs);
        self.top_logprobs.extend(top_logprobs);
        self.text_offset.extend(text_offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_transformer_text::Tokenizer;

    #[test]
    fn tokens_with_one_text_keep_the_larger_value_and_infinity_is_a_number() {
        let texts = TokenTexts::new(&Tokenizer::Bytes, 258);
        let mut logprobs = Logprobs::default();
        logprobs.add_first("a".into(), 0);
        // three bytes that are no characters, and one that is
        let top = [(0xE6 + 2, -0.5), (0x62 + 2, -1.25), (0xE7 + 2, -2.0)];
        logprobs.add((0xE8 + 2, f64::NEG_INFINITY), &top, 1, &texts, false);
        logprobs.add((0x63 + 2, -3.1), &top[..1], 1, &texts, true);
        assert_eq!(
            serde_json::to_string(&logprobs).unwrap(),
            "{\"tokens\":[\"a\",\"\u{FFFD}\",\"token_id:101\"],\"token_logprobs\":[null,-9999.0,-3.1],\
             \"top_logprobs\":[null,{\"\u{FFFD}\":-0.5,\"b\":-1.25},{\"token_id:232\":-0.5,\"token_id:101\":-3.1}],\
             \"text_offset\":[0,1,1]}"
        );
    }
}
