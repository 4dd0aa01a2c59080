//! Division of long texts into pieces whose ids, one after the other, are the ids of the text.

use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper, Tokenizer as HfTokenizer};

/// Bytes after which a text is divided. The work for a piece is large compared to that of a task,
/// and a text of a few MiB still has pieces for all cores.
pub(crate) const PIECE: usize = 128 << 10;

/// Returns whether the ids of a text are those of its [`pieces`].
///
/// A piece ends after a line end, or before a blank, that has other characters than whitespace on
/// both sides. The splitting rule of GPT-2, which the pre-tokenizer `ByteLevel` applies, makes such a
/// line end a part of its own, and such a blank the start of a part. NFC joins no character with a
/// line end or a blank, nor with the ASCII character after it. Added tokens are found before the text
/// is split, so that none may extend over such a place or swallow whitespace beside itself.
pub(crate) fn divides(tokenizer: &HfTokenizer) -> bool {
    let splits = match tokenizer.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::ByteLevel(rule)) => rule.use_regex && !rule.add_prefix_space,
        _ => false,
    };
    let keeps = matches!(tokenizer.get_normalizer(), None | Some(NormalizerWrapper::NFC(_)));
    let is_safe = |token: &AddedToken| {
        let is_blank = token.content.chars().all(|c| c == ' ');
        let has_whitespace = token.content.contains(char::is_whitespace);
        !token.lstrip && !token.rstrip && (is_blank || !has_whitespace)
    };
    let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
    splits && keeps && added.values().all(is_safe)
}

/// Divides `text` into pieces of at least `size` bytes, each up to the next place where a text can be
/// divided; the last piece is shorter. An empty text is one piece.
pub(crate) fn pieces(text: &str, size: usize) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::with_capacity(1 + text.len() / size), text);
    while let Some(at) = end_of_piece(rest, size) {
        let (piece, after) = rest.split_at(at);
        pieces.push(piece);
        rest = after;
    }
    if !rest.is_empty() || pieces.is_empty() {
        pieces.push(rest);
    }
    pieces
}

/// The first possible end of a piece that has at least `size` bytes.
fn end_of_piece(text: &str, size: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let from = size.max(1);
    let mut places = bytes.get(from..)?.windows(2).zip(from..);
    places.find_map(|(two, at)| {
        let end = match two[0] {
            b'\n' => at + 1,
            b' ' => at,
            _ => return None,
        };
        let before = || text[..at].chars().next_back().is_some_and(|c| !c.is_whitespace());
        (two[1].is_ascii_graphic() && before()).then_some(end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static BPE: LazyLock<HfTokenizer> = LazyLock::new(|| {
        let texts =
            ["naïve 日本語 don't\n\nthe end,\n it's the end\r\nof  the\t日本 e\u{301}\n".repeat(9)];
        let Tokenizer::HuggingFace(mut tokenizer) =
            Tokenizer::train_bpe(texts.into_iter(), 320).unwrap()
        else {
            unreachable!()
        };
        tokenizer.with_normalizer(Some(tokenizers::normalizers::unicode::NFC));
        let added = [AddedToken::from("  ", false), AddedToken::from("end", false)];
        tokenizer.add_tokens(&added);
        *tokenizer
    });

    proptest! {
        #[test]
        fn the_ids_of_the_pieces_are_those_of_the_text(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "\n", "\n", "\n\n", " ", "  ", "\r\n", "\t", "\u{85}", "\u{a0}", "the", "'s", "end", "e",
                    "\u{301}", "日本", "7", ",", "<|endoftext|>",
                ]),
                0..60,
            ),
            size in 1_usize..12,
        ) {
            let text = parts.concat();
            prop_assert!(divides(&BPE));
            let pieces = pieces(&text, size);
            prop_assert_eq!(pieces.concat(), text.clone());
            let ids = |text: &str| BPE.encode_fast(text, false).unwrap().get_ids().to_vec();
            let divided: Vec<u32> = pieces.into_iter().flat_map(ids).collect();
            prop_assert_eq!(divided, ids(&text));
        }
    }

    #[test]
    fn other_rules_are_not_divided() {
        let change = |change: fn(&mut HfTokenizer)| {
            let mut tokenizer = BPE.clone();
            change(&mut tokenizer);
            divides(&tokenizer)
        };
        assert!(change(|_| {}));
        assert!(!change(|t| {
            let prefix = tokenizers::pre_tokenizers::byte_level::ByteLevel::new(true, true, true);
            t.with_pre_tokenizer(Some(prefix));
        }));
        assert!(!change(|t| {
            t.with_normalizer(Some(tokenizers::normalizers::unicode::NFKC));
        }));
        assert!(!change(|t| {
            t.add_tokens(&[AddedToken::from("x", false).lstrip(true)]);
        }));
        assert!(!change(|t| {
            t.add_tokens(&[AddedToken::from("x", false).rstrip(true)]);
        }));
        for content in ["a\nb", "a b", " a", "\n", "\t"] {
            let mut tokenizer = BPE.clone();
            tokenizer.add_tokens(&[AddedToken::from(content, false)]);
            assert!(!divides(&tokenizer), "{content:?}");
        }
    }

    #[test]
    fn long_texts_have_pieces_for_all_cores() {
        for (text, longest) in [("a line of text\n", 8), ("line\n\n\n end ", 15), ("words ", 8)] {
            let text = text.repeat(100_000);
            let pieces = pieces(&text, PIECE);
            assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= PIECE + longest));
            assert_eq!(pieces.concat(), text);
        }
        assert_eq!(pieces(&"x".repeat(1 << 20), PIECE).len(), 1);
        assert_eq!(pieces("", 5), [""]);
    }
}
