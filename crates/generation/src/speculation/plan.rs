//! Decides how many tokens of each sequence are guessed.

use super::draft::{Draft, Guess};
use super::{Sequence, Speculation};
use crate::scheduler::{FinishedBlock, NewRow};

/// The largest number of tokens that are guessed when cost decides.
const AUTO_TOKENS: usize = 15;
/// The lowest rate of right tokens for which a sequence takes part when cost decides.
const LOWEST_RATE: f64 = 0.25;
/// The expected gain from which guesses are run when cost decides.
pub(super) const LEAST_GAIN: f64 = 1.03;

/// Rows of logits that a pass with guesses may have, if there are not more sequences. It bounds the memory that
/// guesses need.
const MOST_LOGITS: usize = 32;

/// Sizes of the model and of its caches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpeculationSizes {
    pub block_length: usize,
    /// Positions of the block decoder per block.
    pub per_block: usize,
    /// Rows of the largest product that appends a block.
    pub append_rows: usize,
    /// Positions of the token decoder before the first token of a block.
    pub first: usize,
    /// Blocks per slot.
    pub blocks: usize,
    /// The largest number of rows of a pass whose bits do not depend on each other.
    pub rows: usize,
}

/// A row of a step.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub slot: usize,
    /// A prompt without a finished block.
    pub is_new: bool,
    /// The guess, of which the first `run` tokens are run.
    pub guess: Guess,
    pub run: usize,
}

impl Planned {
    /// The guessed tokens that are run.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.guess.tokens[..self.run]
    }
}

impl SpeculationSizes {
    /// The largest number of tokens that can be guessed for a row that has room for `room` more blocks.
    fn most(&self, is_new: bool, room: usize) -> usize {
        let blocks = if is_new { 0 } else { room };
        (blocks + 1) * self.block_length - 1
    }

    /// The largest number of tokens that can be guessed after the token of a block before `place`.
    pub(super) fn most_again(&self, place: usize) -> usize {
        self.block_length - 1 - place
    }

    /// Whether a pass of `rows` sequences may have so many rows of products and of logits.
    pub(super) fn allows(&self, rows: usize, positions: usize, logits: usize) -> bool {
        positions <= self.rows && logits <= rows.max(MOST_LOGITS)
    }

    /// Positions of the block decoder, positions of the token decoder and rows of logits in the first pass of
    /// rows that run `runs` guessed tokens.
    fn positions(&self, rows: &[Planned], runs: &[usize]) -> [usize; 3] {
        let l = self.block_length;
        let blocks = |run: &usize| 1 + run / l;
        let finished = rows.iter().zip(runs).filter(|(row, _)| !row.is_new);
        let (count, most) =
            finished.fold((0, 0), |(n, most), (_, run)| (n + 1, most.max(blocks(run))));
        let started: usize = runs.iter().map(blocks).sum();
        let inside = runs.iter().map(|&run| run.min(l - 1)).max().unwrap_or(0);
        let appended = count * most * self.per_block;
        [appended, started * (self.first + inside), started * (1 + inside)]
    }
}

impl Speculation {
    /// Plans the rows of a step, in slot order.
    pub(crate) fn plan(&mut self, finished: &[FinishedBlock<'_>], new: &[NewRow]) -> Vec<Planned> {
        for row in new {
            let mut draft = Draft::default();
            draft.extend(row.text.iter().flat_map(|ids| ids.iter().copied()));
            self.sequences.insert(row.slot, Sequence { draft, ..Sequence::default() });
        }
        // all rows append as many blocks as the row with most guesses
        let room = finished.iter().map(|block| self.sizes.blocks - block.before - 1).min();
        let finished = finished.iter().map(|block| (block.slot, false, block.left));
        let new = new.iter().map(|row| (row.slot, true, row.left));
        let mut rows: Vec<Planned> = finished
            .chain(new)
            .map(|(slot, is_new, left)| {
                let most = self.sizes.most(is_new, room.unwrap_or(0)).min(self.most());
                // the last token is never an input
                let draft = &self.sequences.entry(slot).or_default().draft;
                let guess = draft.guess(most.min(left - 1), self.ngrams.as_deref());
                Planned { slot, is_new, guess, run: 0 }
            })
            .collect();
        rows.sort_by_key(|row| row.slot);
        // the others have ended
        self.sequences.retain(|slot, _| rows.binary_search_by_key(slot, |row| row.slot).is_ok());
        let runs = match self.fixed {
            Some(most) => self.fixed_runs(&rows, most),
            None => self.paying_runs(&rows),
        };
        for (row, run) in rows.iter_mut().zip(runs) {
            row.run = run;
        }
        rows
    }

    /// The largest number of guessed tokens of a row in a pass.
    pub(super) fn most(&self) -> usize {
        self.fixed.unwrap_or(AUTO_TOKENS)
    }

    /// The tokens to run of each row: up to `most`, or fewer if the pass would have too many rows.
    fn fixed_runs(&self, rows: &[Planned], most: usize) -> Vec<usize> {
        let runs = |most: usize| rows.iter().map(move |row| row.guess.tokens.len().min(most));
        let halves = std::iter::successors(Some(most), |most| Some(most / 2));
        halves
            .map(|most| runs(most).collect())
            .find(|runs: &Vec<usize>| self.fits(rows, runs))
            .expect("the last one guesses nothing")
    }

    /// The tokens to run of each row for which most tokens per second are expected.
    fn paying_runs(&self, rows: &[Planned]) -> Vec<usize> {
        let rates: Vec<f64> = rows.iter().map(|row| self.rate(row.slot, &row.guess)).collect();
        let none = vec![0; rows.len()];
        let Some(plain) = self.speed(rows, &none, &rates) else { return none };
        let (mut best, mut most) = (none, plain * LEAST_GAIN);
        let blocks = std::iter::successors(Some(1), |blocks| Some(2 * blocks));
        let lengths = blocks.map(|blocks| blocks * self.sizes.block_length - 1);
        for length in lengths.take_while(|&length| length <= AUTO_TOKENS).filter(|&l| l > 0) {
            let pays = |(row, &rate): (&Planned, &f64)| match row.guess.tokens.len() {
                known if rate >= LOWEST_RATE => known.min(length),
                _ => 0,
            };
            let runs: Vec<usize> = rows.iter().zip(&rates).map(pays).collect();
            if !self.fits(rows, &runs) {
                break;
            }
            if let Some(speed) = self.speed(rows, &runs, &rates).filter(|&speed| speed > most) {
                (best, most) = (runs, speed);
            }
        }
        best
    }

    /// The probability that a guessed token of the sequence is right.
    pub(super) fn rate(&self, slot: usize, guess: &Guess) -> f64 {
        let sequence = self.sequences.get(&slot);
        sequence.map_or(0.0, |sequence| sequence.acceptance.rate(guess, &self.all))
    }

    /// Whether the first pass stays within the bounds of rows.
    fn fits(&self, rows: &[Planned], runs: &[usize]) -> bool {
        let [appended, started, logits] = self.sizes.positions(rows, runs);
        let allows = |positions| self.sizes.allows(rows.len(), positions, logits);
        // rows without guesses append as many blocks as those with most
        let blocks = appended / self.sizes.per_block;
        let few = blocks <= 2 * rows.len().max(MOST_LOGITS);
        let allowed = few && allows(blocks * self.sizes.append_rows) && allows(started);
        allowed || runs.iter().all(|&run| run == 0)
    }

    /// The expected tokens per second of a step; `None` before passes have been measured.
    fn speed(&self, rows: &[Planned], runs: &[usize], rates: &[f64]) -> Option<f64> {
        let l = self.sizes.block_length;
        let [appended, started, _] = self.sizes.positions(rows, runs);
        let mut time = if appended > 0 { self.appends.predict(appended)? } else { 0.0 };
        time += self.passes.predict(started)?;
        if l > 1 {
            time += further_passes(runs, rates, l) * self.passes.predict(rows.len())?;
        }
        // block `j` is reached if the `j * l` tokens before it are right
        let tokens = runs.iter().zip(rates).map(|(&run, &rate)| {
            (0..=run / l).map(|j| l as f64 * rate.powi((j * l) as i32)).sum::<f64>()
        });
        Some(tokens.sum::<f64>() / time)
    }
}

/// The expected number of passes after the first one: the most of any row. A row without guesses takes
/// `l - 1`, another one a pass for each wrong guess.
fn further_passes(runs: &[usize], rates: &[f64], l: usize) -> f64 {
    let at_most = |passes: usize| -> f64 {
        let of_row = |(&run, &rate): (&usize, &f64)| {
            if run == 0 { 0.0 } else { binomial_cdf(passes, l - 1, 1.0 - rate) }
        };
        runs.iter().zip(rates).map(of_row).product()
    };
    (0..l - 1).map(|passes| 1.0 - at_most(passes)).sum()
}

/// The probability of at most `most` successes in `n` trials with probability `p` each.
fn binomial_cdf(most: usize, n: usize, p: f64) -> f64 {
    let mut ways = 1.0;
    (0..=most.min(n))
        .map(|k| {
            let term = ways * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32);
            ways *= (n - k) as f64 / (k + 1) as f64;
            term
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_passes_are_those_of_the_slowest_row() {
        // without guesses every row takes three passes
        assert!((further_passes(&[0], &[0.9], 4) - 3.0).abs() < 1e-12);
        assert!((further_passes(&[3, 0], &[1.0, 1.0], 4) - 3.0).abs() < 1e-12);
        assert!(further_passes(&[3, 3], &[1.0, 1.0], 4).abs() < 1e-12);
        // the mean of a binomial distribution
        assert!((further_passes(&[3], &[0.8], 4) - 0.6).abs() < 1e-12);
        // by hand: 1 - (1 - 0.5)^2 for two rows with one trial each
        assert!((further_passes(&[1, 1], &[0.5, 0.5], 2) - 0.75).abs() < 1e-12);
        assert_eq!(further_passes(&[5], &[0.5], 1), 0.0);
    }

    #[test]
    fn guesses_stay_inside_caches_and_bounds() {
        let sizes = SpeculationSizes {
            block_length: 4,
            per_block: 2,
            append_rows: 2,
            first: 2,
            blocks: 10,
            rows: 191,
        };
        assert_eq!(sizes.most(true, 9), 3);
        assert_eq!(sizes.most(false, 0), 3);
        assert_eq!(sizes.most(false, 2), 11);
        // each token is a block
        let vanilla = SpeculationSizes { block_length: 1, per_block: 1, first: 1, ..sizes };
        assert_eq!((sizes.most_again(1), sizes.most_again(3)), (2, 0));
        assert_eq!((vanilla.most(true, 5), vanilla.most(false, 5)), (0, 5));
    }
}
