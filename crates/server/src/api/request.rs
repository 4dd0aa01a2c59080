//! The body of `POST /v1/completions`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Unexpected, Visitor};
use utoipa::ToSchema;

use crate::api::schema;

/// What a prompt can be.
const PROMPTS: &str =
    "a string, a list of strings, a list of token ids, or a list of lists of token ids";

/// A request to continue prompts. Fields that are not listed are ignored, and `null` is the same as leaving a field
/// out.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct CompletionRequest {
    /// A model of `/v1/models`; by default the first.
    pub model: Option<String>,
    /// The texts to continue, or their token ids. The answer has `n` choices for each.
    #[schema(required = true, schema_with = schema::prompt)]
    pub prompt: Option<PromptField>,
    /// A text, or its token ids, before every prompt. Its caches are kept for later requests. It is padded on its own
    /// to whole blocks, so that a block model continues it with the same block limits after any prompt.
    #[schema(schema_with = schema::text_or_ids)]
    pub prefix: Option<TextOrIds>,
    /// The largest number of new tokens. With 0, nothing is generated: `echo` with `logprobs` then scores the prompt.
    #[schema(default = 16, minimum = 0)]
    pub max_tokens: Option<u32>,
    /// Divides the logits. With 0, the most likely token is chosen.
    #[schema(default = 1.0, minimum = 0)]
    pub temperature: Option<f64>,
    /// Draws from the smallest set of most likely tokens with at least this probability.
    #[schema(default = 1.0, exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Draws from this many of the most likely tokens; 0 and -1 draw from all.
    #[schema(default = -1, minimum = -1)]
    pub top_k: Option<i32>,
    /// Draws from the tokens with at least this part of the largest probability.
    #[schema(default = 0.0, minimum = 0, maximum = 1)]
    pub min_p: Option<f64>,
    /// Subtracted from the logits of tokens that the continuation contains.
    #[schema(default = 0.0, minimum = -2, maximum = 2)]
    pub presence_penalty: Option<f64>,
    /// Subtracted from the logit of a token for each time that the continuation contains it.
    #[schema(default = 0.0, minimum = -2, maximum = 2)]
    pub frequency_penalty: Option<f64>,
    /// Values, from -100 to 100, that are added to the logits of token ids.
    #[schema(schema_with = schema::logit_bias)]
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// The same request with the same seed has the same answer, whatever else the server does. By default, the seed
    /// is random.
    #[schema(schema_with = schema::seed)]
    pub seed: Option<Seed>,
    /// Choices for each prompt.
    #[schema(default = 1, minimum = 1, maximum = 1024)]
    pub n: Option<u32>,
    /// Choices to generate for each prompt, of which the `n` with the largest mean log-probability are returned.
    #[schema(minimum = 1, maximum = 1024)]
    pub best_of: Option<u32>,
    /// Texts that end a choice and are not part of it.
    #[schema(schema_with = schema::stop)]
    pub stop: Option<StopField>,
    /// Token ids that end a choice and are not part of it.
    #[schema(max_items = 1024)]
    pub stop_token_ids: Option<Vec<u32>>,
    /// Continues after the model has ended the document.
    #[schema(default = false)]
    pub ignore_eos: Option<bool>,
    /// Returns the prompt too, before the continuation.
    #[schema(default = false)]
    pub echo: Option<bool>,
    /// Returns the log-probability of each token, and of this many of the most likely tokens.
    #[schema(minimum = 0, maximum = 20)]
    pub logprobs: Option<u32>,
    /// Writes tokens in `logprobs` as `token_id:7` instead of their texts.
    #[schema(default = false)]
    pub return_tokens_as_token_ids: Option<bool>,
    /// Returns text as it is generated, as server-sent events.
    #[schema(default = false)]
    pub stream: Option<bool>,
    /// Options of `stream`.
    pub stream_options: Option<StreamOptions>,
    /// A text after the continuation. The models cannot fill gaps: only an empty text is accepted.
    #[schema(max_length = 0)]
    pub suffix: Option<String>,
}

/// A seed of 64 bits. Negative numbers are seeds too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(pub u64);

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SeedVisitor)
    }
}

struct SeedVisitor;

impl Visitor<'_> for SeedVisitor {
    type Value = Seed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of 64 bits")
    }

    fn visit_i64<E>(self, value: i64) -> Result<Seed, E> {
        Ok(Seed(value.cast_unsigned()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Seed, E> {
        Ok(Seed(value))
    }
}

/// Texts or token ids.
#[derive(Clone, Debug)]
pub(crate) enum PromptField {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    Lists(Vec<Vec<u32>>),
}

impl<'de> Deserialize<'de> for PromptField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PromptVisitor)
    }
}

/// Reads prompts as they come. The lists of an untagged enum would be kept in a form of their own first, which needs many
/// times their memory.
struct PromptVisitor;

impl<'de> Visitor<'de> for PromptVisitor {
    type Value = PromptField;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PROMPTS)
    }

    fn visit_str<E>(self, text: &str) -> Result<PromptField, E> {
        Ok(PromptField::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<PromptField, A::Error> {
        let mut field = match list.next_element()? {
            None => return Ok(PromptField::Texts(Vec::new())),
            Some(Item::Text(text)) => PromptField::Texts(vec![text]),
            Some(Item::Id(id)) => PromptField::Ids(vec![id]),
            Some(Item::Ids(ids)) => PromptField::Lists(vec![ids]),
        };
        while let Some(item) = list.next_element()? {
            match (&mut field, item) {
                (PromptField::Texts(texts), Item::Text(text)) => texts.push(text),
                (PromptField::Ids(ids), Item::Id(id)) => ids.push(id),
                (PromptField::Lists(lists), Item::Ids(ids)) => lists.push(ids),
                _ => return Err(A::Error::custom(format_args!("must be {PROMPTS}"))),
            }
        }
        Ok(field)
    }
}

/// An element of a list of prompts.
enum Item {
    Text(String),
    Id(u32),
    Ids(Vec<u32>),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token id, or a list of token ids")
    }

    fn visit_str<E>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Text(text.into()))
    }

    fn visit_u64<E: Error>(self, id: u64) -> Result<Item, E> {
        u32::try_from(id)
            .map(Item::Id)
            .map_err(|_| E::invalid_value(Unexpected::Unsigned(id), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
        let mut ids = Vec::new();
        while let Some(id) = list.next_element()? {
            ids.push(id);
        }
        Ok(Item::Ids(ids))
    }
}

/// A text or token ids.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "must be a string or a list of token ids")]
pub(crate) enum TextOrIds {
    Text(String),
    Ids(Vec<u32>),
}

/// One text or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "must be a string or a list of strings")]
pub(crate) enum StopField {
    One(String),
    Many(Vec<String>),
}

/// Options of a stream.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct StreamOptions {
    /// Sends the numbers of tokens of all choices before the end.
    pub include_usage: Option<bool>,
    /// Sends the numbers of tokens of a choice so far with each of its events.
    pub continuous_usage_stats: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_texts_or_ids_and_seeds_have_64_bits() {
        for body in ["\"a\"", "[\"a\", \"b\"]", "[]", "[1, 2]", "[[1, 2], [], [3]]"] {
            let request: CompletionRequest =
                serde_json::from_str(&format!("{{\"prompt\": {body}}}")).unwrap();
            let written = match request.prompt.unwrap() {
                PromptField::Text(text) => format!("{text:?}"),
                PromptField::Texts(texts) => format!("{texts:?}"),
                PromptField::Ids(ids) => format!("{ids:?}"),
                PromptField::Lists(lists) => format!("{lists:?}"),
            };
            assert_eq!(written, body);
        }
        for (text, seed) in [("-1", u64::MAX), ("18446744073709551615", u64::MAX), ("7", 7)] {
            let request: CompletionRequest =
                serde_json::from_str(&format!("{{\"seed\": {text}}}")).unwrap();
            assert_eq!(request.seed, Some(Seed(seed)));
        }
    }
}
