//! Rotary angles on the host.

use std::sync::Arc;

/// Cosines and sines of the rotated dimensions of a head, for a run of positions a row.
#[derive(Clone, Debug)]
pub struct Angles {
    /// `[rows][time][half]` each
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
    rows: usize,
    time: usize,
    half: usize,
}

impl Angles {
    /// `position * base^(-2i / rotated)` for dimension `i` of `rotated / 2`
    /// (Su et al., arXiv 2104.09864), at `positions` `[rows][time]`.
    pub fn new(positions: &[Vec<usize>], rotated: usize, base: f64) -> Self {
        let half = rotated / 2;
        let inverse: Vec<f32> =
            (0..half).map(|i| base.powf(-2.0 * i as f64 / rotated as f64) as f32).collect();
        let angles = positions.iter().flatten();
        let (sin, cos): (Vec<f32>, Vec<f32>) = angles
            .flat_map(|&position| {
                inverse.iter().map(move |inverse| (position as f32 * inverse).sin_cos())
            })
            .unzip();
        let time = positions.first().map_or(0, Vec::len);
        Self { cos: cos.into(), sin: sin.into(), rows: positions.len(), time, half }
    }

    /// Rows: 1 for all sequences of a batch, or one a sequence.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Positions a row.
    pub fn time(&self) -> usize {
        self.time
    }

    /// Rotated dimensions of a head.
    pub fn rotated(&self) -> usize {
        2 * self.half
    }

    /// `(cos, sin)` of position `time` of `row`, one of each a rotated pair of dimensions.
    pub fn at(&self, row: usize, time: usize) -> (&[f32], &[f32]) {
        let row = if self.rows == 1 { 0 } else { row };
        let start = (row * self.time + time) * self.half;
        (&self.cos[start..start + self.half], &self.sin[start..start + self.half])
    }
}
