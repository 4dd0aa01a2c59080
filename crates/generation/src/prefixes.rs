//! Blocks that several sequences have in common, and those that are kept for later sequences.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use block_transformer_family::{CacheFormat, FamilyConfig, FloatFormat};
use block_transformer_layers::KvPart;
use burn::tensor::Tensor;

/// Counts of an engine whose sequences share prefixes and prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixCounts {
    /// Sequences with a prefix that was not run for them.
    pub hits: usize,
    /// Sequences with a prefix that was run for them.
    pub misses: usize,
    /// Choices whose prompt was not run for them, because another choice had run it.
    pub forks: usize,
    /// Prefixes whose caches are kept.
    pub entries: usize,
    /// Bytes of these caches.
    pub bytes: u64,
    /// The largest number of bytes, see [`Engine::with_prefixes`](crate::Engine::with_prefixes).
    pub budget: u64,
    /// Prefixes that made room for others.
    pub evictions: usize,
    /// Positions of the context stack that were not run: blocks times embeddings per block, or tokens of a
    /// vanilla model.
    pub saved_positions: usize,
}

/// The first blocks of a slot, which several sequences have in common: a prefix, or all that the choices of a prompt
/// have in common.
///
/// Every sequence that still needs them has a reference.
pub(crate) struct Head {
    /// The tokens of a prefix.
    prefix: Option<Arc<[u32]>>,
    pub blocks: usize,
    states: OnceLock<Tensor<3>>,
    layers: OnceLock<Vec<KvPart>>,
}

impl Head {
    /// What the choices of a prompt have in common.
    pub(crate) fn of_choices(blocks: usize) -> Self {
        Self { prefix: None, blocks, states: OnceLock::new(), layers: OnceLock::new() }
    }

    pub(crate) fn is_prefix(&self) -> bool {
        self.prefix.is_some()
    }

    /// The states `[1, k, width]` after the last block; `None` before it was run.
    pub(crate) fn states(&self) -> Option<&Tensor<3>> {
        self.states.get()
    }

    /// Records the states after the last block. They have the same bits whenever it is run again.
    pub(crate) fn set_states(&self, states: impl FnOnce() -> Tensor<3>) {
        self.states.get_or_init(states);
    }

    /// The caches of all layers; `None` if they are not kept.
    pub(crate) fn layers(&self) -> Option<&[KvPart]> {
        self.layers.get().map(Vec::as_slice)
    }

    /// Keeps the caches of all layers.
    pub(crate) fn keep(&self, layers: Vec<KvPart>) {
        self.layers.get_or_init(|| layers);
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (prefix, blocks, kept) = (self.is_prefix(), self.blocks, self.layers.get().is_some());
        write!(f, "Head {{ prefix: {prefix}, blocks: {blocks}, kept: {kept} }}")
    }
}

/// Bytes of the cache of a head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeadBytes {
    /// Keys and values of a block, in all layers of the context stack.
    pub block: u64,
    /// The states after the last block.
    pub states: u64,
}

impl HeadBytes {
    /// The bytes of heads of a model with the configuration `config` and caches in `format`.
    pub(crate) fn new<C: FamilyConfig>(config: &C, format: CacheFormat) -> Self {
        let stacks = config.stacks();
        let positions = stacks.embeddings_per_block;
        Self {
            block: (positions * format.bytes(&stacks.context)) as u64,
            states: (positions * stacks.context.width * FloatFormat::F32.bytes()) as u64,
        }
    }

    fn of(self, head: &Head) -> u64 {
        (head.blocks as u64).saturating_mul(self.block).saturating_add(self.states)
    }
}

/// The prefixes of the sequences that have not started yet, and those that are kept for later sequences within a
/// budget. A prefix that a sequence waits for is not given up.
#[derive(Debug, Default)]
pub(crate) struct Prefixes {
    bytes: HeadBytes,
    /// All prefixes that are kept or needed, by their tokens.
    heads: HashMap<Arc<[u32]>, Weak<Head>>,
    /// The prefixes that are kept; the one that was used last is the last.
    kept: Vec<Arc<Head>>,
    counts: PrefixCounts,
    saved_blocks: usize,
}

impl Prefixes {
    /// Prefixes of `bytes` bytes, none of which is kept.
    pub(crate) fn new(bytes: HeadBytes) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Keeps prefixes within `budget` bytes from now on.
    pub(crate) fn set_budget(&mut self, budget: u64) {
        self.counts.budget = budget;
        self.make_room(0);
    }

    /// The counts for a model with `per_block` positions per block.
    pub(crate) fn counts(&self, per_block: usize) -> PrefixCounts {
        PrefixCounts { saved_positions: self.saved_blocks * per_block, ..self.counts }
    }

    /// The prefix of these tokens, which fill `blocks` blocks.
    pub(crate) fn of(&mut self, tokens: &[u32], blocks: usize) -> Arc<Head> {
        if let Some(head) = self.heads.get(tokens).and_then(Weak::upgrade) {
            return head;
        }
        self.heads.retain(|_, head| head.strong_count() > 0);
        let tokens: Arc<[u32]> = tokens.into();
        let prefix = Some(Arc::clone(&tokens));
        let head = Arc::new(Head { prefix, ..Head::of_choices(blocks) });
        self.heads.insert(tokens, Arc::downgrade(&head));
        head
    }

    /// Records that a sequence starts from `head` instead of running `blocks` blocks, a prefix among them or not.
    pub(crate) fn hit(&mut self, head: &Arc<Head>, blocks: usize, has_prefix: bool) {
        self.saved_blocks += blocks;
        self.counts.hits += usize::from(has_prefix);
        self.counts.forks += usize::from(!head.is_prefix());
        if let Some(place) = self.kept.iter().position(|kept| Arc::ptr_eq(kept, head)) {
            self.kept[place..].rotate_left(1);
        }
    }

    /// Records that a sequence runs `head`.
    pub(crate) fn miss(&mut self, head: &Head) {
        self.counts.misses += usize::from(head.is_prefix());
    }

    /// Keeps a prefix if there is room for it. Others that no sequence needs, and that were used least recently, are
    /// given up for it. Returns whether it is kept.
    pub(crate) fn keep(&mut self, head: &Arc<Head>) -> bool {
        let bytes = self.bytes.of(head);
        let needed: u64 =
            self.kept.iter().filter(|kept| is_needed(kept)).map(|kept| self.bytes.of(kept)).sum();
        let fits = needed.saturating_add(bytes) <= self.counts.budget;
        if fits {
            self.make_room(bytes);
            self.kept.push(Arc::clone(head));
            self.counts.bytes += bytes;
            self.counts.entries += 1;
        }
        fits
    }

    /// Bytes of the tensors that are kept.
    #[cfg(test)]
    pub(crate) fn stored_bytes(&self) -> u64 {
        let of = |head: &Arc<Head>| -> u64 {
            let states = head.states().expect("they are set when the last block is run");
            let layers = head.layers().expect("its caches are kept").iter();
            let states = states.shape().num_elements() * states.dtype().size();
            states as u64 + layers.map(KvPart::bytes).sum::<u64>()
        };
        self.kept.iter().map(of).sum()
    }

    /// Gives up prefixes until `bytes` more bytes fit, or all others are needed.
    fn make_room(&mut self, bytes: u64) {
        let Self { kept, counts, bytes: of, .. } = self;
        kept.retain(|head| {
            let fits = counts.bytes.saturating_add(bytes) <= counts.budget;
            let stays = fits || is_needed(head);
            if !stays {
                counts.bytes -= of.of(head);
                counts.entries -= 1;
                counts.evictions += 1;
            }
            stays
        });
    }
}

/// Whether a sequence needs a prefix that is kept.
fn is_needed(kept: &Arc<Head>) -> bool {
    Arc::strong_count(kept) > 1
}
