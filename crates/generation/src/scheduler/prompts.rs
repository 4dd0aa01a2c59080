//! The prompts of sequences with a slot, which are run piece by piece or start from blocks that were run already.

use std::ops::Range;
use std::sync::Arc;

use super::{Running, Scheduler, Waiting};
use crate::prefixes::Head;

/// A part of a prompt that is padded on its own on the left to whole blocks.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// At least one token.
    pub ids: Arc<[u32]>,
    pub blocks: usize,
    /// The blocks up to the end of this segment, from which other sequences can start: as those of a prefix, of a
    /// prompt with several choices, or of both.
    pub heads: Vec<Arc<Head>>,
}

/// Consecutive blocks of a segment of a prompt. The first block of a segment is padded on the left.
#[derive(Clone, Debug)]
pub(crate) struct PromptPiece {
    pub slot: usize,
    /// Blocks before the segment in the slot.
    pub before: usize,
    /// The tokens of the whole segment, at least one.
    pub ids: Arc<[u32]>,
    /// Blocks of the segment.
    pub blocks: Range<usize>,
    /// All blocks of the segment.
    pub total: usize,
    /// Whether another segment follows.
    pub goes_on: bool,
    /// The heads that end here.
    pub heads: Vec<Arc<Head>>,
}

impl PromptPiece {
    /// Whether the segment ends here.
    pub(crate) fn ends(&self) -> bool {
        self.blocks.end == self.total
    }

    /// Whether the prompt ends here, so that its sequence starts a block.
    pub(crate) fn is_last(&self) -> bool {
        self.ends() && !self.goes_on
    }
}

/// A slot whose first blocks are those of a head.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    pub slot: usize,
    pub head: Arc<Head>,
    /// The slot that has them; `None` if they are kept.
    pub from: Option<usize>,
    /// Whether the sequence starts a block after them.
    pub starts: bool,
}

/// Work on prompts. Pieces can be run in any order, after the slots have been restored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    pub restored: Vec<Restored>,
    pub pieces: Vec<PromptPiece>,
}

/// A sequence that starts a block after its prompt.
#[derive(Clone, Debug)]
pub(crate) struct NewRow {
    pub slot: usize,
    /// The tokens of the segments of its prompt.
    pub text: Vec<Arc<[u32]>>,
    /// Tokens that may still be chosen.
    pub left: usize,
}

/// The prompts of a step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompts {
    /// In order.
    pub rounds: Vec<Round>,
    /// Heads that are kept after the rounds, and the slots that have them.
    pub kept: Vec<(usize, Arc<Head>)>,
    pub new: Vec<NewRow>,
    /// Whether prompts of other sequences with a slot have not been run to their ends.
    pub unfinished: bool,
}

impl Prompts {
    /// The pieces, if all prompts end with them and no blocks are shared.
    pub(crate) fn plain(&self) -> Option<&[PromptPiece]> {
        let Self { rounds, kept, unfinished, .. } = self;
        let pieces = match rounds.as_slice() {
            [] => &[][..],
            [Round { restored, pieces }] if restored.is_empty() => pieces,
            _ => return None,
        };
        let shares = pieces.iter().any(|piece| !piece.heads.is_empty());
        (kept.is_empty() && !shares && !unfinished).then_some(pieces)
    }
}

/// A sequence with a slot whose prompt has not been run to its end.
pub(super) struct Prefilling {
    pub(super) sequence: Running,
    segments: Vec<Segment>,
    /// Segments that the slot has.
    done: usize,
    /// Blocks before the next segment in the slot.
    before: usize,
    /// Blocks of the next segment that the slot has.
    run: usize,
}

/// Heads that slots have in this step.
type InSlots = Vec<(usize, Arc<Head>)>;

fn contains<'a>(mut heads: impl Iterator<Item = &'a Arc<Head>>, head: &Arc<Head>) -> bool {
    heads.any(|other| Arc::ptr_eq(other, head))
}

impl Prefilling {
    fn rest(&self) -> &[Segment] {
        &self.segments[self.done..]
    }

    /// The longest head from which the sequence can go on, and the number of segments that it has of the rest.
    fn known(&self, in_slots: &InSlots) -> Option<(Arc<Head>, usize)> {
        let is_known = |head: &&Arc<Head>| {
            head.layers().is_some() || contains(in_slots.iter().map(|(_, head)| head), head)
        };
        let segments = self.rest().iter().enumerate().rev();
        let mut known = segments.filter_map(|(i, segment)| {
            Some((Arc::clone(segment.heads.iter().find(is_known)?), i + 1))
        });
        // a segment that was begun is run to its end
        known.next().filter(|_| self.run == 0)
    }

    /// Takes the next `count` segments from `head`. Returns their blocks, and whether there was a prefix.
    fn restore(
        &mut self,
        (head, count): (Arc<Head>, usize),
        in_slots: &InSlots,
    ) -> (Restored, usize, bool) {
        let segments = self.segments[self.done..self.done + count].iter_mut();
        // what is not needed any more can be given up
        let heads: Vec<_> = segments.flat_map(|segment| segment.heads.drain(..)).collect();
        let has_prefix = heads.iter().any(|head| head.is_prefix());
        let from =
            in_slots.iter().find(|(_, other)| Arc::ptr_eq(other, &head)).map(|(slot, _)| *slot);
        let blocks = head.blocks - self.before;
        self.done += count;
        self.before = head.blocks;
        let starts = self.rest().is_empty();
        (Restored { slot: self.sequence.slot, head, from, starts }, blocks, has_prefix)
    }

    /// The next piece of at most `most` blocks.
    fn piece(&mut self, most: usize) -> PromptPiece {
        let goes_on = self.done + 1 < self.segments.len();
        let Segment { ids, blocks: total, heads } = &mut self.segments[self.done];
        let end = (*total).min(self.run.saturating_add(most));
        let piece = PromptPiece {
            slot: self.sequence.slot,
            before: self.before,
            ids: Arc::clone(ids),
            blocks: self.run..end,
            total: *total,
            goes_on,
            heads: if end == *total { std::mem::take(heads) } else { Vec::new() },
        };
        self.run = end;
        if piece.ends() {
            (self.done, self.run) = (self.done + 1, 0);
            self.before += piece.total;
        }
        piece
    }
}

impl Scheduler {
    /// Gives free slots to waiting sequences, in the order in which they were submitted, and returns the
    /// next work on prompts. Sequences whose prompt ends are running then.
    pub(super) fn prompts(&mut self) -> Prompts {
        while !self.waiting.is_empty()
            && let Some(slot) = self.free.pop_first()
            && let Some(Waiting { segments, before, sequence }) = self.waiting.pop_front()
        {
            let sequence = Running { slot, ..sequence };
            self.prefilling.push(Prefilling { sequence, segments, done: 0, before, run: 0 });
        }
        // nothing is delayed if no sequence is running
        let mut room = if self.running.is_empty() { usize::MAX } else { self.prompt_blocks };
        let (mut prompts, mut in_slots) = (Prompts::default(), InSlots::new());
        loop {
            let round = self.round(&mut room, &mut in_slots, &mut prompts.new);
            if round.restored.is_empty() && round.pieces.is_empty() {
                break;
            }
            prompts.rounds.push(round);
        }
        // all sequences with a slot have taken what they need; other choices of a prompt wait next
        let next = self.waiting.front().map_or(&[][..], |waiting| &waiting.segments);
        for (slot, head) in in_slots {
            let is_kept =
                |other: &Arc<Head>| contains(prompts.kept.iter().map(|(_, head)| head), other);
            let waits = |segment: &Segment| {
                contains(segment.heads.iter(), &head) && !segment.heads.iter().any(is_kept)
            };
            let keeps = match head.is_prefix() {
                true => self.prefixes.keep(&head),
                false => next.iter().any(waits),
            };
            if keeps {
                prompts.kept.push((slot, head));
            }
        }
        prompts.unfinished = !self.prefilling.is_empty();
        self.running.sort_by_key(|running| running.slot);
        prompts
    }

    /// The work on prompts that can be done now. A sequence that needs blocks which another one is running waits for
    /// them.
    fn round(&mut self, room: &mut usize, in_slots: &mut InSlots, new: &mut Vec<NewRow>) -> Round {
        let (mut round, mut ended) = (Round::default(), InSlots::new());
        let mut busy: Vec<Arc<Head>> = Vec::new();
        for mut prefilling in std::mem::take(&mut self.prefilling) {
            let known = prefilling.known(in_slots);
            let after = known.as_ref().map_or(0, |(_, count)| *count);
            let needed =
                prefilling.rest()[after..].iter().flat_map(|segment| segment.heads.clone());
            let needed: Vec<Arc<Head>> = needed.collect();
            let waits = needed.iter().any(|head| contains(busy.iter(), head));
            busy.extend(needed);
            if waits {
                self.prefilling.push(prefilling);
                continue;
            }
            if let Some(known) = known {
                let (restored, blocks, has_prefix) = prefilling.restore(known, in_slots);
                self.prefixes.hit(&restored.head, blocks, has_prefix);
                round.restored.push(restored);
            }
            if *room > 0 && !prefilling.rest().is_empty() {
                let piece = prefilling.piece(*room);
                *room -= piece.blocks.len();
                for head in &piece.heads {
                    self.prefixes.miss(head);
                    ended.push((piece.slot, Arc::clone(head)));
                }
                round.pieces.push(piece);
            }
            if prefilling.rest().is_empty() {
                let Prefilling { sequence, segments, .. } = prefilling;
                let text = segments.into_iter().map(|segment| segment.ids).collect();
                new.push(NewRow { slot: sequence.slot, text, left: sequence.left });
                self.running.push(sequence);
            } else {
                self.prefilling.push(prefilling);
            }
        }
        in_slots.extend(ended);
        round
    }
}
