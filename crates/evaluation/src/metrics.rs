//! Scores of a task from the log-likelihoods of its items, with the harness's formulas.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Serialize, Serializer};

use crate::Task;
use crate::tasks::{DELIMITER, Item};

/// What a score counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Share of items whose likeliest option, or greedy continuation, is right.
    Acc,
    /// The same, of log-likelihoods divided by the option's length in characters. The harness's
    /// `acc_norm` counts characters, not bytes.
    AccNorm,
    /// `exp` of the mean negative log-likelihood an item.
    Perplexity,
    /// `exp` of the negative log-likelihood a word.
    WordPerplexity,
    /// `exp` of the negative log-likelihood a byte.
    BytePerplexity,
    /// Negative log-likelihood a byte in bits.
    BitsPerByte,
}

impl Metric {
    /// The harness's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::Perplexity => "perplexity",
            Self::WordPerplexity => "word_perplexity",
            Self::BytePerplexity => "byte_perplexity",
            Self::BitsPerByte => "bits_per_byte",
        }
    }

    /// Whether more is better.
    pub fn higher_is_better(self) -> bool {
        matches!(self, Self::Acc | Self::AccNorm)
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A metric of a task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// What it counts.
    pub metric: Metric,
    /// The score.
    pub value: f64,
    /// Its standard error, where the harness gives one: of a mean, the sample's; of a perplexity,
    /// from [`RESAMPLES`] bootstrap samples of the items. None for fewer than two items.
    pub stderr: Option<f64>,
}

/// How likely the continuations of an item are: of a question one an option, else one.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemScore {
    /// Log-likelihoods in nats.
    pub log_likelihoods: Vec<f64>,
    /// Whether each continuation is the greedy one.
    pub greedy: Vec<bool>,
}

/// Bootstrap samples of a standard error.
pub const RESAMPLES: usize = 10_000;

/// The metrics of `task` over its items.
pub(crate) fn scores(task: Task, items: &[Item], found: &[ItemScore]) -> Vec<Score> {
    let one = |&metric: &Metric| {
        let share = |by_length| {
            let pairs = items.iter().zip(found);
            mean(&pairs.map(|(item, found)| correct(item, found, by_length)).collect::<Vec<_>>())
        };
        let (value, stderr) = match metric {
            Metric::Acc => share(false),
            Metric::AccNorm => share(true),
            Metric::Perplexity => perplexity(&found.iter().map(total).collect::<Vec<_>>()),
            Metric::WordPerplexity => ((-per(items, found, Unit::Word)).exp(), None),
            Metric::BytePerplexity => ((-per(items, found, Unit::Byte)).exp(), None),
            Metric::BitsPerByte => (-per(items, found, Unit::Byte) / 2_f64.ln(), None),
        };
        Score { metric, value, stderr }
    };
    task.metrics().iter().map(one).collect()
}

fn total(found: &ItemScore) -> f64 {
    found.log_likelihoods.iter().sum()
}

/// 1 if the item is answered right, else 0.
fn correct(item: &Item, found: &ItemScore, by_length: bool) -> f64 {
    let right = match item {
        Item::Choice { options, gold } => {
            let length = |i: usize| match by_length {
                true => options[i].continuation[DELIMITER.len()..].chars().count() as f64,
                false => 1.0,
            };
            let scores = found.log_likelihoods.iter().enumerate().map(|(i, ll)| ll / length(i));
            first_largest(scores) == Some(*gold)
        }
        _ => found.greedy.iter().all(|&greedy| greedy),
    };
    f64::from(u8::from(right))
}

/// As `numpy.argmax`: of equals the first.
fn first_largest(scores: impl Iterator<Item = f64>) -> Option<usize> {
    let largest = |best: Option<(usize, f64)>, (i, score): (usize, f64)| match best {
        Some((_, most)) if score <= most => best,
        _ => Some((i, score)),
    };
    scores.enumerate().fold(None, largest).map(|(i, _)| i)
}

/// Mean, and its standard error by the sample's deviation.
fn mean(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let stderr = (values.len() > 1).then(|| deviation(values, mean) / count.sqrt());
    (mean, stderr)
}

/// Deviation of a sample of at least two.
fn deviation(values: &[f64], mean: f64) -> f64 {
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

fn perplexity(log_likelihoods: &[f64]) -> (f64, Option<f64>) {
    let count = log_likelihoods.len();
    let of = |sum: f64| (-sum / count as f64).exp();
    let value = of(log_likelihoods.iter().sum());
    let stderr = (count > 1).then(|| {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut resample = |_| {
            let draw = |_| log_likelihoods[rng.random_range(0..count)];
            of((0..count).map(draw).sum())
        };
        let resampled: Vec<f64> = (0..RESAMPLES).map(&mut resample).collect();
        deviation(&resampled, resampled.iter().sum::<f64>() / RESAMPLES as f64)
    });
    (value, stderr)
}

#[derive(Clone, Copy)]
enum Unit {
    Word,
    Byte,
}

/// Log-likelihood a unit of the original documents.
fn per(items: &[Item], found: &[ItemScore], unit: Unit) -> f64 {
    let units = items.iter().map(|item| match (item, unit) {
        (Item::Document { words, .. }, Unit::Word) => *words,
        (Item::Document { bytes, .. }, Unit::Byte) => *bytes,
        _ => 0,
    });
    found.iter().map(total).sum::<f64>() / units.sum::<usize>() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Prompt;

    fn choice(options: &[&str], gold: usize) -> Item {
        let option = |text: &&str| Prompt {
            context: "c".into(),
            continuation: format!("{DELIMITER}{text}"),
        };
        Item::Choice { options: options.iter().map(option).collect(), gold }
    }

    fn found(log_likelihoods: &[f64]) -> ItemScore {
        let greedy = vec![false; log_likelihoods.len()];
        ItemScore { log_likelihoods: log_likelihoods.into(), greedy }
    }

    #[test]
    fn accuracy_takes_the_first_of_equals_and_acc_norm_counts_characters() {
        let items = [choice(&["aa", "bb"], 0), choice(&["aa", "b"], 0), choice(&["éé", "aaa"], 1)];
        // -3 / 2 > -2 / 1; by bytes the third would be -1.5 / 4 > -1.4 / 3
        let found = [found(&[-1.0, -1.0]), found(&[-3.0, -2.0]), found(&[-1.5, -1.4])];
        let scores = scores(Task::Piqa, &items, &found);
        assert_eq!((scores[0].metric, scores[0].value), (Metric::Acc, 2.0 / 3.0));
        assert_eq!((scores[1].metric, scores[1].value), (Metric::AccNorm, 1.0));
        assert!((scores[0].stderr.unwrap() - 1.0 / 3.0).abs() < 1e-15);
        assert_eq!(scores[1].stderr, Some(0.0));
    }

    #[test]
    fn one_item_has_no_standard_error() {
        let scores = scores(Task::Piqa, &[choice(&["a", "b"], 1)], &[found(&[-2.0, -1.0])]);
        assert_eq!((scores[0].value, scores[0].stderr), (1.0, None));
    }

    #[test]
    fn perplexities_are_by_item_word_and_byte() {
        let document = |words, bytes| Item::Document { text: String::new(), words, bytes };
        let items = [document(10, 40), document(30, 60)];
        let all = scores(Task::Wikitext, &items, &[found(&[-50.0]), found(&[-30.0])]);
        let values: Vec<f64> = all.iter().map(|score| score.value).collect();
        let expected = [2_f64.exp(), 0.8_f64.exp(), 0.8 / 2_f64.ln()];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-12, "{values:?}");
        }
        let word = Item::Continuation(Prompt { context: "a".into(), continuation: " b".into() });
        let spread: Vec<ItemScore> = (0..400).map(|i| found(&[-1.0 - f64::from(i % 2)])).collect();
        let all = scores(Task::Lambada, &vec![word; 400], &spread);
        assert!((all[0].value - 1.5_f64.exp()).abs() < 1e-12);
        // of e^x: e^mean times the standard error of the mean
        let expected = 1.5_f64.exp() * 0.5 / 20.0;
        assert!((all[0].stderr.unwrap() / expected - 1.0).abs() < 0.05, "{all:?}");
        assert_eq!(all[1].value, 0.0);
    }
}
