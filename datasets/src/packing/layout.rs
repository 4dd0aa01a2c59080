//! The layout of the stream in one epoch.

use serde::{Deserialize, Serialize};

use super::contiguous::Contiguous;
use super::kind::WindowKind;
use super::listed::Listed;
use super::streamed::Streamed;
use crate::documents::Documents;

/// How the order of documents and windows in an epoch is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// From shuffled lists: 24 bytes of memory per document and 4 per window.
    #[default]
    Listed,
    /// From pseudorandom permutations that are computed number by number: 8 bytes of memory per 64
    /// documents.
    Streamed,
}

/// Sizes of a layout.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) block_length: usize,
    pub(super) seed: Option<u64>,
    /// Windows per epoch.
    pub(super) windows: u64,
}

/// A document in the stream.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Its number in the order of the stream.
    pub(super) index: usize,
    /// Its number in the corpus.
    pub(super) document: usize,
    /// The length of its padding on the left.
    pub(super) left: usize,
    /// The position of its first element, which can be padding.
    pub(super) first: usize,
    /// The position after its last element.
    pub(super) end: usize,
}

/// The layout of the stream in one epoch.
pub(super) enum Layout {
    Listed(Listed),
    Streamed(Streamed),
    Contiguous(Contiguous),
}

impl Layout {
    /// `tokens` is the length of the stream without padding on the left.
    pub(super) fn new(
        (kind, order): (WindowKind, Order),
        documents: &dyn Documents,
        (shape, tokens): (Shape, u64),
        epoch: u64,
    ) -> Self {
        match (kind, order) {
            (WindowKind::Contiguous, _) => {
                Self::Contiguous(Contiguous::new(documents, shape, tokens, epoch))
            }
            (_, Order::Listed) => Self::Listed(Listed::new(documents, shape, epoch)),
            (_, Order::Streamed) => Self::Streamed(Streamed::new(documents, shape, epoch)),
        }
    }

    /// The position of the first element of the window of `context` elements that is used at `visit`.
    pub(super) fn start(&self, visit: usize, context: usize) -> usize {
        match self {
            Self::Listed(layout) => layout.window(visit) * context,
            Self::Streamed(layout) => layout.window(visit) * context,
            Self::Contiguous(layout) => layout.start(visit as u64, context as u64),
        }
    }

    /// The document at `position` of the stream; `None` after the last one.
    pub(super) fn place(&self, documents: &dyn Documents, position: usize) -> Option<Place> {
        match self {
            Self::Listed(layout) => layout.place(position),
            Self::Streamed(layout) => layout.place(documents, position),
            Self::Contiguous(layout) => layout.place(documents, position),
        }
    }

    /// The document after `place`; `None` after the last one. Contiguous windows continue with the first one.
    pub(super) fn after(&self, documents: &dyn Documents, place: Place) -> Option<Place> {
        match self {
            Self::Listed(layout) => layout.place_at(place.index + 1),
            Self::Streamed(layout) => layout.place_at(documents, place.index + 1, place.end),
            Self::Contiguous(layout) => layout.after(documents, place),
        }
    }
}
