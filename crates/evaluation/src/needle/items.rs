//! The samples.

use std::path::Path;

use block_transformer_datasets::DocumentSource;
use block_transformer_text::Tokenizer;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::EvalError;
use crate::tasks::{Item, Metric, Prompt, TaskMetrics};

/// The name of the task.
pub const NEEDLE: &str = "needle";
/// Bytes of a haystack's files that are read.
const MAX_HAYSTACK: usize = 4 << 20;
/// Tokens by which a place inside the text differs from the depth at random.
const JITTER: usize = 10;
/// The smallest number of a needle, which has seven digits.
const FIRST_NUMBER: u32 = 1_000_000;
/// The largest number of tokens of all prompts, which are held in memory.
const MAX_TOKENS: usize = 1 << 27;

/// Cities whose number is asked for.
const CITIES: [&str; 32] = [
    "Accra", "Adelaide", "Ankara", "Asmara", "Baku", "Bergen", "Bogota", "Busan", "Cardiff",
    "Cusco", "Dublin", "Durban", "Geneva", "Hanoi", "Havana", "Kyoto", "Lahore", "Leipzig",
    "Lusaka", "Manila", "Minsk", "Montreal", "Muscat", "Naples", "Osaka", "Porto", "Quito", "Riga",
    "Tirana", "Utrecht", "Windhoek", "Zagreb",
];

/// The name and the metrics: the accuracy among the options, the share of numbers that greedy generation
/// writes, and the loss of the number.
pub fn needle_metrics() -> TaskMetrics {
    TaskMetrics {
        name: NEEDLE.into(),
        metrics: vec![Metric::Acc, Metric::ExactMatch, Metric::Loss],
    }
}

/// The samples that are drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedleSettings {
    /// Tokens of the text with the needle, without the question.
    pub lengths: Vec<usize>,
    /// Places of the needle in percent of the text.
    pub depths: Vec<usize>,
    /// Samples of each length and depth.
    pub samples: usize,
    /// Numbers among which the model chooses: the right one and others.
    pub options: usize,
    /// The seed of the samples.
    pub seed: u64,
}

impl NeedleSettings {
    /// Tokens of text in the prompts of all options.
    fn tokens(&self) -> usize {
        let lengths = self.lengths.iter().fold(0_usize, |sum, length| sum.saturating_add(*length));
        let of_one = lengths.saturating_mul(self.depths.len()).saturating_mul(self.samples);
        of_one.saturating_mul(self.options)
    }

    fn check(&self) -> Result<(), EvalError> {
        let [lengths, depths] = [&self.lengths, &self.depths].map(Vec::len);
        let counts = [
            ("lengths", lengths),
            ("depths", depths),
            ("samples", self.samples),
            ("options", self.options),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(EvalError::Zero(name));
        }
        if let Some(depth) = self.depths.iter().find(|depth| **depth > 100) {
            return Err(EvalError::Needle(format!(
                "a depth is from 0 to 100 percent, not {depth}"
            )));
        }
        let tokens = self.tokens();
        if self.options > 100 || tokens > MAX_TOKENS {
            return Err(EvalError::Needle(format!(
                "the samples have {} options and {tokens} tokens in all prompts, and the limits are 100 and \
                 {MAX_TOKENS}; draw fewer",
                self.options
            )));
        }
        Ok(())
    }
}

/// The text that needles are hidden in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Haystack(String);

impl Haystack {
    /// Reads the first 4 MiB of the text at `path`: a text file, a `.jsonl` file, or a folder of such files.
    ///
    /// # Errors
    /// When a file cannot be read, or there is no text.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let mut text = String::new();
        for document in DocumentSource::open(path)?.documents() {
            text += &document?;
            if text.len() >= MAX_HAYSTACK {
                text.truncate(text.floor_char_boundary(MAX_HAYSTACK));
                break;
            }
        }
        match text.is_empty() {
            true => Err(EvalError::content(path, "there is no text to hide needles in")),
            false => Ok(Self(text)),
        }
    }

    /// The samples, in the order of lengths and depths. A sample does not depend on the other lengths and
    /// depths.
    ///
    /// # Errors
    /// When a setting is 0 or too large, or the text has too few tokens.
    pub fn items(
        &self,
        settings: &NeedleSettings,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<Item>, EvalError> {
        settings.check()?;
        let ids = tokenizer.encode(&self.0)?;
        let mut items = Vec::new();
        for &length in &settings.lengths {
            for &depth in &settings.depths {
                let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
                rng.set_stream((length as u64) << 7 | depth as u64);
                for _ in 0..settings.samples {
                    items.push(sample(&ids, length, depth, settings.options, tokenizer, &mut rng)?);
                }
            }
        }
        Ok(items)
    }
}

fn sample(
    ids: &[u32],
    length: usize,
    depth: usize,
    options: usize,
    tokenizer: &Tokenizer,
    rng: &mut ChaCha8Rng,
) -> Result<Item, EvalError> {
    let city = CITIES[rng.random_range(0..CITIES.len())];
    let mut numbers: Vec<u32> = Vec::with_capacity(options);
    while numbers.len() < options {
        let number = rng.random_range(FIRST_NUMBER..10 * FIRST_NUMBER);
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    let gold = rng.random_range(0..options);
    let needle = format!("The special magic {city} number is: {}", numbers[gold]);
    let needle = tokenizer.encode(&needle)?;
    let hay = length.checked_sub(needle.len()).filter(|hay| *hay > 0).ok_or_else(|| {
        let needle = needle.len();
        EvalError::Needle(format!(
            "a length of {length} tokens is too short: the needle has {needle}"
        ))
    })?;
    if hay > ids.len() {
        let found = ids.len();
        return Err(EvalError::Needle(format!(
            "a length of {length} tokens needs a haystack of {hay}, and the text has {found}; give more text"
        )));
    }
    let start = rng.random_range(0..=ids.len() - hay);
    let text = &ids[start..start + hay];
    let mut at = hay * depth / 100;
    if depth != 0 && depth != 100 {
        at = (at + rng.random_range(0..=2 * JITTER)).saturating_sub(JITTER).min(hay);
    }
    let context = tokenizer.decode(&[&text[..at], &needle, &text[at..]].concat());
    let question = format!("What is the special magic {city} number?");
    let context = format!(
        "<context>\n{context}\n</context>\n\n{question}\n\nthe special magic {city} number is:"
    );
    let option =
        |number: u32| Prompt { context: context.clone(), continuation: format!(" {number}") };
    Ok(Item::Choice { options: numbers.into_iter().map(option).collect(), gold })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn haystack() -> Haystack {
        Haystack((0..200).map(|i| format!("Sentence {i} of a long text. ")).collect())
    }

    fn settings() -> NeedleSettings {
        NeedleSettings {
            lengths: vec![300, 600],
            depths: vec![0, 50, 100],
            samples: 2,
            options: 3,
            seed: 1,
        }
    }

    #[test]
    fn a_needle_is_at_its_depth_in_a_text_of_its_length() {
        let items = haystack().items(&settings(), &Tokenizer::Bytes).unwrap();
        assert_eq!(items.len(), 12);
        for (i, item) in items.iter().enumerate() {
            let Item::Choice { options, gold } = item else { panic!("{item:?}") };
            let context = &options[0].context;
            let (length, depth) = ([300, 600][i / 6], [0, 50, 100][i / 2 % 3]);
            let inside = context.strip_prefix("<context>\n").unwrap();
            let (inside, after) =
                inside.split_once("\n</context>\n\nWhat is the special magic ").unwrap();
            assert_eq!(inside.len(), length);
            let needle = inside.find("The special magic ").unwrap();
            let number = options[*gold].continuation.trim();
            assert!(inside[needle..].contains(&format!("number is: {number}")), "{inside}");
            let hay = length - inside[needle..].find(number).unwrap() - 7;
            let found = needle as f64 / hay as f64 * 100.0;
            assert!((found - depth as f64).abs() <= 4.0, "{found} {depth}");
            assert!(after.ends_with("number is:") && number.len() == 7);
            let others = options.iter().enumerate().filter(|(i, _)| i != gold);
            others.for_each(|(_, other)| assert!(!inside.contains(other.continuation.trim())));
        }
        // a sample does not depend on the other lengths and depths
        let one = NeedleSettings { lengths: vec![600], depths: vec![100], ..settings() };
        assert_eq!(haystack().items(&one, &Tokenizer::Bytes).unwrap(), items[10..]);
        let other = NeedleSettings { seed: 2, ..settings() };
        assert_ne!(haystack().items(&other, &Tokenizer::Bytes).unwrap(), items);
    }

    #[test]
    fn texts_and_settings_that_do_not_fit_are_named() {
        for (settings, says) in [
            (NeedleSettings { lengths: vec![20], ..settings() }, "20 tokens is too short"),
            (NeedleSettings { lengths: vec![99_999], ..settings() }, "give more text"),
            (NeedleSettings { depths: vec![101], ..settings() }, "not 101"),
            (NeedleSettings { samples: 0, ..settings() }, "samples must be at least 1"),
            (NeedleSettings { samples: usize::MAX, ..settings() }, "draw fewer"),
        ] {
            let error = haystack().items(&settings, &Tokenizer::Bytes).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
