//! Weighted mixtures of prepared corpora.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::corpus::{CorpusInfo, PreparedCorpus};
use crate::error::DatasetError;
use crate::packing::{Packing, Window, WindowKind};
use crate::split::Split;

/// Windows after which every source has been used by its weight. A weight is rounded to a multiple
/// of one window of a round.
const ROUND: usize = 1 << 16;

/// The most sources of a mixture.
const MOST_SOURCES: usize = 1 << 10;

/// Prepared corpora with weights.
#[derive(Clone, Debug)]
pub struct Mixture {
    sources: Vec<(PreparedCorpus, f64)>,
}

/// A mixture of one corpus.
impl From<&PreparedCorpus> for Mixture {
    fn from(corpus: &PreparedCorpus) -> Self {
        Self { sources: vec![(corpus.clone(), 1.0)] }
    }
}

impl Mixture {
    /// Mixes `sources`. The share of a source in the windows of training is its weight, divided by
    /// the sum of the weights.
    ///
    /// # Errors
    /// If there is no source, a weight is not a positive number or too small a part of the sum, or
    /// the sources have different tokenizers.
    pub fn new(sources: Vec<(PreparedCorpus, f64)>) -> Result<Self, DatasetError> {
        let invalid =
            |dir: PathBuf, reason: &str| DatasetError::Share { dir, reason: reason.into() };
        let Some((first, _)) = sources.first() else {
            return Err(invalid(PathBuf::new(), "there is no source"));
        };
        if sources.len() > MOST_SOURCES {
            return Err(invalid(first.dir.clone(), "there are more than 1024 sources"));
        }
        for (corpus, weight) in &sources {
            if !weight.is_finite() || *weight <= 0.0 {
                return Err(invalid(corpus.dir.clone(), "its weight is not a positive number"));
            }
            if corpus.info.tokenizer != first.info.tokenizer {
                let (first, other) = (first.dir.clone(), corpus.dir.clone());
                return Err(DatasetError::OtherTokenizer { first, other });
            }
        }
        let mixture = Self { sources };
        let counts = window_counts(&mixture.weights());
        match mixture.sources.iter().zip(counts).find(|(_, count)| *count == 0) {
            Some(((corpus, _), _)) => {
                Err(invalid(corpus.dir.clone(), "its weight is less than 1/65536 of the sum"))
            }
            None => Ok(mixture),
        }
    }

    /// The corpora, with their weights.
    pub fn sources(&self) -> &[(PreparedCorpus, f64)] {
        &self.sources
    }

    /// The first corpus, which has the tokenizer of all.
    pub fn first(&self) -> &PreparedCorpus {
        &self.sources[0].0
    }

    /// The descriptions of the corpora.
    pub fn infos(&self) -> Vec<&CorpusInfo> {
        self.sources.iter().map(|(corpus, _)| &corpus.info).collect()
    }

    /// The shares of the sources, which add up to 1.
    pub fn weights(&self) -> Vec<f64> {
        let sum: f64 = self.sources.iter().map(|(_, weight)| weight).sum();
        self.sources.iter().map(|(_, weight)| weight / sum).collect()
    }

    /// Packs each source into windows of a kind; see [`PreparedCorpus::packing`].
    ///
    /// # Errors
    /// Those of [`PreparedCorpus::packing`].
    pub fn windows(
        &self,
        kind: WindowKind,
        split: Split,
        block_length: usize,
        context: usize,
        seed: Option<u64>,
    ) -> Result<MixedWindows, DatasetError> {
        let packing = |(corpus, _): &(PreparedCorpus, f64)| {
            corpus.packing(kind, split, block_length, context, seed)
        };
        let packings = self.sources.iter().map(packing).collect::<Result<_, _>>()?;
        let (weights, round) = (self.weights(), Arc::default());
        Ok(MixedWindows { packings, weights, seed: seed.unwrap_or(0), round })
    }
}

/// The windows of a mixture. Window `i` depends only on the sources, their weights, the seed and `i`.
///
/// Each round of 65,536 windows has a fixed number of windows from each source, in an order that the
/// seed and the number of the round determine. The windows of a source come in the order of its
/// [`Packing`], so that a source is read completely before any part of it is read again.
#[derive(Clone)]
pub struct MixedWindows {
    packings: Vec<Packing>,
    weights: Vec<f64>,
    seed: u64,
    round: Arc<Mutex<CachedRound>>,
}

/// The number and the order of the round that was used last.
type CachedRound = Option<(u64, Arc<Round>)>;

/// For each window of a round, its source, and the windows of this source in the round before it.
struct Round {
    places: Vec<(u16, u32)>,
    /// The windows of each source in a round.
    counts: Vec<usize>,
}

impl MixedWindows {
    /// The windows of each source.
    pub fn packings(&self) -> &[Packing] {
        &self.packings
    }

    /// The shares of the sources, which add up to 1.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// Returns window `index`, counted over all epochs.
    pub fn window(&self, index: u64) -> Window {
        let (source, index) = self.place(index);
        self.packings[source].window(index)
    }

    /// Returns the `batch` windows of step `step`.
    pub fn batch(&self, step: u64, batch: usize) -> Vec<Window> {
        let first = step * batch as u64;
        (first..first + batch as u64).map(|i| self.window(i)).collect()
    }

    /// The source of window `index`, and the number of the window in this source.
    fn place(&self, index: u64) -> (usize, u64) {
        if self.packings.len() == 1 {
            return (0, index);
        }
        let (number, place) = (index / ROUND as u64, index % ROUND as u64);
        let round = self.round(number);
        let (source, before) = round.places[place as usize];
        let source = usize::from(source);
        (source, number * round.counts[source] as u64 + u64::from(before))
    }

    fn round(&self, number: u64) -> Arc<Round> {
        let mut cached = self.round.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*cached {
            Some((cached, round)) if *cached == number => round.clone(),
            _ => {
                let round = Arc::new(Round::new(&self.weights, self.seed, number));
                *cached = Some((number, round.clone()));
                round
            }
        }
    }
}

impl Round {
    fn new(weights: &[f64], seed: u64, number: u64) -> Self {
        let counts = window_counts(weights);
        let sources = counts.iter().enumerate();
        let mut order: Vec<u16> = sources
            .flat_map(|(source, &count)| std::iter::repeat_n(source as u16, count))
            .collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        order.shuffle(&mut rng);
        let mut before = vec![0; counts.len()];
        let place = |source: u16| {
            let before = &mut before[usize::from(source)];
            *before += 1;
            (source, *before - 1)
        };
        Self { places: order.into_iter().map(place).collect(), counts }
    }
}

/// The windows of each source in a round: the shares times the windows of a round, rounded down, and
/// one more where most was cut off.
fn window_counts(shares: &[f64]) -> Vec<usize> {
    let exact: Vec<f64> = shares.iter().map(|share| share * ROUND as f64).collect();
    let mut counts: Vec<usize> = exact.iter().map(|&count| count as usize).collect();
    let mut by_rest: Vec<usize> = (0..counts.len()).collect();
    by_rest.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    let missing = ROUND.saturating_sub(counts.iter().sum());
    by_rest.iter().take(missing).for_each(|&source| counts[source] += 1);
    counts
}

#[cfg(feature = "burn-dataset")]
impl burn::data::dataset::Dataset<Window> for MixedWindows {
    fn get(&self, index: usize) -> Result<Window, burn::data::dataset::DatasetError> {
        Ok(self.window(index as u64))
    }

    /// The windows of one epoch of every source.
    fn len(&self) -> usize {
        self.packings.iter().map(|packing| packing.windows_per_epoch() as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::prepare;
    use crate::source::DocumentSource;
    use block_transformer_text::Tokenizer;
    use std::path::Path;

    const KINDS: [WindowKind; 2] = [WindowKind::Documents, WindowKind::Contiguous];

    /// A corpus of 40 documents of a letter.
    fn corpus(dir: &Path, letter: &str, tokenizer: &Tokenizer) -> PreparedCorpus {
        let path = dir.join(format!("{letter}.jsonl"));
        let line = |i: usize| format!("{{\"text\": \"{}\"}}\n", letter.repeat(20 + i));
        std::fs::write(&path, (0..40).map(line).collect::<String>()).unwrap();
        let source = DocumentSource::open(&path).unwrap();
        prepare(letter, &source, tokenizer, &dir.join(letter), &mut |_, _| {}).unwrap()
    }

    fn mixed(dir: &Path, weights: &[f64]) -> MixedWindows {
        let corpora = ["a", "b", "c"].map(|letter| corpus(dir, letter, &Tokenizer::Bytes));
        let sources = corpora.into_iter().zip(weights.iter().copied()).collect();
        Mixture::new(sources)
            .unwrap()
            .windows(WindowKind::Documents, Split::Train, 1, 16, Some(5))
            .unwrap()
    }

    #[test]
    fn sources_have_their_share_of_each_round_and_are_read_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let windows = mixed(dir.path(), &[1.4, 0.6, 1.0]);
        let mut next = [0; 3];
        for index in 0..2 * ROUND as u64 {
            let (source, number) = windows.place(index);
            assert_eq!(number, next[source], "window {index}");
            next[source] += 1;
            // after some windows, each share is near its weight: four standard deviations of a
            // binomial variable
            if index == 3999 {
                for (count, share) in next.iter().zip([1.4 / 3.0, 0.2, 1.0 / 3.0]) {
                    let deviation = (4000.0_f64 * share * (1.0 - share)).sqrt();
                    assert!((*count as f64 - 4000.0 * share).abs() < 4.0 * deviation, "{next:?}");
                }
            }
        }
        // 65536 * 1.4/3 = 30583.47, 65536 * 0.6/3 = 13107.2, 65536 / 3 = 21845.33
        assert_eq!(next, [2 * 30_584, 2 * 13_107, 2 * 21_845]);
    }

    #[test]
    fn windows_are_a_function_of_seed_and_index() {
        let dir = tempfile::tempdir().unwrap();
        let used = mixed(dir.path(), &[0.5, 0.25, 0.25]);
        let far = 3 * ROUND as u64;
        for index in [0, far + 7, 5, ROUND as u64, far + 7, 1] {
            let fresh = mixed(dir.path(), &[0.5, 0.25, 0.25]);
            assert_eq!(used.window(index), fresh.window(index));
        }
        let ids = |windows: &MixedWindows| windows.batch(1, 30);
        let corpora = Mixture::new(vec![
            (PreparedCorpus::open(&dir.path().join("a")).unwrap(), 0.5),
            (PreparedCorpus::open(&dir.path().join("b")).unwrap(), 0.5),
        ]);
        let corpora = corpora.unwrap();
        for kind in KINDS {
            let of_seed =
                |seed| ids(&corpora.windows(kind, Split::Train, 1, 16, Some(seed)).unwrap());
            assert_ne!(of_seed(1), of_seed(2));
            assert_eq!(of_seed(1), of_seed(1));
        }
    }

    #[test]
    fn one_source_has_the_windows_of_its_corpus() {
        let dir = tempfile::tempdir().unwrap();
        let corpus = corpus(dir.path(), "a", &Tokenizer::Bytes);
        let single = Mixture::new(vec![(corpus.clone(), 0.3)]).unwrap();
        for (kind, mixture) in KINDS
            .into_iter()
            .flat_map(|kind| [(kind, Mixture::from(&corpus)), (kind, single.clone())])
        {
            let packing = corpus.packing(kind, Split::Train, 4, 16, Some(7)).unwrap();
            let windows = mixture.windows(kind, Split::Train, 4, 16, Some(7)).unwrap();
            assert_eq!(windows.batch(2, 100), packing.batch(2, 100));
        }
    }

    #[test]
    fn other_tokenizers_and_weights_without_meaning_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let bpe = Tokenizer::train_bpe(["a b".to_string()].into_iter(), 258).unwrap();
        let (a, b) = (corpus(dir.path(), "a", &Tokenizer::Bytes), corpus(dir.path(), "b", &bpe));
        let error = |sources| Mixture::new(sources).unwrap_err().to_string();
        let text = error(vec![(a.clone(), 0.5), (b.clone(), 0.5)]);
        let names = [&a, &b].map(|corpus| corpus.dir.display().to_string());
        assert!(names.iter().all(|name| text.contains(name)), "{text}");
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let text = error(vec![(a.clone(), 1.0), (a.clone(), weight)]);
            assert!(text.contains("not a positive number"), "{text}");
        }
        let text = error(vec![(a.clone(), 1.0), (a.clone(), 1e-9)]);
        assert!(text.contains("1/65536"), "{text}");
        assert!(error(Vec::new()).contains("no source"));
    }
}
