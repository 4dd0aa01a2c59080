//! Positions of windows in a book.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Windows of one length at equal distances, starting at a book's first token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// Tokens per window.
    pub context: usize,
    /// Tokens from the start of one window to the start of the next. Windows overlap when the
    /// stride is less than `context`.
    pub stride: usize,
}

impl Windows {
    /// Number of whole windows in a book of `tokens` tokens. The published script drops books whose
    /// length is a multiple of the window length; here such a book has all its windows.
    pub fn count(&self, tokens: usize) -> usize {
        match tokens.checked_sub(self.context) {
            Some(rest) => rest / self.stride + 1,
            None => 0,
        }
    }

    /// Number of tokens that are in no window, for a book of `tokens` tokens.
    pub fn unused(&self, tokens: usize) -> usize {
        match self.count(tokens) {
            0 => tokens,
            n => tokens - self.context - (n - 1) * self.stride.min(self.context),
        }
    }

    /// The token positions of window `i`.
    pub fn range(&self, i: usize) -> Range<usize> {
        i * self.stride..i * self.stride + self.context
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_multiple_loses_nothing_and_a_short_book_has_no_window() {
        let windows = Windows { context: 8, stride: 8 };
        let counts = [0, 7, 8, 9, 16, 23, 24].map(|n| (windows.count(n), windows.unused(n)));
        assert_eq!(counts, [(0, 0), (0, 7), (1, 0), (1, 1), (2, 0), (2, 7), (3, 0)]);
        assert_eq!(windows.range(2), 16..24);
    }

    #[test]
    fn strides_overlap_or_leave_gaps() {
        let overlapping = Windows { context: 8, stride: 2 };
        assert_eq!((overlapping.count(13), overlapping.unused(13)), (3, 1));
        let apart = Windows { context: 8, stride: 10 };
        assert_eq!((apart.count(18), apart.unused(18)), (2, 2));
        assert_eq!(apart.range(1), 10..18);
        for windows in [overlapping, apart] {
            for tokens in 0..60 {
                let covered: std::collections::HashSet<usize> =
                    (0..windows.count(tokens)).flat_map(|i| windows.range(i)).collect();
                assert_eq!(windows.unused(tokens), tokens - covered.len(), "{windows:?} {tokens}");
            }
        }
    }
}
