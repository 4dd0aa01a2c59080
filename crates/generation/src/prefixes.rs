//! Counts of prefixes that sequences share.

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
