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
    /// Characters of the text that was returned.
    characters: usize,
    /// The last tokens, if they end in an incomplete character, from a place between two characters on.
    held: Vec<u32>,
    /// Characters before them.
    before: usize,
}

impl<T: Deref<Target = Tokenizer> + Clone> CountingDecoder<T> {
    /// A decoder of a text that starts after `characters` characters.
    pub(crate) fn new(tokenizer: T, shows_special: bool, characters: usize) -> Self {
        let decoder = StreamDecoder::new(tokenizer.clone());
        let held = Vec::new();
        Self { tokenizer, decoder, shows_special, characters, held, before: characters }
    }

    /// Adds the next token. Returns the number of characters before the one in which it begins, and the text that is complete
    /// now.
    pub(crate) fn push(&mut self, id: u32) -> (usize, String) {
        if let Some(special) = special(id).filter(|_| self.shows_special) {
            let rest = self.finish();
            let start = self.characters;
            self.characters += special.chars().count();
            self.before = self.characters;
            return (start, rest + special);
        }
        let own = self.tokenizer.decode(&[id]).chars().count();
        let held = self.tokenizer.decode(&self.held).chars().count();
        let joined = [&self.held[..], &[id]].concat();
        let joined = self.tokenizer.decode(&joined);
        // one character less than apart: the incomplete one goes on
        let goes_on = joined.chars().count() < held + own;
        let start = self.before + held - usize::from(goes_on);
        let text = self.decoder.push(id);
        self.characters += text.chars().count();
        if !joined.ends_with(char::REPLACEMENT_CHARACTER) {
            self.held.clear();
            self.before = self.characters;
        } else if goes_on {
            self.held.push(id);
        } else {
            self.before += held;
            self.held = vec![id];
        }
        (start, text)
    }

    /// Returns the rest of the text.
    pub(crate) fn finish(&mut self) -> String {
        let rest = self.decoder.finish();
        self.decoder = StreamDecoder::new(self.tokenizer.clone());
        self.characters += rest.chars().count();
        self.held.clear();
        self.before = self.characters;
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
    }

    #[test]
    fn offsets_are_those_of_the_characters_of_the_text() {
        let part = |text: &str, bytes: usize| ids(text)[..bytes].to_vec();
        for (parts, expected, offsets) in [
            (vec![part("日", 2), ids("xy")], "\u{FFFD}xy", &[0, 0, 1, 2][..]),
            (
                vec![ids("a"), part("日", 2), vec![EOS], ids("a")],
                "a\u{FFFD}<|endoftext|>a",
                &[0, 1, 1, 2, 15],
            ),
            (vec![ids("a"), part("日", 1), ids("é")], "a\u{FFFD}é", &[0, 1, 2, 2]),
            (vec![ids("a"), part("日", 2), ids("日a")], "a\u{FFFD}日a", &[0, 1, 1, 2, 2, 2, 3]),
            (
                vec![ids("a"), vec![0x80 + 2; 3], ids("a")],
                "a\u{FFFD}\u{FFFD}\u{FFFD}a",
                &[0, 1, 2, 3, 4],
            ),
        ] {
            let (text, found) = decode(&Tokenizer::Bytes, &parts.concat());
            assert_eq!((text.as_str(), &found[..]), (expected, offsets));
        }
        // more bytes than are held back
        let (_, offsets) = decode(&Tokenizer::Bytes, &vec![0xE6 + 2; 100]);
        assert_eq!(offsets, (0..100).collect::<Vec<_>>());
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
