//! Tokenizers: Hugging Face files, byte-level BPE trained here, and plain bytes.

use std::path::Path;

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, Tokenizer as HfTokenizer, TokenizerImpl,
};

use crate::TextError;
use crate::file::replace;

/// The id that ends a document, and stands for BOS.
pub const EOS: u32 = 0;
/// The id of padding.
pub const PAD: u32 = 1;

const EOS_TEXT: &str = "<|endoftext|>";
const PAD_TEXT: &str = "<|padding|>";
/// Blanks in a row up to which splitting rules such as `\s+(?!\S)` surely hold. The regex engine
/// gives up after some 10^6 steps in a row and `tokenizers` then goes on without rules, silently.
const BLANKS: usize = 1 << 18;

/// What a saved byte tokenizer holds instead of a Hugging Face tokenizer.
const BYTES_JSON: &str = "{\n  \"type\": \"bytes\",\n  \"version\": 1\n}\n";

/// Text to ids and back. Id 0 ends a document and id 1 is padding, as in the GPT-NeoX tokenizer.
#[derive(Clone, Debug)]
pub enum Tokenizer {
    /// Byte `b` is id `b + 2`; needs no file.
    Bytes,
    /// Any Hugging Face `tokenizer.json`.
    HuggingFace(Box<HfTokenizer>),
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, Hugging Face's or one that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// When the file cannot be read, is no tokenizer, or has other ids for EOS and padding.
    pub fn load(path: &Path) -> Result<Self, TextError> {
        let json = std::fs::read_to_string(path).map_err(TextError::io(path))?;
        Self::from_json(&json, path)
    }

    fn from_json(json: &str, path: &Path) -> Result<Self, TextError> {
        if json.trim() == BYTES_JSON.trim() {
            return Ok(Self::Bytes);
        }
        let mut tokenizer: HfTokenizer = json.parse().map_err(|e| {
            let reason = format!("not a tokenizer ({e}); give a Hugging Face tokenizer.json");
            TextError::content(path, reason)
        })?;
        // documents are tokenized whole, whatever lengths the file was saved with
        tokenizer.with_padding(None);
        let untruncated = tokenizer.with_truncation(None).map(|_| ());
        untruncated.map_err(|e| TextError::content(path, e.to_string()))?;
        for (text, id) in [(EOS_TEXT, EOS), (PAD_TEXT, PAD)] {
            let found = tokenizer.token_to_id(text);
            if found != Some(id) {
                let reason = format!(
                    "{text} must have id {id} (it has {found:?}), as in the GPT-NeoX tokenizer; \
                     use such a tokenizer, or train one with --vocab-size"
                );
                return Err(TextError::content(path, reason));
            }
        }
        Ok(Self::HuggingFace(Box::new(tokenizer)))
    }

    /// Trains a byte-level BPE of `vocab_size` ids on `texts`.
    ///
    /// # Errors
    /// When `vocab_size` has no room for the bytes and the two special ids.
    pub fn train_bpe(
        texts: impl Iterator<Item = String> + Send,
        vocab_size: usize,
    ) -> Result<Self, TextError> {
        if vocab_size < 258 {
            let reason =
                format!("--vocab-size {vocab_size}: 256 bytes and 2 special tokens need 258");
            return Err(TextError::Choice(reason));
        }
        let special = |text: &str| AddedToken::from(text, true);
        let mut trainer = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .show_progress(false)
            .special_tokens(vec![special(EOS_TEXT), special(PAD_TEXT)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let byte_level = || ByteLevel::new(false, true, true);
        let mut bpe = TokenizerImpl::<
            BPE,
            tokenizers::NormalizerWrapper,
            ByteLevel,
            tokenizers::PostProcessorWrapper,
            ByteLevel,
        >::new(BPE::default());
        bpe.with_pre_tokenizer(Some(byte_level()));
        bpe.with_decoder(Some(byte_level()));
        let failed =
            |e: tokenizers::Error| TextError::Choice(format!("training the tokenizer: {e}"));
        bpe.train(&mut trainer, texts).map_err(failed)?;
        let json = bpe.to_string(false).map_err(failed)?;
        Self::from_json(&json, Path::new("trained tokenizer"))
    }

    /// Ids of `text`, no special ids added.
    ///
    /// # Errors
    /// When the tokenizer refuses the text, or it holds more blanks in a row than can be split
    /// exactly.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        match self {
            Self::Bytes => Ok(text.bytes().map(|byte| u32::from(byte) + 2).collect()),
            Self::HuggingFace(tokenizer) => {
                check_blanks(text)?;
                let encoding = tokenizer.encode_fast(text, false);
                let encoding =
                    encoding.map_err(|e| TextError::Choice(format!("tokenizing: {e}")))?;
                Ok(encoding.get_ids().to_vec())
            }
        }
    }

    /// Ids of several texts, in parallel.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), for the first text refused.
    pub fn encode_batch(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, TextError> {
        match self {
            Self::Bytes => texts.iter().map(|text| self.encode(text)).collect(),
            Self::HuggingFace(tokenizer) => {
                texts.iter().try_for_each(|text| check_blanks(text))?;
                let inputs: Vec<&str> = texts.iter().map(String::as_str).collect();
                let encodings = tokenizer.encode_batch_fast(inputs, false);
                let encodings =
                    encodings.map_err(|e| TextError::Choice(format!("tokenizing: {e}")))?;
                Ok(encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
            }
        }
    }

    /// Text of `ids`; special ids are left out, and bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        match self {
            Self::Bytes => {
                let bytes: Vec<u8> =
                    ids.iter().filter_map(|&id| u8::try_from(id.checked_sub(2)?).ok()).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Self::HuggingFace(tokenizer) => {
                let known: Vec<u32> =
                    ids.iter().copied().filter(|&id| tokenizer.id_to_token(id).is_some()).collect();
                tokenizer.decode(&known, true).unwrap_or_default()
            }
        }
    }

    /// Whether `ids` decode to `text`, or to what the tokenizer's own normalizer makes of it.
    pub fn decodes_to(&self, ids: &[u32], text: &str) -> bool {
        let decoded = self.decode(ids);
        let Self::HuggingFace(tokenizer) = self else { return decoded == text };
        decoded == text
            || tokenizer.get_normalizer().is_some_and(|normalizer| {
                let mut normalized = NormalizedString::from(text);
                normalizer.normalize(&mut normalized).is_ok() && normalized.get() == decoded
            })
    }

    /// One more than the highest id.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Bytes => 258,
            Self::HuggingFace(tokenizer) => {
                let highest = tokenizer.get_vocab(true).into_values().max();
                highest.map_or(0, |id| id as usize + 1)
            }
        }
    }

    /// The tokenizer as JSON that [`load`](Self::load) takes back.
    pub fn to_json(&self) -> String {
        match self {
            Self::Bytes => BYTES_JSON.to_string(),
            Self::HuggingFace(tokenizer) => tokenizer.to_string(false).unwrap_or_default(),
        }
    }

    /// Writes the tokenizer to `path`, all of it or nothing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TextError> {
        replace(path, self.to_json().as_bytes())
    }

    /// A checksum that tells tokenizers apart.
    pub fn fingerprint(&self) -> u32 {
        crc32fast::hash(self.to_json().as_bytes())
    }
}

/// Refuses text that would be tokenized by other rules than the tokenizer's.
fn check_blanks(text: &str) -> Result<(), TextError> {
    let mut run = 0;
    for (at, character) in text.char_indices() {
        run = if character.is_whitespace() { run + 1 } else { 0 };
        if run > BLANKS {
            return Err(TextError::Choice(format!(
                "more than {BLANKS} blanks in a row up to byte {at} of a document: too many to \
                 tokenize exactly; shorten the run"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
    fn trained_bpe_round_trips_shortens_and_survives_saving() {
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
        assert_eq!(again.fingerprint(), tokenizer.fingerprint());
    }

    #[test]
    fn a_text_that_comes_back_up_to_the_normalizer_does_come_back() {
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
        let json = Tokenizer::train_bpe([TEXT.to_string()].into_iter(), 300).unwrap().to_json();
        let json = json.replace(EOS_TEXT, "<|other|>");
        let error = Tokenizer::from_json(&json, Path::new("t.json")).unwrap_err().to_string();
        assert!(error.contains("t.json") && error.contains(EOS_TEXT), "{error}");
    }

    #[test]
    fn lengths_saved_with_a_tokenizer_do_not_cut_documents() {
        let tokenizer = Tokenizer::train_bpe([TEXT.to_string()].into_iter(), 300).unwrap();
        let Tokenizer::HuggingFace(mut inner) = tokenizer.clone() else { unreachable!() };
        let truncation = tokenizers::TruncationParams { max_length: 4, ..Default::default() };
        inner.with_truncation(Some(truncation)).unwrap();
        inner.with_padding(Some(tokenizers::PaddingParams::default()));
        let json = Tokenizer::HuggingFace(inner).to_json();
        let loaded = Tokenizer::from_json(&json, Path::new("t.json")).unwrap();
        let whole = tokenizer.encode(TEXT).unwrap();
        assert!(whole.len() > 4);
        let batch = loaded.encode_batch(&["x".into(), TEXT.into()]).unwrap();
        assert_eq!((batch[0].len(), &batch[1]), (1, &whole));
        assert_eq!(loaded.fingerprint(), tokenizer.fingerprint());
    }

    #[test]
    fn training_twice_gives_the_same_tokenizer() {
        let train = || Tokenizer::train_bpe((0..20).map(|i| format!("{TEXT}{i}")), 320).unwrap();
        assert_eq!(train().to_json(), train().to_json());
    }

    #[test]
    fn more_blanks_than_can_be_split_exactly_are_refused() {
        let tokenizer = Tokenizer::train_bpe([TEXT.to_string()].into_iter(), 300).unwrap();
        let text = |blanks: usize| format!("a{}b", "\n".repeat(blanks));
        let longest = tokenizer.encode(&text(BLANKS)).unwrap();
        // the last blank before a word stands alone: the rules held to the end
        let mut parts = tokenizer.encode(&format!("a{}", "\n".repeat(BLANKS - 1))).unwrap();
        parts.extend(tokenizer.encode("\nb").unwrap());
        assert_eq!(longest, parts);
        let error = tokenizer.encode_batch(&["x".into(), text(BLANKS + 1)]).unwrap_err();
        assert!(error.to_string().contains("blanks in a row"), "{error}");
        assert!(Tokenizer::Bytes.encode(&text(BLANKS + 1)).is_ok());
    }
}
