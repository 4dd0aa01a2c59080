//! Assigns slots to sequences, and plans the work of the model in each step.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::event::{Event, Finish, SequenceId};
use crate::options::{EndTokens, Options};
use crate::prefixes::{Head, Prefixes};
use crate::sampler::{Choice, Sampler};

mod prompts;

pub(crate) use prompts::{NewRow, PromptPiece, Prompts, Restored, Round};
use prompts::{Prefilling, Segment};

/// Gives slots to sequences and keeps their progress. It does not depend on the model. A step
/// consists of [`plan`](Self::plan), the work of a runner, and [`settle`](Self::settle).
///
/// All running sequences are at the same place of their blocks. A sequence joins at the start of a
/// block, after its prompt, and can leave after any token. While sequences are running, a step runs a limited
/// number of blocks of prompts.
pub(crate) struct Scheduler {
    block_length: usize,
    /// Blocks of prompts that a step runs while sequences are running.
    prompt_blocks: usize,
    free: BTreeSet<usize>,
    waiting: VecDeque<Waiting>,
    /// Sequences with a slot whose prompts have not been run to their end.
    prefilling: Vec<Prefilling>,
    /// In slot order.
    running: Vec<Running>,
    /// Tokens already chosen in the block in progress.
    place: usize,
    /// Events of sequences that ended before they got a slot.
    ended: Vec<Event>,
    next_id: u64,
    /// Blocks that sequences share.
    pub(crate) prefixes: Prefixes,
}

/// The work of the model in one step.
#[derive(Clone, Debug)]
pub(crate) enum SchedulerOutput<'a> {
    /// Runs `prompts`, and starts a block of the sequences with `finished` blocks, and of those whose prompt
    /// ends.
    Start { finished: Vec<FinishedBlock<'a>>, prompts: Prompts },
    /// Continues the block in progress with the rows `kept` of the previous step, which chose `ids`.
    Continue { kept: Vec<usize>, ids: Vec<u32> },
}

/// A block in which all tokens have been chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FinishedBlock<'a> {
    pub slot: usize,
    /// Blocks before it in the slot.
    pub before: usize,
    pub ids: &'a [u32],
    /// Tokens that may still be chosen.
    pub left: usize,
}

/// A sequence without a slot.
struct Waiting {
    /// The prompt.
    segments: Vec<Segment>,
    /// Blocks before the prompt in its slot.
    before: usize,
    sequence: Running,
}

/// What a planned row needs to choose several tokens.
pub(crate) struct Row<'a> {
    pub sampler: &'a mut Sampler,
    pub ends: &'a EndTokens,
    /// Tokens that may still be chosen.
    pub left: usize,
}

struct Running {
    id: SequenceId,
    slot: usize,
    /// Row in the previous step.
    row: usize,
    /// Blocks of the slot before the one in progress.
    blocks: usize,
    /// Tokens of the block in progress; empty in the first step.
    block: Vec<u32>,
    sampler: Sampler,
    ends: EndTokens,
    /// Tokens that may still be chosen.
    left: usize,
}

impl Scheduler {
    /// A scheduler for `slots` slots. While sequences are running, a step runs up to `prompt_blocks` blocks of
    /// prompts.
    pub(crate) fn new(block_length: usize, slots: usize, prompt_blocks: usize) -> Self {
        Self {
            block_length,
            prompt_blocks,
            free: (0..slots).collect(),
            waiting: VecDeque::new(),
            prefilling: Vec::new(),
            running: Vec::new(),
            place: 0,
            ended: Vec::new(),
            next_id: 0,
            prefixes: Prefixes::default(),
        }
    }

    /// Queues a prompt of at least one token, to be placed after the first `before` blocks of its
    /// slot.
    pub(crate) fn submit(
        &mut self,
        prompt: Vec<u32>,
        before: usize,
        options: &Options,
    ) -> SequenceId {
        let segment = self.segment(&prompt);
        self.queue(vec![segment], before, options)
    }

    /// Queues a sequence for each of `options`, with the same prompt after the same prefix. One of them can be empty.
    pub(crate) fn submit_choices(
        &mut self,
        prefix: &[u32],
        prompt: &[u32],
        options: &[Options],
    ) -> Vec<SequenceId> {
        let parts = [prefix, prompt].into_iter().filter(|ids| !ids.is_empty());
        let mut segments: Vec<Segment> = parts.map(|ids| self.segment(ids)).collect();
        if let Some(first) = segments.first_mut().filter(|_| !prefix.is_empty()) {
            first.heads.push(self.prefixes.of(prefix, first.blocks));
        }
        let blocks = segments.iter().map(|segment| segment.blocks).sum();
        let choices = options.iter().filter(|options| options.max_tokens > 0).count();
        if let Some(last) = segments.last_mut().filter(|_| choices > 1) {
            last.heads.push(Arc::new(Head::of_choices(blocks)));
        }
        options.iter().map(|options| self.queue(segments.clone(), 0, options)).collect()
    }

    /// A part of a prompt that no other sequence shares.
    fn segment(&self, ids: &[u32]) -> Segment {
        let blocks = ids.len().div_ceil(self.block_length);
        Segment { ids: ids.into(), blocks, heads: Vec::new() }
    }

    /// Queues a prompt after the first `before` blocks of its slot.
    fn queue(&mut self, segments: Vec<Segment>, before: usize, options: &Options) -> SequenceId {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        if options.max_tokens == 0 {
            self.ended.push(Event::Finished { id, reason: Finish::Length });
            return id;
        }
        let sequence = Running {
            id,
            slot: 0,
            row: 0,
            blocks: before + segments.iter().map(|segment| segment.blocks).sum::<usize>(),
            block: Vec::new(),
            sampler: Sampler::new(options),
            ends: EndTokens::new(options),
            left: options.max_tokens,
        };
        self.waiting.push_back(Waiting { segments, before, sequence });
        id
    }

    /// Removes a sequence and frees its slot. Returns false if the sequence has already ended.
    pub(crate) fn cancel(&mut self, id: SequenceId) -> bool {
        let before = self.live();
        self.waiting.retain(|waiting| waiting.sequence.id != id);
        self.ended.retain(|event| event.id() != id);
        let free = &mut self.free;
        self.running.retain(|running| {
            if running.id == id {
                free.insert(running.slot);
            }
            running.id != id
        });
        self.prefilling.retain(|prefilling| {
            if prefilling.sequence.id == id {
                free.insert(prefilling.sequence.slot);
            }
            prefilling.sequence.id != id
        });
        before != self.live()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.live() == 0
    }

    /// Sequences that have not ended, and ends that have not been reported.
    fn live(&self) -> usize {
        self.waiting.len() + self.running() + self.ended.len()
    }

    /// Limits the blocks of prompts that a step runs while sequences are running; at least one.
    pub(crate) fn set_prompt_blocks(&mut self, blocks: usize) {
        self.prompt_blocks = blocks.max(1);
    }

    /// Sequences with a slot.
    pub(crate) fn running(&self) -> usize {
        self.prefilling.len() + self.running.len()
    }

    /// Sequences without a slot.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the events of sequences that ended before they got a slot.
    pub(crate) fn take_ended(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.ended)
    }

    /// Returns the next step of the model, with one row for each running sequence in slot order;
    /// `None` when no sequence is left. At the start of a block, waiting sequences take free slots.
    pub(crate) fn plan(&mut self) -> Option<SchedulerOutput<'_>> {
        if !self.running.is_empty() && self.place < self.block_length {
            let kept = self.running.iter().map(|running| running.row).collect();
            let ids = self.running.iter().map(|running| running.block[self.place - 1]).collect();
            return Some(SchedulerOutput::Continue { kept, ids });
        }
        self.place = 0;
        let prompts = self.prompts();
        let finished = self.running.iter().filter_map(Running::finished_block).collect();
        (!self.running.is_empty()).then_some(SchedulerOutput::Start { finished, prompts })
    }

    /// The slots of the planned rows.
    pub(crate) fn slots(&self) -> Vec<usize> {
        self.running.iter().map(|running| running.slot).collect()
    }

    /// The samplers of the planned rows.
    pub(crate) fn samplers(&mut self) -> Vec<&mut Sampler> {
        self.running.iter_mut().map(|running| &mut running.sampler).collect()
    }

    /// The planned rows.
    pub(crate) fn rows(&mut self) -> Vec<Row<'_>> {
        let rows = self.running.iter_mut();
        rows.map(|Running { sampler, ends, left, .. }| Row { sampler, ends, left: *left }).collect()
    }

    /// Records the tokens `chosen` for the planned rows, and appends the resulting events to
    /// `events`. Sequences that end free their slots.
    pub(crate) fn settle(&mut self, chosen: Vec<Option<Choice>>, events: &mut Vec<Event>) {
        let (starts, free) = (self.place == 0, &mut self.free);
        let mut chosen = chosen.into_iter().enumerate();
        self.running.retain_mut(|running| {
            let (row, chosen) = chosen.next().expect("every planned row has a choice");
            running.row = row;
            if starts {
                running.blocks += usize::from(!running.block.is_empty());
                running.block.clear();
            }
            let continues = running.take(chosen, events);
            if !continues {
                free.insert(running.slot);
            }
            continues
        });
        self.place += 1;
    }

    /// Records the tokens of a whole block, by place and row. Rows whose sequence has ended are
    /// ignored.
    pub(crate) fn settle_block(
        &mut self,
        chosen: Vec<Vec<Option<Choice>>>,
        events: &mut Vec<Event>,
    ) {
        // the row of each running sequence
        let mut rows: Vec<usize> = (0..self.running.len()).collect();
        for mut chosen in chosen {
            let chosen = rows.iter().map(|&row| chosen[row].take()).collect();
            self.settle(chosen, events);
            rows = self.running.iter().map(|running| rows[running.row]).collect();
        }
    }

    /// Records the tokens of each planned row, which reach the end of a block or of the sequence.
    pub(crate) fn settle_runs(
        &mut self,
        chosen: Vec<Vec<Option<Choice>>>,
        events: &mut Vec<Event>,
    ) {
        let (length, free, mut chosen) = (self.block_length, &mut self.free, chosen.into_iter());
        self.running.retain_mut(|running| {
            let tokens = chosen.next().unwrap_or_default();
            let continues = tokens.into_iter().all(|chosen| {
                if running.block.len() == length {
                    running.blocks += 1;
                    running.block.clear();
                }
                running.take(chosen, events)
            });
            if !continues {
                free.insert(running.slot);
            }
            continues
        });
        self.place = length;
    }
}

impl Running {
    /// The block that the sequence has just finished; `None` if it is new.
    fn finished_block(&self) -> Option<FinishedBlock<'_>> {
        let Self { slot, blocks, block, left, .. } = self;
        let (slot, before, left) = (*slot, *blocks, *left);
        (!block.is_empty()).then_some(FinishedBlock { slot, before, ids: block, left })
    }

    /// Records the sequence's next token; returns false if the sequence ends.
    fn take(&mut self, chosen: Option<Choice>, events: &mut Vec<Event>) -> bool {
        let id = self.id;
        let end = chosen.map_or(Some(Finish::NotFinite), |Choice { token, logprobs }| {
            self.ends.finish(token).or_else(|| {
                self.block.push(token);
                self.left -= 1;
                events.push(Event::Token { id, token, logprobs });
                (self.left == 0).then_some(Finish::Length)
            })
        });
        events.extend(end.map(|reason| Event::Finished { id, reason }));
        end.is_none()
    }
}

#[cfg(test)]
mod tests;
