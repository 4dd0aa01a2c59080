//! Texts of single tokens and of prompts, with special tokens.

use std::ops::Deref;

use block_transformer_text::{EOS, PAD, StreamDecoder, TextError, Tokenizer};

/// The text of every token, by id.
#[derive(Debug)]
pub(crate) struct TokenTexts(Vec<String>);

impl TokenTexts {
    /// The texts of the ids of `tokenizer`, of which a model has `vocab`.
    pub(crate) fn new(tokenizer: &Tokenizer, vocab: usize) -> Self {
        Self((0..vocab as u32).map(|id| Self::of(tokenizer, id)).collect())
    }

    /// The text of one token.
    pub(crate) fn of(tokenizer: &Tokenizer, id: u32) -> String {
        match special(id).unwrap_or(&tokenizer.decode(&[id])) {
            "" => id_text(id),
            text => text.to_string(),
        }
    }

    /// The text of a token. It is not empty: a token without a text has its id.
    pub(crate) fn text(&self, id: u32, as_id: bool) -> String {
        let known = self.0.get(id as usize).filter(|_| !as_id);
        known.map_or_else(|| id_text(id), Clone::clone)
    }
}

/// The text of a token that shows its id.
fn id_text(id: u32) -> String {
    format!("token_id:{id}")
}

/// The text of a special token.
fn special(id: u32) -> Option<&'static str> {
    match id {
        EOS => Some(Tokenizer::EOS_TEXT),
        PAD => Some(Tokenizer::PAD_TEXT),
        _ => None,
    }
}

/// Returns the ids of a text, or `None` if there are more than `most`. The text of EOS alone is EOS also for a tokenizer
/// that finds no special tokens in texts: clients ask for its id in this way.
pub(crate) fn encode(
    tokenizer: &Tokenizer,
    text: &str,
    most: usize,
) -> Result<Option<Vec<u32>>, TextError> {
    // not in parallel, because the threads of the pool can be busy
    match tokenizer {
        Tokenizer::Bytes if text == Tokenizer::EOS_TEXT => Ok(Some(vec![EOS])),
        tokenizer => tokenizer.encode_up_to(text, most),
    }
}

/// Decodes ids one at a time, and counts the characters of the text.
#[derive(Debug)]
pub(crate) struct CountingDecoder<T> {
    tokenizer: T,
    decoder: StreamDecoder<T>,
    /// Whether special tokens have a text.
    shows_special: bool,
    characters: usize,
}

impl<T: Deref<Target = Tokenizer> + Clone> CountingDecoder<T> {
    /// A decoder of a text that starts after `characters` characters.
    pub(crate) fn new(tokenizer: T, shows_special: bool, characters: usize) -> Self {
        let decoder = StreamDecoder::new(tokenizer.clone());
        Self { tokenizer, decoder, shows_special, characters }
    }

    /// The characters so far. If the tokens end in an incomplete character, it is not counted.
    pub(crate) fn characters(&self) -> usize {
        self.characters
    }

    /// Adds the next token. Returns the characters before its text, and the text that is complete now.
    pub(crate) fn push(&mut self, id: u32) -> (usize, String) {
        let before = self.characters;
        let text = match special(id).filter(|_| self.shows_special) {
            Some(special) => {
                let rest = self.decoder.finish();
                self.decoder = StreamDecoder::new(self.tokenizer.clone());
                rest + special
            }
            None => self.decoder.push(id),
        };
        self.characters += text.chars().count();
        if !text.starts_with(char::REPLACEMENT_CHARACTER) {
            return (before, text);
        }
        // an incomplete character has been given up, which belongs to earlier tokens
        let own = self.tokenizer.decode(&[id]);
        let is_after = text.len() > own.len() && text.ends_with(&own);
        let start = if is_after { self.characters - own.chars().count() } else { before };
        (start, text)
    }

    /// Returns the rest of the text.
    pub(crate) fn finish(&mut self) -> String {
        let rest = self.decoder.finish();
        self.decoder = StreamDecoder::new(self.tokenizer.clone());
        self.characters += rest.chars().count();
        rest
    }
}

/// The text of `ids` with special tokens, and the number of characters before each of them.
pub(crate) fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> (String, Vec<usize>) {
    let mut decoder = CountingDecoder::new(tokenizer, true, 0);
    let mut text = String::new();
    let mut offsets = Vec::with_capacity(ids.len());
    for &id in ids {
        let (offset, more) = decoder.push(id);
        offsets.push(offset);
        text += &more;
    }
    text += &decoder.finish();
    (text, offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<u32> {
        Tokenizer::Bytes.encode(text).unwrap()
    }

    #[test]
    fn offsets_count_characters_and_special_tokens_have_a_text() {
        let mut tokens = ids("aé");
        tokens.push(EOS);
        tokens.extend(ids("b"));
        let (text, offsets) = decode(&Tokenizer::Bytes, &tokens);
        assert_eq!(text, "aé<|endoftext|>b");
        // both bytes of é start after one character
        assert_eq!(offsets, [0, 1, 1, 2, 15]);
        let (text, offsets) = decode(&Tokenizer::Bytes, &ids("日")[..2]);
        assert_eq!((text.as_str(), &offsets[..]), ("\u{FFFD}", &[0, 0][..]));
        assert_eq!(decode(&Tokenizer::Bytes, &[]), (String::new(), Vec::new()));
        // a character that is given up belongs to the first token
        let broken = [&ids("日")[..2], &ids("xy")].concat();
        let (text, offsets) = decode(&Tokenizer::Bytes, &broken);
        assert_eq!((text.as_str(), &offsets[..]), ("\u{FFFD}xy", &[0, 0, 1, 2][..]));
    }

    #[test]
    fn every_token_has_a_text() {
        let texts = TokenTexts::new(&Tokenizer::Bytes, 300);
        assert_eq!(texts.text(EOS, false), "<|endoftext|>");
        assert_eq!(texts.text(u32::from(b'a') + 2, false), "a");
        assert_eq!(texts.text(u32::from(b'a') + 2, true), "token_id:99");
        assert_eq!(texts.text(299, false), "token_id:299");
        assert_eq!(texts.text(5000, false), "token_id:5000");
        assert_eq!(texts.text(0xE6 + 2, false), "\u{FFFD}");
    }
}
