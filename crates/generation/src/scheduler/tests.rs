//! Random schedules, run on slots that hold tokens instead of keys and values.

use std::collections::HashMap;
use std::sync::Weak;

use block_transformer_text::PAD;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::prefixes::HeadBytes;
use crate::sampling::Sampling;

const VOCAB: u64 = 7;
const EOS: u32 = 0;

/// The tokens of every slot, and the rows of the previous step.
struct Slots {
    block_length: usize,
    tokens: Vec<Vec<u32>>,
    /// Slot and block in progress of each row.
    rows: Vec<(usize, Vec<u32>)>,
    /// Heads that are kept, with their tokens.
    kept: Vec<(Weak<Head>, Vec<u32>)>,
    /// Blocks of prompts that were run.
    run: usize,
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

    fn start(&mut self, finished: &[FinishedBlock<'_>], prompts: &Prompts) {
        let mut rows = Vec::new();
        for block in finished {
            let tokens = &mut self.tokens[block.slot];
            assert_eq!(block.ids.len(), self.block_length);
            assert_eq!(tokens.len(), block.before * self.block_length, "tokens lost");
            tokens.extend(block.ids);
            rows.push((block.slot, Vec::new()));
        }
        for Round { restored, pieces } in &prompts.rounds {
            restored.iter().for_each(|restored| self.restore(restored));
            pieces.iter().for_each(|piece| self.run_piece(piece));
        }
        for (slot, head) in &prompts.kept {
            assert!(head.layers().is_none(), "kept twice");
            head.keep(Vec::new());
            let tokens = self.tokens[*slot][..head.blocks * self.block_length].to_vec();
            self.kept.push((Arc::downgrade(head), tokens));
        }
        for NewRow { slot, text, .. } in &prompts.new {
            let expected: Vec<u32> =
                text.iter().flat_map(|ids| padded(ids, self.block_length)).collect();
            assert_eq!(self.tokens[*slot], expected, "another prompt");
            rows.push((*slot, Vec::new()));
        }
        rows.sort();
        assert!(rows.windows(2).all(|rows| rows[0].0 != rows[1].0), "two rows in one slot");
        self.rows = rows;
    }

    fn restore(&mut self, Restored { slot, head, from, .. }: &Restored) {
        let of = |kept: &&(Weak<Head>, _)| kept.0.ptr_eq(&Arc::downgrade(head));
        let all = match from {
            Some(from) => &self.tokens[*from],
            None => &self.kept.iter().find(of).expect("the head is kept").1,
        };
        self.tokens[*slot] = all[..head.blocks * self.block_length].to_vec();
    }

    fn run_piece(&mut self, piece: &PromptPiece) {
        let PromptPiece { slot, before, ids, blocks, total, .. } = piece;
        let (all, tokens) = (padded(ids, self.block_length), &mut self.tokens[*slot]);
        assert!(!blocks.is_empty() && all.len() == total * self.block_length);
        if before + blocks.start == 0 {
            tokens.clear();
        }
        assert_eq!(tokens.len(), (before + blocks.start) * self.block_length, "blocks lost");
        tokens.extend(&all[blocks.start * self.block_length..blocks.end * self.block_length]);
        self.run += blocks.len();
    }

    /// The blocks of kept heads.
    fn kept_blocks(&mut self) -> Vec<usize> {
        self.kept.retain(|(head, _)| head.strong_count() > 0);
        self.kept.iter().map(|(_, tokens)| tokens.len() / self.block_length).collect()
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

/// A prompt and the options of its choices.
#[derive(Clone, Debug)]
struct Submission {
    prefix: Vec<u32>,
    prompt: Vec<u32>,
    options: Vec<Options>,
}

impl Submission {
    /// The tokens that a choice gets alone, and the reason for its end.
    fn answer(&self, options: &Options, block_length: usize) -> (Vec<u32>, Finish) {
        let mut sampler = Sampler::new(options);
        let mut history =
            [&self.prefix, &self.prompt].map(|ids| padded(ids, block_length)).concat();
        let known = history.len();
        while history.len() - known < options.max_tokens {
            let id = sampler.choose(&logits(history.iter().copied())).unwrap();
            if options.eos == Some(id) {
                return (history.split_off(known), Finish::Eos);
            }
            if options.stop_tokens.contains(&id) {
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
    let options = options.prop_map(|(max_tokens, kinds, rng_stream)| {
        let (ends, samples, narrow, stops, penalizes) = kinds;
        let mut sampling = if samples { Sampling::at(0.8, 3) } else { Sampling::greedy() };
        sampling.frequency_penalty = if penalizes { 1.5 } else { 0.0 };
        let eos = ends.then_some(EOS);
        // excludes tokens that are often most likely
        let allowed_vocab = narrow.then_some(4);
        let options =
            Options { sampling, max_tokens, eos, allowed_vocab, rng_stream, ..Options::default() };
        let stop_tokens = if stops { vec![9, 2] } else { Vec::new() };
        Options { stop_tokens, ..options }
    });
    // few prefixes, so that sequences share them
    let prefix =
        (0..4_usize).prop_map(|n| [&[][..], &[3], &[2, 2, 5], &[1, 3, 2, 4, 0, 6, 5]][n].to_vec());
    let choices = prop_oneof![2 => 1..2_usize, 1 => 2..5_usize];
    (prefix, vec(0..VOCAB as u32, 0..10), choices.prop_flat_map(move |n| vec(options.clone(), n)))
        .prop_map(|(prefix, prompt, options)| {
            let prompt = if prefix.is_empty() && prompt.is_empty() { vec![EOS] } else { prompt };
            Submission { prefix, prompt, options }
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
    fn new(slots: usize, block_length: usize, (prompt_blocks, budget): (usize, u64)) -> Self {
        let mut scheduler = Scheduler::new(block_length, slots, prompt_blocks);
        scheduler.prefixes = Prefixes::new(HeadBytes { block: 1, states: 0 });
        scheduler.prefixes.set_budget(budget);
        let (tokens, rows, kept) = (vec![Vec::new(); slots], Vec::new(), Vec::new());
        let slots = Slots { block_length, tokens, rows, kept, run: 0 };
        Self { scheduler, slots, sequences: HashMap::new(), ids: Vec::new() }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Submit(submitted) => {
                let Submission { prefix, prompt, options } = &submitted;
                let ids = self.scheduler.submit_choices(prefix, prompt, options);
                for (id, options) in ids.into_iter().zip(options) {
                    let answer = submitted.answer(options, self.slots.block_length);
                    let sequence = Sequence { answer, written: Vec::new(), over: false };
                    assert!(self.sequences.insert(id, sequence).is_none(), "an id used twice");
                    self.ids.push(id);
                }
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
        self.check_kept();
    }

    /// Prefixes stay within their budget. Besides them, at most one head is kept, for choices that wait.
    fn check_kept(&mut self) {
        let counts = self.scheduler.prefixes.counts(1);
        assert!(counts.bytes <= counts.budget, "{counts:?}");
        let kept = self.slots.kept_blocks();
        assert!(kept.len() <= counts.entries + 1, "{kept:?} {counts:?}");
        let waits = self.scheduler.waiting() > 0;
        assert!(waits || kept.len() == counts.entries, "{kept:?} {counts:?}");
        if kept.len() == counts.entries {
            assert_eq!(kept.iter().sum::<usize>() as u64, counts.bytes, "{kept:?} {counts:?}");
        }
    }

    fn step(&mut self) {
        let mut events = self.scheduler.take_ended();
        let (running, limit) = (self.scheduler.running.len(), self.scheduler.prompt_blocks);
        if let Some(planned) = self.scheduler.plan() {
            if let SchedulerOutput::Start { prompts, .. } = &planned {
                let pieces = prompts.rounds.iter().flat_map(|round| &round.pieces);
                let blocks: usize = pieces.map(|piece| piece.blocks.len()).sum();
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
        budget in 0..9_u64,
        schedule in vec(acts(), 1..60),
    ) {
        let mut watched = Watched::new(slots, block_length, (prompt_blocks, budget));
        for act in schedule {
            watched.act(act);
        }
        // the others end; in the worst case one after the other, with a step of each block of their prompts
        let most = (watched.ids.len() + 1) * (12 + 17 * block_length);
        for _ in 0..most {
            watched.act(Act::Step);
        }
        assert!(watched.scheduler.is_idle());
        let counts = watched.scheduler.prefixes.counts(1);
        // nothing is needed any more, so that all prefixes can be given up
        watched.scheduler.prefixes.set_budget(0);
        prop_assert_eq!(watched.scheduler.prefixes.counts(1).bytes, 0);
        prop_assert!(counts.misses + counts.hits <= watched.ids.len());
    }
}
