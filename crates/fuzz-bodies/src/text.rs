//! Tokenizers.

use block_transformer_text::{StreamDecoder, Tokenizer};

use crate::scratch::{Scratch, said};

const TEXTS: [&str; 4] = [
    "Round the rock, 12 o'clock.\n\n  naïve 日本語 🦀\t<|endoftext|>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
    "",
    "\u{0}\u{301}\u{FFFD} \r\n\u{2028}",
];

/// A `tokenizer.json`. What it accepts encodes texts to ids of its vocabulary or refuses them, decodes any ids, and is
/// the same tokenizer after it was saved and loaded.
pub(crate) fn tokenizer(bytes: &[u8]) -> bool {
    let mut scratch = Scratch::new(&[("tokenizer.json", bytes)]);
    let loaded = scratch.named(Tokenizer::load(&scratch.path("tokenizer.json")));
    let Some(tokenizer) = loaded else {
        scratch.unchanged();
        return false;
    };
    let size = tokenizer.vocab_size();
    for text in TEXTS {
        match tokenizer.encode(text) {
            Err(error) => drop(said(&error)),
            Ok(ids) => {
                assert!(ids.iter().all(|id| (*id as usize) < size), "{ids:?} of {size}");
                let mut stream = StreamDecoder::new(&tokenizer);
                ids.iter().take(100).for_each(|id| drop(stream.push(*id)));
                stream.finish();
            }
        }
    }
    tokenizer.decode(&[0, 1, 2, 3, size as u32, u32::MAX]);
    scratch.unchanged();
    if let Ok(json) = tokenizer.to_json() {
        scratch = Scratch::new(&[("tokenizer.json", json.as_bytes())]);
        let again = Tokenizer::load(&scratch.path("tokenizer.json"));
        let again = again.expect("a saved tokenizer can be loaded");
        assert_eq!(again.to_json().ok(), Some(json));
    }
    true
}
