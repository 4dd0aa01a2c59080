//! Random schedules over a decoder that is all bookkeeping.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::{PAD, Sampling, Work};

const VOCAB: u64 = 7;
const EOS: u32 = 0;

/// Keeps the tokens themselves, and makes logits of a hash of all that a sequence has.
struct Fake {
    length: usize,
    slots: Vec<Vec<u32>>,
    /// Slot and block in progress of each row of the last call.
    rows: Vec<(usize, Vec<u32>)>,
}

fn blocks(prompt: &[u32], length: usize) -> Vec<u32> {
    let padding = prompt.len().next_multiple_of(length) - prompt.len();
    [vec![PAD; padding], prompt.to_vec()].concat()
}

fn logits(history: impl Iterator<Item = u32>) -> Vec<f32> {
    let mut hash = history.fold(17_u64, |hash, id| {
        (hash ^ u64::from(id + 1)).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
    });
    (0..VOCAB)
        .map(|_| {
            hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040);
            (hash >> 40) as f32 / (1 << 22) as f32
        })
        .collect()
}

impl Fake {
    fn logits(&self) -> Tensor<2> {
        let rows = self.rows.iter();
        let values: Vec<f32> = rows
            .flat_map(|(slot, block)| logits(self.slots[*slot].iter().chain(block).copied()))
            .collect();
        let shape = [self.rows.len(), VOCAB as usize];
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }
}

impl Decoder for Fake {
    fn block_length(&self) -> usize {
        self.length
    }

    fn start(&mut self, written: &[Written<'_>], arriving: &[Arrival]) -> Tensor<2> {
        let mut rows = Vec::new();
        for block in written {
            assert_eq!(block.ids.len(), self.length);
            assert_eq!(self.slots[block.slot].len(), block.after * self.length, "tokens lost");
            self.slots[block.slot].extend(block.ids);
            rows.push((block.slot, Vec::new()));
        }
        for arrival in arriving {
            assert!(arrival.after == 0 && !arrival.prompt.is_empty());
            self.slots[arrival.slot] = blocks(&arrival.prompt, self.length);
            rows.push((arrival.slot, Vec::new()));
        }
        rows.sort();
        assert!(rows.windows(2).all(|rows| rows[0].0 != rows[1].0), "two rows in one slot");
        self.rows = rows;
        self.logits()
    }

    fn next(&mut self, kept: &[usize], ids: &[u32]) -> Tensor<2> {
        assert!(kept.is_sorted_by(|a, b| a < b) && kept.len() == ids.len());
        self.rows = kept.iter().map(|&row| self.rows[row].clone()).collect();
        for ((_, block), &id) in self.rows.iter_mut().zip(ids) {
            block.push(id);
            assert!(block.len() < self.length);
        }
        self.logits()
    }

    fn fill(&mut self) {}

    fn work(&self) -> Work {
        Work::default()
    }
}

/// A prompt and what is asked for.
#[derive(Clone, Debug)]
struct Request {
    prompt: Vec<u32>,
    options: Options,
}

impl Request {
    /// What it gets alone.
    fn answer(&self, length: usize) -> (Vec<u32>, Finish) {
        let Options { sampling, allowed_vocab, first_prompt, .. } = self.options;
        let mut sampler = Sampler::new(sampling, allowed_vocab, first_prompt);
        let mut history = blocks(&self.prompt, length);
        let known = history.len();
        while history.len() - known < self.options.max_tokens {
            let id = sampler.choose(&logits(history.iter().copied())).unwrap();
            if self.options.eos == Some(id) {
                return (history.split_off(known), Finish::Eos);
            }
            history.push(id);
        }
        (history.split_off(known), Finish::Length)
    }
}

#[derive(Clone, Debug)]
enum Act {
    Arrive(Request),
    /// Cancels one of the sequences so far, whether it is still there or not.
    Cancel(usize),
    Step,
}

fn requests() -> impl Strategy<Value = Request> {
    let options = (0..12_usize, any::<bool>(), any::<bool>(), any::<bool>(), 0..4_usize);
    (vec(0..VOCAB as u32, 1..10), options).prop_map(|(prompt, options)| {
        let (max_tokens, ends, samples, narrow, first_prompt) = options;
        let sampling = if samples { Sampling::at(0.8, 3) } else { Sampling::greedy() };
        let eos = ends.then_some(EOS);
        // leaves out what is often most likely
        let allowed_vocab = narrow.then_some(4);
        let options = Options { sampling, max_tokens, eos, allowed_vocab, first_prompt };
        Request { prompt, options }
    })
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => requests().prop_map(Act::Arrive),
        1 => (0..30_usize).prop_map(Act::Cancel),
        6 => Just(Act::Step),
    ]
}

/// A scheduler with what is known of its sequences.
struct Watched {
    scheduler: Scheduler,
    slots: usize,
    length: usize,
    sequences: HashMap<SequenceId, Sequence>,
    ids: Vec<SequenceId>,
}

struct Sequence {
    answer: (Vec<u32>, Finish),
    written: Vec<u32>,
    over: bool,
}

impl Watched {
    fn new(slots: usize, length: usize) -> Self {
        let fake = Fake { length, slots: vec![Vec::new(); slots], rows: Vec::new() };
        let scheduler = Scheduler::new(Box::new(fake), slots);
        Self { scheduler, slots, length, sequences: HashMap::new(), ids: Vec::new() }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Arrive(request) => {
                let answer = request.answer(self.length);
                let id = self.scheduler.submit(request.prompt, 0, &request.options);
                let sequence = Sequence { answer, written: Vec::new(), over: false };
                assert!(self.sequences.insert(id, sequence).is_none(), "an id used twice");
                self.ids.push(id);
            }
            Act::Cancel(index) => {
                let Some(id) = self.ids.get(index) else { return };
                let sequence = self.sequences.get_mut(id).unwrap();
                assert_eq!(self.scheduler.cancel(*id), !sequence.over);
                sequence.over = true;
            }
            Act::Step => self.step(),
        }
        let (running, waiting) = self.scheduler.counts();
        assert_eq!(self.scheduler.free.len() + running, self.slots, "a slot leaked");
        let ended = self.scheduler.ended.len();
        let live = self.sequences.values().filter(|sequence| !sequence.over).count();
        assert_eq!(running + waiting + ended, live, "a sequence was lost");
        assert_eq!(self.scheduler.is_idle(), live == 0);
    }

    fn step(&mut self) {
        let mut tokens = HashMap::new();
        for event in self.scheduler.step().unwrap() {
            let sequence = self.sequences.get_mut(&event.id()).unwrap();
            assert!(!sequence.over, "heard of a sequence that was over");
            match event {
                Event::Token { id, token } => {
                    assert!(tokens.insert(id, token).is_none(), "two tokens in a step");
                    sequence.written.push(token);
                    assert!(sequence.answer.0.starts_with(&sequence.written), "a wrong token");
                }
                Event::Finished { reason, .. } => {
                    assert_eq!(
                        (&sequence.written, reason),
                        (&sequence.answer.0, sequence.answer.1)
                    );
                    sequence.over = true;
                }
            }
        }
        // those that have a slot never pause
        for row in &self.scheduler.rows {
            assert!(tokens.contains_key(&row.id), "a running sequence got no token");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_schedule_leaks_a_slot_or_loses_a_token(
        slots in 1..5_usize,
        length in 1..5_usize,
        schedule in vec(acts(), 1..60),
    ) {
        let mut watched = Watched::new(slots, length);
        for act in schedule {
            watched.act(act);
        }
        // everybody else comes to an end: at worst one after the other, a block late each
        let most = (watched.ids.len() + 1) * (12 + length);
        for _ in 0..most {
            watched.act(Act::Step);
        }
        assert!(watched.scheduler.is_idle());
    }
}
