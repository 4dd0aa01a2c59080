//! The token ids that models read in benchmarks.

/// Returns `length` ids below `vocab_size` that differ within a sequence and between sequences, as
/// in text.
pub(crate) fn token_ids(sequence: usize, length: usize, vocab_size: usize) -> Vec<u32> {
    let id = |i: usize| ((sequence * 7919 + i * 104_729 + 17) % vocab_size) as u32;
    (0..length).map(id).collect()
}
