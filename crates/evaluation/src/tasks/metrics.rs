//! Metrics of a task from the log-likelihoods of its items, with the harness's formulas.

use crate::statistics::{Bootstrap, Estimate};
use crate::tasks::item::{DELIMITER, Item, Prompt};

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Fraction of items whose most likely option, or greedy continuation, is correct.
    Acc,
    /// Accuracy when log-likelihoods are divided by the length of the option in characters. The
    /// harness's `acc_norm` counts characters, not bytes.
    AccNorm,
    /// `exp` of the mean negative log-likelihood per item.
    Perplexity,
    /// `exp` of the negative log-likelihood per word.
    WordPerplexity,
    /// `exp` of the negative log-likelihood per byte.
    BytePerplexity,
    /// Negative log-likelihood per byte, in bits.
    BitsPerByte,
    /// Negative log-likelihood per word, in bits.
    BitsPerWord,
    /// Negative log-likelihood per token, in nats; of a question, that of the correct option.
    Loss,
    /// `exp` of the negative log-likelihood per token.
    TokenPerplexity,
    /// Fraction of questions whose correct option is the greedy continuation.
    ExactMatch,
}

impl Metric {
    /// The name of the metric; the harness's name if the harness has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::Perplexity => "perplexity",
            Self::WordPerplexity => "word_perplexity",
            Self::BytePerplexity => "byte_perplexity",
            Self::BitsPerByte => "bits_per_byte",
            Self::BitsPerWord => "bits_per_word",
            Self::Loss => "loss",
            Self::TokenPerplexity => "token_perplexity",
            Self::ExactMatch => "exact_match",
        }
    }

    /// Whether a higher value is better.
    pub fn higher_is_better(self) -> bool {
        matches!(self, Self::Acc | Self::AccNorm | Self::ExactMatch)
    }
}

/// The value of a metric for a task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// The metric.
    pub metric: Metric,
    /// The value of the metric.
    pub value: f64,
    /// The standard error of the value. For a mean, it comes from the standard deviation of the
    /// items; for a perplexity, it comes from 10,000 bootstrap samples of the items. `None` where
    /// the harness reports none, and for fewer than two items.
    pub stderr: Option<f64>,
}

/// Scores of an item's continuations: one per option if the item is a question, otherwise one.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemScore {
    /// Log-likelihoods in nats.
    pub log_likelihoods: Vec<f64>,
    /// Whether each continuation is the greedy one.
    pub greedy: Vec<bool>,
    /// Number of tokens of each continuation.
    pub tokens: Vec<usize>,
}

/// The bootstrap over items.
const BOOTSTRAP: Bootstrap = Bootstrap { seed: 0, resamples: 10_000 };

/// Computes metrics over the items of a task.
pub(crate) fn scores(metrics: &[Metric], items: &[Item], found: &[ItemScore]) -> Vec<Score> {
    // log-likelihood per unit of the original documents
    let per = |units: &dyn Fn(&Item) -> usize| {
        found.iter().map(total).sum::<f64>() / items.iter().map(units).sum::<usize>() as f64
    };
    let words = |item: &Item| if let Item::Document { words, .. } = item { *words } else { 0 };
    let bytes = |item: &Item| if let Item::Document { bytes, .. } = item { *bytes } else { 0 };
    let one = |&metric: &Metric| {
        let accuracy = |by_length| {
            let pairs = items.iter().zip(found);
            let correct = pairs.map(|(item, found)| correct(item, found, by_length));
            Estimate::mean(&correct.collect::<Vec<_>>())
        };
        let exact = |value| Estimate { value, standard_error: None };
        let Estimate { value, standard_error } = match metric {
            Metric::Acc => accuracy(false),
            Metric::AccNorm => accuracy(true),
            Metric::Perplexity => perplexity(&found.iter().map(total).collect::<Vec<_>>()),
            Metric::WordPerplexity => exact((-per(&words)).exp()),
            Metric::BytePerplexity => exact((-per(&bytes)).exp()),
            Metric::BitsPerByte => exact(-per(&bytes) / 2_f64.ln()),
            Metric::BitsPerWord => exact(-per(&words) / 2_f64.ln()),
            Metric::Loss => loss(items, found),
            Metric::TokenPerplexity => exact(loss(items, found).value.exp()),
            Metric::ExactMatch => {
                let pairs = items.iter().zip(found);
                let exact = pairs.map(|(item, found)| f64::from(u8::from(is_greedy(item, found))));
                Estimate::mean(&exact.collect::<Vec<_>>())
            }
        };
        Score { metric, value, stderr: standard_error }
    };
    metrics.iter().map(one).collect()
}

fn total(found: &ItemScore) -> f64 {
    found.log_likelihoods.iter().sum()
}

/// Index of the continuation that should be the most likely one.
fn gold(item: &Item) -> usize {
    if let Item::Choice { gold, .. } = item { *gold } else { 0 }
}

fn is_greedy(item: &Item, found: &ItemScore) -> bool {
    found.greedy.get(gold(item)).is_some_and(|greedy| *greedy)
}

/// Negative log-likelihood per token of the correct continuations. Its standard error comes from a bootstrap
/// over the items.
fn loss(items: &[Item], found: &[ItemScore]) -> Estimate {
    let one = |(item, found): (&Item, &ItemScore)| {
        let gold = gold(item);
        let [nats, tokens] = match found.log_likelihoods.get(gold).zip(found.tokens.get(gold)) {
            Some((log_likelihood, &tokens)) => [-log_likelihood, tokens as f64],
            None => [0.0, 0.0],
        };
        (vec![nats], tokens)
    };
    let clusters: Vec<_> = items.iter().zip(found).map(one).collect();
    let nothing = Estimate { value: f64::NAN, standard_error: None };
    BOOTSTRAP.ratios(&clusters).first().copied().unwrap_or(nothing)
}

/// 1 if the answer to the item is correct, otherwise 0.
fn correct(item: &Item, found: &ItemScore, by_length: bool) -> f64 {
    let right = match item {
        Item::Choice { options, gold } => chosen(options, found, by_length) == Some(*gold),
        _ => found.greedy.iter().all(|&greedy| greedy),
    };
    f64::from(u8::from(right))
}

/// Index of the option that a model chooses; by length, the log-likelihoods are divided by the length of the
/// option in characters.
pub(crate) fn chosen(options: &[Prompt], found: &ItemScore, by_length: bool) -> Option<usize> {
    let length = |i: usize| match by_length {
        true => options[i].continuation[DELIMITER.len()..].chars().count() as f64,
        false => 1.0,
    };
    first_largest(found.log_likelihoods.iter().enumerate().map(|(i, ll)| ll / length(i)))
}

/// Index of the largest value; if several values are equal, of the first (`numpy.argmax`).
fn first_largest(scores: impl Iterator<Item = f64>) -> Option<usize> {
    let largest = |best: Option<(usize, f64)>, (i, score): (usize, f64)| match best {
        Some((_, most)) if score <= most => best,
        _ => Some((i, score)),
    };
    scores.enumerate().fold(None, largest).map(|(i, _)| i)
}

/// `exp` of the mean negative log-likelihood.
fn perplexity(log_likelihoods: &[f64]) -> Estimate {
    let count = log_likelihoods.len();
    let of = |sum: f64| (-sum / count as f64).exp();
    let errors = BOOTSTRAP.standard_errors(count, |drawn| {
        vec![of(drawn.iter().map(|&index| log_likelihoods[index]).sum())]
    });
    let value = of(log_likelihoods.iter().sum());
    Estimate { value, standard_error: errors.map(|errors| errors[0]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::task::Task;

    fn choice(options: &[&str], gold: usize) -> Item {
        let option = |text: &&str| Prompt {
            context: "c".into(),
            continuation: format!("{DELIMITER}{text}"),
        };
        Item::Choice { options: options.iter().map(option).collect(), gold }
    }

    fn found(log_likelihoods: &[f64]) -> ItemScore {
        let greedy = vec![false; log_likelihoods.len()];
        let tokens = vec![2; log_likelihoods.len()];
        ItemScore { log_likelihoods: log_likelihoods.into(), greedy, tokens }
    }

    #[test]
    fn accuracy_takes_the_first_of_equals_and_acc_norm_counts_characters() {
        let items = [choice(&["aa", "bb"], 0), choice(&["aa", "b"], 0), choice(&["éé", "aaa"], 1)];
        // -3 / 2 > -2 / 1; by bytes the third would be -1.5 / 4 > -1.4 / 3
        let found = [found(&[-1.0, -1.0]), found(&[-3.0, -2.0]), found(&[-1.5, -1.4])];
        let scores = scores(Task::Piqa.metrics(), &items, &found);
        assert_eq!((scores[0].metric, scores[0].value), (Metric::Acc, 2.0 / 3.0));
        assert_eq!((scores[1].metric, scores[1].value), (Metric::AccNorm, 1.0));
        assert!((scores[0].stderr.unwrap() - 1.0 / 3.0).abs() < 1e-15);
        assert_eq!(scores[1].stderr, Some(0.0));
        let one = super::scores(&[Metric::Acc], &items[..1], &found[..1]);
        assert_eq!((one[0].value, one[0].stderr), (1.0, None));
    }

    #[test]
    fn perplexities_are_per_item_word_and_byte() {
        let document = |words, bytes| Item::Document { text: String::new(), words, bytes };
        let items = [document(10, 40), document(30, 60)];
        let all = scores(Task::Wikitext.metrics(), &items, &[found(&[-50.0]), found(&[-30.0])]);
        let values: Vec<f64> = all.iter().map(|score| score.value).collect();
        let expected = [2_f64.exp(), 0.8_f64.exp(), 0.8 / 2_f64.ln()];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-12, "{values:?}");
        }
        let word = Item::Continuation(Prompt { context: "a".into(), continuation: " b".into() });
        let spread: Vec<ItemScore> = (0..400).map(|i| found(&[-1.0 - f64::from(i % 2)])).collect();
        let all = scores(Task::Lambada.metrics(), &vec![word; 400], &spread);
        assert!((all[0].value - 1.5_f64.exp()).abs() < 1e-12);
        // of e^x: e^mean times the standard error of the mean
        let expected = 1.5_f64.exp() * 0.5 / 20.0;
        assert!((all[0].stderr.unwrap() / expected - 1.0).abs() < 0.05, "{all:?}");
        assert_eq!(all[1].value, 0.0);
    }
}
