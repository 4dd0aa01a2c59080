//! Ids to text one at a time.

use crate::Tokenizer;

/// Decodes ids as they come and holds back bytes that are no whole character yet.
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// Ids before this one are already text that was given out and only serve as context.
    settled: usize,
    given: usize,
}

impl<'a> StreamDecoder<'a> {
    /// A decoder at the start of a text.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), settled: 0, given: 0 }
    }

    /// Takes the next id; returns the text that is now complete.
    pub fn push(&mut self, id: u32) -> String {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids[self.settled..]);
        if text.ends_with('\u{FFFD}') {
            return String::new();
        }
        let new = text.get(self.given..).unwrap_or_default().to_string();
        // keep one id of context: some decoders treat the first one differently
        self.settled = self.ids.len() - 1;
        self.given = self.tokenizer.decode(&self.ids[self.settled..]).len();
        new
    }

    /// What is left at the end, incomplete characters as U+FFFD.
    pub fn finish(self) -> String {
        let text = self.tokenizer.decode(&self.ids[self.settled..]);
        text.get(self.given..).unwrap_or_default().to_string()
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

    proptest! {
        /// Whatever a model says, special ids and broken characters included.
        #[test]
        fn pieces_of_any_ids_add_up(
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
    fn pieces_are_whole_characters_and_add_up() {
        let text = "naïve 日本 🦀 end";
        let tokenizer = Tokenizer::Bytes;
        let mut decoder = StreamDecoder::new(&tokenizer);
        let mut whole = String::new();
        for id in tokenizer.encode(text).unwrap() {
            let piece = decoder.push(id);
            assert!(!piece.contains('\u{FFFD}'));
            whole.push_str(&piece);
        }
        assert_eq!(whole + &decoder.finish(), text);
    }

    #[test]
    fn a_broken_end_is_shown_as_such() {
        let tokenizer = Tokenizer::Bytes;
        let mut decoder = StreamDecoder::new(&tokenizer);
        assert_eq!(decoder.push(0xE6 + 2), "");
        assert_eq!(decoder.finish(), "\u{FFFD}");
    }
}
