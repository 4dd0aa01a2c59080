//! Runs guesses and chooses tokens from the logits after them.

use std::collections::HashMap;
use std::time::Instant;

use block_transformer_family::{BlockDecoding, BlockRow, PaddingMask, SpeculativeDecoding};
use block_transformer_layers::{Indices, Positions, int_tensor};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::draft::Guess;
use super::plan::LEAST_GAIN;
use super::{Planned, Speculation};
use crate::choose::LogitRows;
use crate::error::GenerationError;
use crate::runner::Runner;
use crate::sampler::Choice;
use crate::scheduler::{FinishedBlock, Prompts, Row};

/// A pass that has run the inputs of several rows.
pub(crate) struct Pass {
    /// `[rows, time, vocab]`
    logits: Tensor<3>,
    /// Positions of the token decoder in all rows.
    positions: usize,
    started: Instant,
}

/// A sequence inside a step.
struct Progress<'a> {
    row: Row<'a>,
    slot: usize,
    /// The guesses that the last pass has run.
    guess: Vec<u32>,
    /// The tokens chosen in this step.
    chosen: Vec<Option<Choice>>,
    /// How many of them are in the draft of the sequence.
    drafted: usize,
    /// The row of the last pass that has the logits of the next token.
    at: usize,
    /// The last row of the last pass that belongs to the sequence.
    last: usize,
    /// Place of the next token in its block.
    place: usize,
    done: bool,
}

impl Progress<'_> {
    /// Chooses tokens from the logits of a pass of `time` places per row, up to the first one that is not
    /// equal to the guess for it. Returns the number of right guesses.
    fn choose(
        &mut self,
        logits: &LogitRows,
        [time, length]: [usize; 2],
    ) -> Result<usize, GenerationError> {
        let (mut index, mut right) = (0, 0);
        loop {
            let chosen = logits.choose(self.at * time + index, self.row.sampler)?;
            let token = chosen.as_ref().map(|chosen| chosen.token);
            self.chosen.push(chosen);
            let ends = token.is_none_or(|token| self.row.ends.finish(token).is_some());
            self.row.left -= usize::from(!ends);
            if ends || self.row.left == 0 {
                self.done = true;
                return Ok(right);
            }
            let is_right = self.guess.get(right).copied() == token;
            right += usize::from(is_right);
            (self.place, index) = (self.place + 1, index + 1);
            if self.place == length {
                self.done = !is_right || self.at == self.last;
                (self.at, self.place, index) = (self.at + 1, 0, 0);
            }
            if self.done || !is_right {
                return Ok(right);
            }
        }
    }

    /// The tokens chosen in this step.
    fn tokens(&self) -> impl DoubleEndedIterator<Item = Option<u32>> + ExactSizeIterator {
        self.chosen.iter().map(|chosen| chosen.as_ref().map(|chosen| chosen.token))
    }

    /// The last token.
    fn token(&self) -> u32 {
        let last = self.tokens().last().flatten();
        last.expect("a sequence that goes on has a token")
    }
}

impl Speculation {
    /// Runs the finished blocks, the prompts and the guesses of the planned `rows`.
    pub(crate) fn start(
        &mut self,
        runner: &mut Runner,
        (finished, prompts): (&[FinishedBlock<'_>], &Prompts),
        rows: &[Planned],
    ) -> Pass {
        let (length, device) = (self.sizes.block_length, runner.device().clone());
        let blocks: Vec<usize> = rows.iter().map(|row| 1 + row.run / length).collect();
        // the slot and the number of the block of each state
        let mut of_state = Vec::new();
        let mut states = Vec::new();
        if !finished.is_empty() {
            let start = Instant::now();
            let planned = |slot: usize| {
                let row = rows.binary_search_by_key(&slot, |row| row.slot);
                row.expect("every finished block has a planned row")
            };
            let most = finished.iter().map(|block| blocks[planned(block.slot)]).max().unwrap_or(1);
            let appended = if most == 1 {
                runner.append(finished)
            } else {
                let mut ids = Vec::new();
                for block in finished {
                    let guessed = rows[planned(block.slot)].tokens();
                    let whole = guessed.len() / length * length;
                    let ends = ids.len() + most * length;
                    ids.extend(block.ids.iter().chain(&guessed[..whole]));
                    // rows with fewer guesses; nothing reads these blocks
                    ids.resize(ends, block.ids[0]);
                }
                let slots: Indices = finished.iter().map(|block| block.slot).collect();
                let starts = finished.iter().map(|block| block.before).collect();
                let ids = int_tensor(ids, &device).reshape([finished.len(), most, length]);
                let at = Positions::Slots { slots, starts };
                verifier(&mut **runner.decoding()).append_all(ids, &PaddingMask::full(), &at)
            };
            let [count, positions, width] = appended.dims();
            let per_block = positions / most;
            states.push(appended.reshape([count * most, per_block, width]));
            of_state
                .extend(finished.iter().flat_map(|block| (0..most).map(move |j| (block.slot, j))));
            self.appends.record(count * positions, start.elapsed().as_secs_f64());
        }
        for (slots, state) in runner.prefill(prompts) {
            of_state.extend(slots.into_iter().map(|slot| (slot, 0)));
            states.push(state);
        }
        let states = if states.len() == 1 { states.remove(0) } else { Tensor::cat(states, 0) };
        let of_state: HashMap<(usize, usize), usize> =
            of_state.into_iter().enumerate().map(|(state, of)| (of, state)).collect();
        let wanted: Vec<usize> = rows
            .iter()
            .zip(&blocks)
            .flat_map(|(row, &blocks)| (0..blocks).map(move |j| (row.slot, j)))
            .map(|wanted| of_state[&wanted])
            .collect();
        let in_order = wanted.iter().enumerate().all(|(i, &state)| i == state);
        let states = if in_order && wanted.len() == of_state.len() {
            states
        } else {
            states.select(0, int_tensor(wanted.iter().copied(), &device))
        };
        // the guesses inside each block; the last token of a block is never an input
        let inside = rows.iter().zip(&blocks).flat_map(|(row, &blocks)| {
            let block = move |j: usize| row.tokens().get(j * length..).unwrap_or(&[]);
            (0..blocks).map(move |j| &block(j)[..block(j).len().min(length - 1)])
        });
        let inside: Vec<&[u32]> = inside.collect();
        let guesses = inside.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let guessed = (guesses > 0).then(|| {
            let padded = inside.iter().flat_map(|ids| {
                ids.iter().copied().chain(std::iter::repeat_n(0, guesses - ids.len()))
            });
            int_tensor(padded, &device).reshape([inside.len(), guesses])
        });
        let started = Instant::now();
        let positions = inside.len() * (self.sizes.first + guesses);
        let logits = verifier(&mut **runner.decoding()).start_guessed(states, guessed);
        Pass { logits, positions, started }
    }

    /// Chooses the tokens of at least one block of every row, with further passes where guesses were
    /// wrong. Returns the tokens of each row; `None` stands for logits that are not finite.
    ///
    /// # Errors
    /// [`GenerationError::Device`] when logits cannot be read.
    pub(crate) fn finish(
        &mut self,
        runner: &mut Runner,
        mut pass: Pass,
        planned: &[Planned],
        rows: Vec<Row<'_>>,
    ) -> Result<Vec<Vec<Option<Choice>>>, GenerationError> {
        let length = self.sizes.block_length;
        let mut next = 0;
        let mut all: Vec<Progress<'_>> = Vec::new();
        for (row, planned) in rows.into_iter().zip(planned) {
            let blocks = 1 + planned.run / length;
            all.push(Progress {
                row,
                slot: planned.slot,
                guess: planned.tokens().to_vec(),
                chosen: Vec::new(),
                drafted: 0,
                at: next,
                last: next + blocks - 1,
                place: 0,
                done: false,
            });
            next += blocks;
        }
        let mut going: Vec<&mut Progress<'_>> = all.iter_mut().collect();
        loop {
            self.choose(pass, &mut going)?;
            going.retain(|row| !row.done);
            if going.is_empty() {
                break;
            }
            pass = self.go_on(runner, &mut going);
        }
        for (row, planned) in all.iter_mut().zip(planned) {
            self.draft(row);
            let guess = &planned.guess;
            let pairs = guess.tokens.iter().zip(row.tokens());
            let right = pairs.take_while(|(guessed, token)| Some(**guessed) == *token).count();
            let wrong = right < guess.tokens.len().min(row.chosen.len());
            for of in [&mut self.all, &mut self.sequences.entry(row.slot).or_default().acceptance] {
                of.record(guess, right, wrong);
            }
        }
        self.counts.tokens += all.iter().map(|row| row.chosen.len()).sum::<usize>();
        Ok(all.into_iter().map(|row| row.chosen).collect())
    }

    /// Chooses the next tokens of the rows from a pass.
    fn choose(
        &mut self,
        pass: Pass,
        rows: &mut [&mut Progress<'_>],
    ) -> Result<(), GenerationError> {
        let [count, time, vocab] = pass.logits.dims();
        let greedy = rows.iter().map(|row| row.row.sampler.needs_maximum_only());
        let logits = LogitRows::new(pass.logits.reshape([count * time, vocab]), greedy)?;
        self.passes.record(pass.positions, pass.started.elapsed().as_secs_f64());
        self.counts.passes += rows.len();
        self.counts.guessed += rows.iter().map(|row| row.guess.len()).sum::<usize>();
        let length = self.sizes.block_length;
        let right = rows.par_iter_mut().map(|row| row.choose(&logits, [time, length]));
        self.counts.right += right.sum::<Result<usize, _>>()?;
        Ok(())
    }

    /// Runs the last token of each row, and guesses for the rest of its block.
    fn go_on(&mut self, runner: &mut Runner, rows: &mut [&mut Progress<'_>]) -> Pass {
        rows.iter_mut().for_each(|row| self.draft(row));
        self.guess_again(rows);
        let time = 1 + rows[0].guess.len();
        let at: Vec<BlockRow> =
            rows.iter().map(|row| BlockRow { row: row.at, place: row.place - 1 }).collect();
        let ids = rows.iter().flat_map(|row| std::iter::once(row.token()).chain(row.guess.clone()));
        let ids = int_tensor(ids, runner.device()).reshape([rows.len(), time]);
        for (i, row) in rows.iter_mut().enumerate() {
            (row.at, row.last) = (i, i);
        }
        let started = Instant::now();
        let logits = verifier(&mut **runner.decoding()).decode_guessed(&at, ids);
        Pass { logits, positions: rows.len() * time, started }
    }

    /// Adds the tokens of a row to its draft.
    fn draft(&mut self, row: &mut Progress<'_>) {
        let new = row.tokens().skip(row.drafted).flatten();
        self.sequences.entry(row.slot).or_default().draft.extend(new);
        row.drafted = row.chosen.len();
    }

    /// Guesses tokens for the rest of each row's block, the same number for all rows.
    fn guess_again(&self, rows: &mut [&mut Progress<'_>]) {
        let count = rows.len();
        let guesses: Vec<Guess> = rows
            .iter()
            .map(|row| {
                let most = self.sizes.most_again(row.place).min(self.most()).min(row.row.left - 1);
                self.sequences[&row.slot].draft.guess(most, self.ngrams.as_deref())
            })
            .collect();
        let most = guesses.iter().map(|guess| guess.tokens.len()).min().unwrap_or(0);
        let rate = rows.iter().zip(&guesses).map(|(row, guess)| self.rate(row.slot, guess));
        let rate = rate.fold(1.0, f64::min);
        let plain = self.passes.predict(count);
        let pays = |&run: &usize| {
            let expected: f64 = (0..=run).map(|i| rate.powi(i as i32)).sum();
            let time = self.passes.predict(count * (1 + run));
            time.zip(plain).is_some_and(|(time, plain)| expected * plain > time * LEAST_GAIN)
        };
        let run = match self.fixed {
            Some(_) => most,
            None => (1..=most).rev().find(pays).unwrap_or(0),
        };
        let positions = count * (1 + run);
        let run = if self.sizes.allows(count, positions, positions) { run } else { 0 };
        for (row, guess) in rows.iter_mut().zip(guesses) {
            row.guess = guess.tokens[..run].to_vec();
        }
    }
}

fn verifier(decoding: &mut dyn BlockDecoding) -> &mut dyn SpeculativeDecoding {
    decoding.speculative().expect("only a model that verifies guesses gets here")
}
