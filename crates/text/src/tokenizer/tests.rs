use super::*;

const TEXT: &str = "Round and round the ragged rock — 日本語 — the ragged rascal ran.\n";

#[test]
fn bytes_round_trip() {
    let ids = Tokenizer::Bytes.encode(TEXT).unwrap();
    assert_eq!(ids.len(), TEXT.len());
    assert_eq!(Tokenizer::Bytes.decode(&ids), TEXT);
    assert_eq!(Tokenizer::Bytes.decode(&[EOS, PAD, 67]), "A");
}

#[test]
fn a_trained_bpe_round_trips_and_is_saved_and_loaded() {
    let texts = (0..50).map(|_| TEXT.to_string());
    let tokenizer = Tokenizer::train_bpe(texts, 300).unwrap();
    let ids = tokenizer.encode(TEXT).unwrap();
    assert!(ids.len() < TEXT.len() * 3 / 4, "{} ids", ids.len());
    assert_eq!(tokenizer.decode(&ids), TEXT);
    assert!(ids.iter().all(|&id| id > PAD && (id as usize) < tokenizer.vocab_size()));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    tokenizer.save(&path).unwrap();
    let again = Tokenizer::load(&path).unwrap();
    assert_eq!(again.encode(TEXT).unwrap(), ids);
    assert_eq!(again.fingerprint().unwrap(), tokenizer.fingerprint().unwrap());
}

#[test]
fn a_tokenizer_of_byte_pairs_has_a_text_for_every_id() {
    for size in [258, 300, 50304] {
        let tokenizer = Tokenizer::byte_pairs(size).unwrap();
        assert_eq!(tokenizer.vocab_size(), size);
        let ids = tokenizer.encode(TEXT).unwrap();
        assert_eq!(tokenizer.decode(&ids), TEXT);
        assert!((2..size as u32).all(|id| !tokenizer.decode(&[id]).is_empty()));
        assert_eq!(tokenizer.encode(EOS_TEXT).unwrap(), [EOS]);
    }
    let pairs = Tokenizer::byte_pairs(50304).unwrap().encode("abcdefgh").unwrap();
    assert_eq!(pairs.len(), 4);
    assert!(Tokenizer::byte_pairs(257).is_err() && Tokenizer::byte_pairs(65795).is_err());
}

#[test]
fn ids_decode_to_their_text_or_to_its_normalized_form() {
    let bytes = Tokenizer::Bytes.encode(TEXT).unwrap();
    assert!(Tokenizer::Bytes.decodes_to(&bytes, TEXT));
    assert!(!Tokenizer::Bytes.decodes_to(&bytes[1..], TEXT));
    let plain = Tokenizer::train_bpe([TEXT.to_string()].into_iter(), 300).unwrap();
    let Tokenizer::HuggingFace(mut inner) = plain.clone() else { unreachable!() };
    inner.with_normalizer(Some(tokenizers::normalizers::unicode::NFC));
    let composing = Tokenizer::HuggingFace(inner);
    let decomposed = "cafe\u{301}";
    let ids = composing.encode(decomposed).unwrap();
    assert_eq!(composing.decode(&ids), "café");
    assert!(composing.decodes_to(&ids, decomposed));
    assert!(!plain.decodes_to(&ids, decomposed));
    let special = format!("a{EOS_TEXT}b");
    assert!(!plain.decodes_to(&plain.encode(&special).unwrap(), &special));
}

#[test]
fn other_special_ids_are_refused() {
    let json = Tokenizer::train_bpe([TEXT.to_string()].into_iter(), 300).unwrap();
    let json = json.to_json().unwrap().replace(EOS_TEXT, "<|other|>");
    let error = Tokenizer::from_json(&json, Path::new("t.json")).unwrap_err().to_string();
    assert!(error.contains("t.json") && error.contains(EOS_TEXT), "{error}");
}

#[test]
fn truncation_and_padding_saved_with_a_tokenizer_are_ignored() {
    let tokenizer = Tokenizer::train_bpe([TEXT.to_string()].into_iter(), 300).unwrap();
    let Tokenizer::HuggingFace(mut inner) = tokenizer.clone() else { unreachable!() };
    let truncation = tokenizers::TruncationParams { max_length: 4, ..Default::default() };
    inner.with_truncation(Some(truncation)).unwrap();
    inner.with_padding(Some(tokenizers::PaddingParams::default()));
    let json = Tokenizer::HuggingFace(inner).to_json().unwrap();
    let loaded = Tokenizer::from_json(&json, Path::new("t.json")).unwrap();
    let whole = tokenizer.encode(TEXT).unwrap();
    assert!(whole.len() > 4);
    let batch = loaded.encode_batch(&["x".into(), TEXT.into()]).unwrap();
    assert_eq!((batch[0].len(), &batch[1]), (1, &whole));
    assert_eq!(loaded.fingerprint().unwrap(), tokenizer.fingerprint().unwrap());
}

#[test]
fn training_twice_gives_the_same_tokenizer() {
    let train = || Tokenizer::train_bpe((0..20).map(|i| format!("{TEXT}{i}")), 320).unwrap();
    assert_eq!(train().to_json().unwrap(), train().to_json().unwrap());
}

#[test]
fn whitespace_too_long_to_be_split_exactly_is_refused() {
    let tokenizer = Tokenizer::train_bpe([TEXT.to_string()].into_iter(), 300).unwrap();
    let text = |blanks: usize| format!("a{}b", "\n".repeat(blanks));
    let longest = tokenizer.encode(&text(MAX_WHITESPACE)).unwrap();
    // the last newline before a word is a separate token, so the rules were applied up to the
    // end
    let mut parts = tokenizer.encode(&format!("a{}", "\n".repeat(MAX_WHITESPACE - 1))).unwrap();
    parts.extend(tokenizer.encode("\nb").unwrap());
    assert_eq!(longest, parts);
    let error = tokenizer.encode_batch(&["x".into(), text(MAX_WHITESPACE + 1)]).unwrap_err();
    assert!(error.to_string().contains("whitespace characters in a row"), "{error}");
    assert!(Tokenizer::Bytes.encode(&text(MAX_WHITESPACE + 1)).is_ok());
}

#[test]
fn encoding_stops_at_a_limit() {
    let bpe = Tokenizer::train_bpe((0..50).map(|_| TEXT.to_string()), 300).unwrap();
    for tokenizer in [Tokenizer::Bytes, bpe] {
        for text in [String::new(), TEXT.into(), TEXT.repeat(3 * PART / TEXT.len())] {
            let ids = tokenizer.encode(&text).unwrap();
            assert_eq!(tokenizer.encode_up_to(&text, ids.len()).unwrap().as_ref(), Some(&ids));
            if let Some(fewer) = ids.len().checked_sub(1) {
                assert_eq!(tokenizer.encode_up_to(&text, fewer).unwrap(), None);
            }
            assert!(text.len() <= ids.len() * tokenizer.longest_token().unwrap());
        }
    }
}

#[test]
fn no_token_of_a_normalized_text_stands_for_more_than_the_longest() {
    let mut tokenizer = Tokenizer::byte_pairs(50304).unwrap();
    let Tokenizer::HuggingFace(inner) = &mut tokenizer else { unreachable!() };
    inner.with_normalizer(Some(tokenizers::normalizers::unicode::NFC));
    // three characters of six and of nine bytes that become one of two and of three
    for text in ["\u{3B9}\u{308}\u{301}", "\u{1112}\u{1161}\u{11AB}"] {
        let text = text.repeat(100);
        let ids = tokenizer.encode(&text).unwrap();
        assert!(text.len() <= ids.len() * tokenizer.longest_token().unwrap());
    }
    let Tokenizer::HuggingFace(inner) = &mut tokenizer else { unreachable!() };
    inner.with_normalizer(Some(tokenizers::normalizers::Strip::new(true, true)));
    assert_eq!(tokenizer.longest_token(), None);
}
