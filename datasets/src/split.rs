//! The division of a corpus into training and validation documents.

/// Share of the documents that is held out for validation.
pub(crate) const VALIDATION_SHARE: f64 = 0.05;

/// A part of a corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Documents to train on.
    Train,
    /// Documents held out for validation.
    Validation,
}

impl Split {
    /// Both splits, in the order that arrays with one element per split have.
    pub(crate) const ALL: [Self; 2] = [Self::Train, Self::Validation];
}

/// The name, which is also the stem of the token file.
impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
        })
    }
}

/// Returns the interval at which documents are held out, at least 2, for a validation `share` of
/// the documents. It is at most 2^32, so that the index of a document can be computed from it.
pub(crate) fn holdout_interval(share: f64) -> usize {
    (1.0 / share).round().clamp(2.0, f64::from(u32::MAX)) as usize
}

/// The split of document `index`: every `interval`-th document is held out, starting with the
/// second.
pub(crate) fn split_of(index: usize, interval: usize) -> Split {
    if index % interval == 1 { Split::Validation } else { Split::Train }
}
