//! Decoding of ids to text, one id at a time.

use std::ops::Deref;

use crate::tokenizer::Tokenizer;

/// Ids that are kept at most while their text ends in an incomplete character. A character has at most 4 bytes, and an id
/// at least one. More are kept so that most texts are cut where a character is complete.
const MOST_KEPT: usize = 16;
/// Ids that an incomplete character can need as context, with one before them.
const CONTEXT: usize = 4;

/// Decodes ids one at a time and holds back bytes that do not form a complete character yet. `T` is
/// a reference to a tokenizer or an `Arc` of a tokenizer.
#[derive(Debug)]
pub struct StreamDecoder<T> {
    tokenizer: T,
    ids: Vec<u32>,
    /// Index of the first id that is still needed as context; the text of the ids before it has
    /// been returned.
    settled: usize,
    /// Number of bytes of the text of `ids[settled..]` that were already returned.
    returned: usize,
}

impl<T: Deref<Target = Tokenizer>> StreamDecoder<T> {
    /// Creates a decoder at the start of a text.
    pub fn new(tokenizer: T) -> Self {
        Self { tokenizer, ids: Vec::new(), settled: 0, returned: 0 }
    }

    /// Adds the next id and returns the text that is complete now, which can be empty.
    pub fn push(&mut self, id: u32) -> String {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids[self.settled..]);
        if let Some(certain) = text.strip_suffix('\u{FFFD}') {
            if self.ids.len() - self.settled <= MOST_KEPT {
                return String::new();
            }
            // only the last replacement character can become another one; without this, the time for ids that are
            // no characters would grow with their square
            let new = certain.get(self.returned..).unwrap_or_default().to_string();
            self.settled = self.ids.len() - CONTEXT;
            let kept = self.tokenizer.decode(&self.ids[self.settled..]);
            self.returned = kept.strip_suffix('\u{FFFD}').unwrap_or(&kept).len();
            return new;
        }
        let new = text.get(self.returned..).unwrap_or_default().to_string();
        // one id is kept as context, because some tokenizers decode the first id of a text
        // differently
        self.settled = self.ids.len() - 1;
        self.returned = self.tokenizer.decode(&self.ids[self.settled..]).len();
        new
    }

    /// Returns the rest of the text, with incomplete characters as U+FFFD.
    pub fn finish(&self) -> String {
        let text = self.tokenizer.decode(&self.ids[self.settled..]);
        text.get(self.returned..).unwrap_or_default().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static BPE: LazyLock<Tokenizer> = LazyLock::new(|| {
        let texts = ["naïve 日本語 🦀 the end, the end of the 日本 🦀🦀".repeat(9)];
        Tokenizer::train_bpe(texts.into_iter(), 300).unwrap()
    });

    #[test]
    fn a_long_run_of_bytes_that_are_no_characters_is_returned_before_its_end() {
        for byte in [0x80_u32, 0xE6, 0xFF] {
            let ids = vec![byte + 2; 100_000];
            let mut decoder = StreamDecoder::new(&Tokenizer::Bytes);
            let mut pieces: String = ids[..1000].iter().map(|&id| decoder.push(id)).collect();
            assert!(pieces.chars().count() > 980, "{byte}");
            pieces.extend(ids[1000..].iter().map(|&id| decoder.push(id)));
            pieces += &decoder.finish();
            assert_eq!(pieces, "\u{FFFD}".repeat(ids.len()));
        }
    }

    proptest! {
        #[test]
        fn the_pieces_of_long_runs_are_their_text(
            bytes in prop::collection::vec(prop::sample::select(vec![0x80_u32, 0x97, 0xA5, 0xE6, 0xF0, 0x9F, 0xFF]), 0..80),
            raw: bool,
        ) {
            let tokenizer = if raw { &Tokenizer::Bytes } else { &*BPE };
            // the BPE has its bytes in another order, so that most of these are parts of characters there too
            let ids: Vec<u32> = bytes.into_iter().map(|byte| byte + 2).collect();
            let mut decoder = StreamDecoder::new(tokenizer);
            let mut pieces: String = ids.iter().map(|&id| decoder.push(id)).collect();
            pieces.push_str(&decoder.finish());
            prop_assert_eq!(pieces, tokenizer.decode(&ids));
        }

        /// Ids may be special ids and incomplete characters, as a model can generate them.
        #[test]
        fn the_pieces_of_any_ids_are_their_text(
            bytes in prop::collection::vec(0_u32..300, 0..40),
            raw: bool,
        ) {
            let tokenizer = if raw { &Tokenizer::Bytes } else { &*BPE };
            let mut decoder = StreamDecoder::new(tokenizer);
            let mut pieces: String = bytes.iter().map(|&id| decoder.push(id)).collect();
            pieces.push_str(&decoder.finish());
            prop_assert_eq!(pieces, tokenizer.decode(&bytes));
        }
    }

    #[test]
    fn pieces_are_complete_characters_and_the_rest_a_replacement_character() {
        let text = "naïve 日本 🦀 end";
        let tokenizer = Tokenizer::Bytes;
        let mut decoder = StreamDecoder::new(&tokenizer);
        let mut push = |id| decoder.push(id);
        let pieces: String = tokenizer.encode(text).unwrap().into_iter().map(&mut push).collect();
        assert_eq!(pieces, text);
        assert_eq!(push(0xE6 + 2), "");
        assert_eq!(decoder.finish(), "\u{FFFD}");
    }
}
