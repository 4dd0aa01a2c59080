//! Random schedules, run on slots that hold tokens instead of keys and values.

use std::collections::HashMap;

use block_transformer_text::PAD;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::sampling::Sampling;

const VOCAB: u64 = 7;
const EOS: u32 = 0;

/// The tokens of every slot, and the rows of the previous step.
struct Slots {
    block_length: usize,
    tokens: Vec<Vec<u32>>,
    /// Slot and block in progress of each row.
    rows: Vec<(usize, Vec<u32>)>,
}

/// Pads a prompt on the left to whole blocks.
fn padded(prompt: &[u32], block_length: usize) -> Vec<u32> {
    let padding = prompt.len().next_multiple_of(block_length) - prompt.len();
    [vec![PAD; padding], prompt.to_vec()].concat()
}

/// Logits that depend on every token of a sequence.
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

impl Slots {
    /// Carries out the output of a scheduler and returns the logits of its rows.
    fn run(&mut self, planned: &SchedulerOutput<'_>) -> Vec<Vec<f32>> {
        match planned {
            SchedulerOutput::Start { finished, prompts } => self.start(finished, prompts),
            SchedulerOutput::Continue { kept, ids } => self.proceed(kept, ids),
        }
        let rows = self.rows.iter();
        rows.map(|(slot, block)| logits(self.tokens[*slot].iter().chain(block).copied())).collect()
    }

    fn start(&mut self, finished: &[FinishedBlock<'_>], prompts: &[PromptPiece]) {
        let mut rows = Vec::new();
        for block in finished {
            let tokens = &mut self.tokens[block.slot];
            assert_eq!(block.ids.len(), self.block_length);
            assert_eq!(tokens.len(), block.before * self.block_length, "tokens lost");
            tokens.extend(block.ids);
            rows.push((block.slot, Vec::new()));
        }
        for PromptPiece { slot, before, ids, blocks, .. } in prompts {
            assert!(*before == 0 && !ids.is_empty() && !blocks.is_empty());
            let (all, tokens) = (padded(ids, self.block_length), &mut self.tokens[*slot]);
            if blocks.start == 0 {
                tokens.clear();
            }
            assert_eq!(tokens.len(), blocks.start * self.block_length, "blocks lost");
            tokens.extend(&all[tokens.len()..blocks.end * self.block_length]);
            if tokens.len() == all.len() {
                rows.push((*slot, Vec::new()));
            }
        }
        rows.sort();
        assert!(rows.windows(2).all(|rows| rows[0].0 != rows[1].0), "two rows in one slot");
        self.rows = rows;
    }

    fn proceed(&mut self, kept: &[usize], ids: &[u32]) {
        assert!(kept.is_sorted_by(|a, b| a < b) && kept.len() == ids.len());
        self.rows = kept.iter().map(|&row| self.rows[row].clone()).collect();
        for ((_, block), &id) in self.rows.iter_mut().zip(ids) {
            block.push(id);
            assert!(block.len() < self.block_length);
        }
    }
}

/// A prompt and its options.
#[derive(Clone, Debug)]
struct Submission {
    prompt: Vec<u32>,
    options: Options,
}

impl Submission {
    /// The tokens that the prompt gets alone, and the reason for its end.
    fn answer(&self, block_length: usize) -> (Vec<u32>, Finish) {
        let mut sampler = Sampler::new(&self.options);
        let mut history = padded(&self.prompt, block_length);
        let known = history.len();
        while history.len() - known < self.options.max_tokens {
            let id = sampler.choose(&logits(history.iter().copied())).unwrap();
            if self.options.eos == Some(id) {
                return (history.split_off(known), Finish::Eos);
            }
            if self.options.stop_tokens.contains(&id) {
                return (history.split_off(known), Finish::Stop);
            }
            history.push(id);
        }
        (history.split_off(known), Finish::Length)
    }
}

#[derive(Clone, Debug)]
enum Act {
    Submit(Submission),
    /// Cancels one of the sequences submitted so far, which may have ended.
    Cancel(usize),
    Step,
}

fn submissions() -> impl Strategy<Value = Submission> {
    let kinds = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let options = (0..12_usize, kinds, 0..4_usize);
    (vec(0..VOCAB as u32, 1..10), options).prop_map(|(prompt, options)| {
        let (max_tokens, (ends, samples, narrow, stops, penalizes), rng_stream) = options;
        let mut sampling = if samples { Sampling::at(0.8, 3) } else { Sampling::greedy() };
        sampling.frequency_penalty = if penalizes { 1.5 } else { 0.0 };
        let eos = ends.then_some(EOS);
        // excludes tokens that are often most likely
        let allowed_vocab = narrow.then_some(4);
        let options =
            Options { sampling, max_tokens, eos, allowed_vocab, rng_stream, ..Options::default() };
        let stop_tokens = if stops { vec![9, 2] } else { Vec::new() };
        let options = Options { stop_tokens, ..options };
        Submission { prompt, options }
    })
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => submissions().prop_map(Act::Submit),
        1 => (0..30_usize).prop_map(Act::Cancel),
        6 => Just(Act::Step),
    ]
}

/// A scheduler, and the expected answers of its sequences.
struct Watched {
    scheduler: Scheduler,
    slots: Slots,
    sequences: HashMap<SequenceId, Sequence>,
    ids: Vec<SequenceId>,
}

struct Sequence {
    answer: (Vec<u32>, Finish),
    written: Vec<u32>,
    over: bool,
}

impl Watched {
    fn new(slots: usize, block_length: usize, prompt_blocks: usize) -> Self {
        let scheduler = Scheduler::new(block_length, slots, prompt_blocks);
        let slots = Slots { block_length, tokens: vec![Vec::new(); slots], rows: Vec::new() };
        Self { scheduler, slots, sequences: HashMap::new(), ids: Vec::new() }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Submit(submitted) => {
                let answer = submitted.answer(self.slots.block_length);
                let id = self.scheduler.submit(submitted.prompt, 0, &submitted.options);
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
        let (running, waiting) = (self.scheduler.running(), self.scheduler.waiting());
        let slots = self.slots.tokens.len();
        assert_eq!(self.scheduler.free.len() + running, slots, "a slot leaked");
        let ended = self.scheduler.ended.len();
        let live = self.sequences.values().filter(|sequence| !sequence.over).count();
        assert_eq!(running + waiting + ended, live, "a sequence was lost");
        assert_eq!(self.scheduler.is_idle(), live == 0);
    }

    fn step(&mut self) {
        let mut events = self.scheduler.take_ended();
        let (running, limit) = (self.scheduler.running.len(), self.scheduler.prompt_blocks);
        if let Some(planned) = self.scheduler.plan() {
            if let SchedulerOutput::Start { prompts, .. } = &planned {
                let blocks: usize = prompts.iter().map(|prompt| prompt.blocks.len()).sum();
                assert!(running == 0 || blocks <= limit, "running sequences are delayed");
            }
            let logits = self.slots.run(&planned);
            let samplers = self.scheduler.samplers();
            assert_eq!(logits.len(), samplers.len());
            let rows = samplers.into_iter().zip(&logits);
            let choose =
                |(sampler, logits): (&mut Sampler, &Vec<f32>)| sampler.choose_with_logprobs(logits);
            let chosen = rows.map(choose).collect();
            self.scheduler.settle(chosen, &mut events);
        }
        let mut tokens = HashMap::new();
        for event in events {
            let sequence = self.sequences.get_mut(&event.id()).unwrap();
            assert!(!sequence.over, "an event of a sequence that was over");
            match event {
                Event::Token { id, token, .. } => {
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
        // running sequences never pause
        for running in &self.scheduler.running {
            assert!(tokens.contains_key(&running.id), "a running sequence got no token");
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
        block_length in 1..5_usize,
        prompt_blocks in 1..6_usize,
        schedule in vec(acts(), 1..60),
    ) {
        let mut watched = Watched::new(slots, block_length, prompt_blocks);
        for act in schedule {
            watched.act(act);
        }
        // the others end; in the worst case one after the other, with a step of each block of their prompts
        let most = (watched.ids.len() + 1) * (12 + 10 * block_length);
        for _ in 0..most {
            watched.act(Act::Step);
        }
        assert!(watched.scheduler.is_idle());
    }
}
