//! Tokenizers: Hugging Face files, byte-level BPE trained on a corpus, and plain bytes.

use std::path::Path;

use block_transformer_files::{caught, read_text_up_to};
use rayon::prelude::*;
use tokenizers::models::bpe::{BPE, BpeTrainer, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, NormalizerWrapper, PostProcessorWrapper,
    Tokenizer as HfTokenizer, TokenizerImpl,
};

use crate::divide::{PIECE, divides, pieces};
use crate::error::TextError;

/// The end-of-text id. It ends every document and also serves as the first token of a text.
pub const EOS: u32 = 0;
/// The padding id.
pub const PAD: u32 = 1;

const EOS_TEXT: &str = "<|endoftext|>";
const PAD_TEXT: &str = "<|padding|>";

/// Bytes and special tokens: the smallest vocabulary of a byte-level BPE.
const MIN_VOCAB_SIZE: usize = 258;

/// The largest file in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// The highest accepted id. The `tokenizers` library counts up to the highest id when it writes a vocabulary of words,
/// and a model has a row for each id.
const MAX_ID: u32 = 1 << 24;

/// The longest accepted run of whitespace, in characters. The regex engine gives up on a splitting
/// rule such as `\s+(?!\S)` after about 10^6 steps, and `tokenizers` then silently tokenizes the
/// text without splitting it.
const MAX_WHITESPACE: usize = 1 << 18;

/// Bytes of the parts of a text that are encoded until there are too many ids.
const PART: usize = 16 << 10;

/// The saved form of [`Tokenizer::Bytes`], in place of a Hugging Face tokenizer.
const BYTES_JSON: &str = "{\n  \"type\": \"bytes\",\n  \"version\": 1\n}\n";

type ByteLevelBpe =
    TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, PostProcessorWrapper, ByteLevel>;

/// Converts text to token ids and back. Id 0 ends a document and id 1 is padding, as in the
/// GPT-NeoX tokenizer.
#[derive(Clone, Debug)]
pub enum Tokenizer {
    /// One id per byte: byte `b` has id `b + 2`. This tokenizer needs no file.
    Bytes,
    /// A Hugging Face tokenizer.
    HuggingFace(Box<HfTokenizer>),
}

impl Tokenizer {
    /// The text of [`EOS`].
    pub const EOS_TEXT: &str = EOS_TEXT;
    /// The text of [`PAD`].
    pub const PAD_TEXT: &str = PAD_TEXT;

    /// Reads a `tokenizer.json` of Hugging Face, or a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// If the file cannot be read, is not a tokenizer, or has other ids for [`EOS`] and [`PAD`].
    pub fn load(path: &Path) -> Result<Self, TextError> {
        let json = read_text_up_to(path, MAX_BYTES)?;
        Self::from_json(&json, path)
    }

    /// Parses the JSON of a tokenizer ([`to_json`](Self::to_json)); errors name `path`.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn from_json(json: &str, path: &Path) -> Result<Self, TextError> {
        if json.trim() == BYTES_JSON.trim() {
            return Ok(Self::Bytes);
        }
        let not_a_tokenizer = |source| TextError::NotATokenizer { path: path.into(), source };
        let mut tokenizer: HfTokenizer = guarded(|| json.parse()).map_err(not_a_tokenizer)?;
        // the file can contain a maximum length and padding, but documents are tokenized completely
        // and without padding
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(not_a_tokenizer)?;
        check_ids(&tokenizer, path)?;
        for (token, expected) in [(EOS_TEXT, EOS), (PAD_TEXT, PAD)] {
            let found = tokenizer.token_to_id(token);
            if found != Some(expected) {
                return Err(TextError::SpecialToken { path: path.into(), token, expected, found });
            }
        }
        Ok(Self::HuggingFace(Box::new(tokenizer)))
    }

    /// Trains a byte-level BPE of `vocab_size` ids on `texts`.
    ///
    /// # Errors
    /// If `vocab_size` is below 258: 256 bytes and two special tokens.
    pub fn train_bpe(
        texts: impl Iterator<Item = String> + Send,
        vocab_size: usize,
    ) -> Result<Self, TextError> {
        if vocab_size < MIN_VOCAB_SIZE {
            return Err(TextError::VocabularyTooSmall(vocab_size));
        }
        let special = |text: &str| AddedToken::from(text, true);
        let mut trainer = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .show_progress(false)
            .special_tokens(vec![special(EOS_TEXT), special(PAD_TEXT)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let byte_level = || ByteLevel::new(false, true, true);
        let mut bpe = ByteLevelBpe::new(BPE::default());
        bpe.with_pre_tokenizer(Some(byte_level()));
        bpe.with_decoder(Some(byte_level()));
        bpe.train(&mut trainer, texts).map_err(TextError::Tokenizer)?;
        let json = bpe.to_string(false).map_err(TextError::Tokenizer)?;
        Self::from_json(&json, Path::new("trained tokenizer"))
    }

    /// Returns a byte-level BPE whose ids are the special ids, all bytes, and pairs of bytes in a fixed order, `vocab_size`
    /// in total: a tokenizer for models with random weights, whose ids have no other meaning. English has two bytes
    /// per token.
    ///
    /// # Errors
    /// If `vocab_size` is below 258, or above 65794: there are no more pairs.
    pub fn byte_pairs(vocab_size: usize) -> Result<Self, TextError> {
        let most = MIN_VOCAB_SIZE + 256 * 256;
        if !(MIN_VOCAB_SIZE..=most).contains(&vocab_size) {
            return Err(TextError::PairVocabulary { vocab_size, most });
        }
        // characters that stand for themselves come first, so that their pairs do too
        let mut bytes: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        bytes.sort_unstable();
        let special = [EOS_TEXT, PAD_TEXT].map(String::from).into_iter();
        let single = bytes.iter().map(char::to_string);
        // pairs of the first n characters come before those with a later one
        let pairs = (0..bytes.len()).flat_map(|n| {
            let row = (0..=n).map(move |i| (i, n));
            row.chain((0..n).map(move |i| (n, i)))
        });
        let pairs: Vec<(String, String)> = pairs
            .take(vocab_size - MIN_VOCAB_SIZE)
            .map(|(a, b)| (bytes[a].to_string(), bytes[b].to_string()))
            .collect();
        let joined = pairs.iter().map(|(a, b)| format!("{a}{b}"));
        let vocabulary = special.chain(single).chain(joined).zip(0..);
        let bpe = BPE::builder().vocab_and_merges(vocabulary.collect::<Vocab>(), pairs);
        let mut tokenizer = ByteLevelBpe::new(bpe.build().map_err(TextError::Tokenizer)?);
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
        let special = [EOS_TEXT, PAD_TEXT].map(|text| AddedToken::from(text, true));
        tokenizer.add_special_tokens(&special);
        let json = tokenizer.to_string(false).map_err(TextError::Tokenizer)?;
        Self::from_json(&json, Path::new("tokenizer of byte pairs"))
    }

    /// Returns the ids of `text`, without special ids.
    ///
    /// # Errors
    /// If the tokenizer fails, or the text has a run of whitespace that is too long to be split
    /// exactly.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        match self {
            Self::Bytes => Ok(text.bytes().map(|byte| u32::from(byte) + 2).collect()),
            Self::HuggingFace(_) => {
                check_whitespace(text)?;
                self.encode_checked(text)
            }
        }
    }

    /// [`encode`](Self::encode) without the check of whitespace.
    fn encode_checked(&self, text: &str) -> Result<Vec<u32>, TextError> {
        match self {
            Self::Bytes => self.encode(text),
            Self::HuggingFace(tokenizer) => {
                let encoding = guarded(|| tokenizer.encode_fast(text, false));
                let encoding = encoding.map_err(TextError::Tokenizer)?;
                Ok(encoding.get_ids().to_vec())
            }
        }
    }

    /// Returns the ids of `text`, or `None` if there are more than `most`. Most tokenizers encode a long text part by
    /// part, so that little of a text with too many ids is encoded.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn encode_up_to(&self, text: &str, most: usize) -> Result<Option<Vec<u32>>, TextError> {
        let part = match self {
            Self::Bytes if text.len() > most => return Ok(None),
            Self::Bytes => usize::MAX,
            Self::HuggingFace(tokenizer) => {
                check_whitespace(text)?;
                if divides(tokenizer) { PART } else { usize::MAX }
            }
        };
        let mut ids = Vec::new();
        for part in pieces(text, part) {
            ids.extend(self.encode_checked(part)?);
            if ids.len() > most {
                return Ok(None);
            }
        }
        Ok(Some(ids))
    }

    /// Returns the ids of each text; the texts are encoded in parallel. Most tokenizers can encode
    /// the parts of a long text in parallel as well, with the same ids.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn encode_batch(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, TextError> {
        let piece = match self {
            Self::Bytes => PIECE,
            Self::HuggingFace(tokenizer) => {
                let checks = texts.par_iter().map(|text| check_whitespace(text));
                if let Some(failed) = checks.find_first(Result::is_err) {
                    failed?;
                }
                if divides(tokenizer) { PIECE } else { usize::MAX }
            }
        };
        let divided: Vec<Vec<&str>> = texts.iter().map(|text| pieces(text, piece)).collect();
        let encoded = divided.par_iter().flatten().map(|piece| self.encode_checked(piece));
        let mut encoded = encoded.collect::<Result<Vec<_>, _>>()?.into_iter();
        let join = |pieces: &Vec<&str>| {
            let mut ids = encoded.next().unwrap_or_default();
            encoded.by_ref().take(pieces.len().saturating_sub(1)).for_each(|more| ids.extend(more));
            ids
        };
        Ok(divided.iter().map(join).collect())
    }

    /// Returns the text of `ids`. Special and unknown ids are skipped, and bytes that are not UTF-8
    /// become U+FFFD.
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
                guarded(|| tokenizer.decode(&known, true)).unwrap_or_default()
            }
        }
    }

    /// Returns whether `ids` decode to `text`, or to `text` after the tokenizer's normalization.
    pub fn decodes_to(&self, ids: &[u32], text: &str) -> bool {
        let decoded = self.decode(ids);
        let Self::HuggingFace(tokenizer) = self else { return decoded == text };
        decoded == text
            || tokenizer.get_normalizer().is_some_and(|normalizer| {
                let mut normalized = NormalizedString::from(text);
                let result = guarded(|| normalizer.normalize(&mut normalized));
                result.is_ok() && normalized.get() == decoded
            })
    }

    /// The highest id plus one.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Bytes => MIN_VOCAB_SIZE,
            Self::HuggingFace(tokenizer) => {
                let highest = tokenizer.get_vocab(true).into_values().max();
                highest.map_or(0, |id| id as usize + 1)
            }
        }
    }

    /// The bytes of text that a token stands for at the most. They are known for byte-level tokenizers only: others can leave
    /// out any part of a text, or have one token for what they do not know.
    pub fn longest_token(&self) -> Option<usize> {
        let Self::HuggingFace(tokenizer) = self else { return Some(1) };
        let has_byte = |byte: char| tokenizer.token_to_id(byte.encode_utf8(&mut [0; 4])).is_some();
        if !divides(tokenizer) || !ByteLevel::alphabet().into_iter().all(has_byte) {
            return None;
        }
        // NFC joins up to three characters, and the joined one has at least a third of their bytes
        let factor = if tokenizer.get_normalizer().is_none() { 1 } else { 3 };
        // a byte has at least one byte in the written form of a token
        let longest = tokenizer.get_vocab(true).into_keys().map(|token| token.len()).max();
        Some(factor * longest.unwrap_or(1).max(1))
    }

    /// Returns the tokenizer as JSON that [`load`](Self::load) reads.
    ///
    /// # Errors
    /// If the `tokenizers` library cannot serialize it.
    pub fn to_json(&self) -> Result<String, TextError> {
        match self {
            Self::Bytes => Ok(BYTES_JSON.to_string()),
            Self::HuggingFace(tokenizer) => {
                guarded(|| tokenizer.to_string(false)).map_err(TextError::Tokenizer)
            }
        }
    }

    /// Writes the tokenizer to `path`, completely or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TextError> {
        Ok(block_transformer_files::write(path, self.to_json()?.as_bytes())?)
    }

    /// Returns the CRC-32 of the tokenizer's JSON, which prepared corpora store to recognize their
    /// tokenizer.
    ///
    /// # Errors
    /// Those of [`to_json`](Self::to_json).
    pub fn fingerprint(&self) -> Result<u32, TextError> {
        Ok(crc32fast::hash(self.to_json()?.as_bytes()))
    }
}

/// Calls the `tokenizers` library, which panics on some damaged tokenizers. A panic is an error.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    let failed = || Err("the library cannot use this tokenizer; use another one".into());
    caught(call).unwrap_or_else(failed)
}

/// Refuses ids that the `tokenizers` library cannot write, or that have no use.
fn check_ids(tokenizer: &HfTokenizer, path: &Path) -> Result<(), TextError> {
    let vocabulary = tokenizer.get_vocab(true);
    let highest = vocabulary.values().copied().max().unwrap_or(0);
    if highest > MAX_ID {
        return Err(TextError::HighId { path: path.into(), highest, most: MAX_ID });
    }
    let mut ids: Vec<(u32, &String)> = vocabulary.iter().map(|(token, id)| (*id, token)).collect();
    ids.sort_unstable();
    let same = ids.windows(2).find(|two| two[0].0 == two[1].0);
    same.map_or(Ok(()), |two| {
        let tokens = format!("{:?} and {:?}", two[0].1, two[1].1);
        Err(TextError::SameId { path: path.into(), id: two[0].0, tokens })
    })
}

/// Refuses a text to which the tokenizer would not apply its splitting rules.
fn check_whitespace(text: &str) -> Result<(), TextError> {
    let mut run = 0;
    for (byte, character) in text.char_indices() {
        run = if character.is_whitespace() { run + 1 } else { 0 };
        if run > MAX_WHITESPACE {
            return Err(TextError::Whitespace { limit: MAX_WHITESPACE, byte });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
