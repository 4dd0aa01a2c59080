//! Who writes, who waits, and in which slot.

use std::collections::{BTreeSet, VecDeque};

use crate::choose::choose;
use crate::decoder::{Arrival, Decoder, Written};
use crate::{Event, Finish, GenerationError, Options, Sampler, SequenceId};

/// Runs sequences through a [`Decoder`] as its slots become free. All rows are at the same place of
/// their blocks: sequences come in where a block starts, and leave anywhere.
pub(crate) struct Scheduler {
    decoder: Box<dyn Decoder + Send>,
    free: BTreeSet<usize>,
    waiting: VecDeque<Waiting>,
    /// In the order of their slots.
    rows: Vec<Row>,
    /// Tokens of the block in progress.
    place: usize,
    /// What ended before it began.
    ended: Vec<Event>,
    next_id: u64,
}

struct Waiting {
    id: SequenceId,
    prompt: Vec<u32>,
    after: usize,
    sampler: Sampler,
    end: End,
}

/// What ends a sequence.
#[derive(Clone, Copy)]
struct End {
    eos: Option<u32>,
    /// Tokens that may still be written.
    left: usize,
}

struct Row {
    id: SequenceId,
    slot: usize,
    /// Index among the rows of the decoder's last call.
    index: usize,
    /// Blocks of the slot before the one in progress.
    blocks: usize,
    /// Tokens of the block in progress.
    block: Vec<u32>,
    sampler: Sampler,
    end: End,
}

impl Scheduler {
    pub fn new(decoder: Box<dyn Decoder + Send>, slots: usize) -> Self {
        Self {
            place: decoder.block_length(),
            decoder,
            free: (0..slots).collect(),
            waiting: VecDeque::new(),
            rows: Vec::new(),
            ended: Vec::new(),
            next_id: 0,
        }
    }

    /// Puts a prompt, which must not be empty, at the end of the queue. It goes on after the first
    /// `after` blocks of its slot.
    pub fn submit(&mut self, prompt: Vec<u32>, after: usize, options: &Options) -> SequenceId {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        if options.max_tokens == 0 {
            self.ended.push(Event::Finished { id, reason: Finish::Length });
            return id;
        }
        let sampler = Sampler::new(options.sampling, options.allowed_vocab, options.first_prompt);
        let end = End { eos: options.eos, left: options.max_tokens };
        self.waiting.push_back(Waiting { id, prompt, after, sampler, end });
        id
    }

    /// Forgets a sequence; its slot is free at once. False if it has ended, or never was.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        let before = (self.waiting.len(), self.rows.len(), self.ended.len());
        self.waiting.retain(|waiting| waiting.id != id);
        self.ended.retain(|event| event.id() != id);
        let free = &mut self.free;
        self.rows.retain(|row| {
            if row.id == id {
                free.insert(row.slot);
            }
            row.id != id
        });
        before != (self.waiting.len(), self.rows.len(), self.ended.len())
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.rows.is_empty() && self.ended.is_empty()
    }

    /// Sequences that have a slot, and those that wait for one.
    pub fn counts(&self) -> (usize, usize) {
        (self.rows.len(), self.waiting.len())
    }

    pub fn decoder(&self) -> &dyn Decoder {
        self.decoder.as_ref()
    }

    pub fn decoder_mut(&mut self) -> &mut dyn Decoder {
        self.decoder.as_mut()
    }

    /// One token of every sequence that has a slot, or can have one now.
    pub fn step(&mut self) -> Result<Vec<Event>, GenerationError> {
        let mut events = std::mem::take(&mut self.ended);
        let logits = if self.rows.is_empty() || self.place == self.decoder.block_length() {
            let arriving = self.admit();
            if self.rows.is_empty() {
                return Ok(events);
            }
            self.place = 0;
            let going_on = self.rows.iter().filter(|row| !row.block.is_empty());
            let written: Vec<Written<'_>> = going_on.map(Row::written).collect();
            let logits = self.decoder.start(&written, &arriving);
            for row in &mut self.rows {
                row.blocks += usize::from(!row.block.is_empty());
                row.block.clear();
            }
            logits
        } else {
            let kept: Vec<usize> = self.rows.iter().map(|row| row.index).collect();
            let ids: Vec<u32> = self.rows.iter().map(|row| row.block[self.place - 1]).collect();
            self.decoder.next(&kept, &ids)
        };
        let mut samplers: Vec<&mut Sampler> =
            self.rows.iter_mut().map(|row| &mut row.sampler).collect();
        let chosen = choose(logits, &mut samplers)?;
        let mut index = 0;
        let free = &mut self.free;
        self.rows.retain_mut(|row| {
            row.index = index;
            index += 1;
            let goes_on = row.take(chosen[row.index], &mut events);
            if !goes_on {
                free.insert(row.slot);
            }
            goes_on
        });
        self.place += 1;
        Ok(events)
    }

    /// Gives free slots to those who wait.
    fn admit(&mut self) -> Vec<Arrival> {
        let length = self.decoder.block_length();
        let mut arriving = Vec::new();
        while let (Some(&slot), false) = (self.free.first(), self.waiting.is_empty()) {
            self.free.remove(&slot);
            let Some(Waiting { id, prompt, after, sampler, end }) = self.waiting.pop_front() else {
                break;
            };
            let blocks = after + prompt.len().div_ceil(length);
            self.rows.push(Row { id, slot, index: 0, blocks, block: Vec::new(), sampler, end });
            arriving.push(Arrival { slot, prompt, after });
        }
        self.rows.sort_by_key(|row| row.slot);
        arriving
    }
}

impl Row {
    /// The block it has just written.
    fn written(&self) -> Written<'_> {
        Written { slot: self.slot, after: self.blocks, ids: &self.block }
    }

    /// Takes the token chosen for it; false when the sequence has ended.
    fn take(&mut self, chosen: Option<u32>, events: &mut Vec<Event>) -> bool {
        let id = self.id;
        let Some(token) = chosen else {
            events.push(Event::Finished { id, reason: Finish::NotFinite });
            return false;
        };
        if self.end.eos == Some(token) {
            events.push(Event::Finished { id, reason: Finish::Eos });
            return false;
        }
        self.block.push(token);
        events.push(Event::Token { id, token });
        self.end.left -= 1;
        if self.end.left == 0 {
            events.push(Event::Finished { id, reason: Finish::Length });
        }
        self.end.left > 0
    }
}

#[cfg(test)]
mod tests;
