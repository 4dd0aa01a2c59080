//! Partial rotary position embedding in the half-split ("rotate-half") form of GPT-NeoX.

use burn::tensor::{Device, Tensor};

use crate::Positions;

/// Cosines and sines for a run of positions, spread over the whole head: dimensions that are not
/// rotated hold cosine one and sine zero.
///
/// # Shapes
/// `cos`, `sin`: `[1 or batch, 1, time, head_dim]`
#[derive(Clone, Debug)]
pub struct Rotary {
    cos: Tensor<4>,
    sin: Tensor<4>,
    rotated: usize,
}

impl Rotary {
    /// Angles `position * base^(-2i / rotated)` for the first `rotated` dimensions of a head
    /// (Su et al., arXiv 2104.09864), for `time` positions from where each row of `at` starts.
    pub fn new(
        at: &Positions,
        time: usize,
        head_dim: usize,
        rotated: usize,
        base: f64,
        device: &Device,
    ) -> Self {
        let rows: Vec<Vec<usize>> =
            at.starts().iter().map(|&start| (start..start + time).collect()).collect();
        Self::at(&rows, head_dim, rotated, base, device)
    }

    /// The same for any positions, `[rows][time]`.
    pub fn at(
        positions: &[Vec<usize>],
        head_dim: usize,
        rotated: usize,
        base: f64,
        device: &Device,
    ) -> Self {
        let half = rotated / 2;
        let inverse: Vec<f32> =
            (0..half).map(|i| base.powf(-2.0 * i as f64 / rotated as f64) as f32).collect();
        let (rows, time) = (positions.len(), positions.first().map_or(0, Vec::len));
        let count = rows * time * head_dim;
        let (mut cos, mut sin) = (vec![1.0_f32; count], vec![0.0_f32; count]);
        for (i, &position) in positions.iter().flatten().enumerate() {
            for (dim, inverse) in inverse.iter().enumerate() {
                let (s, c) = (position as f32 * inverse).sin_cos();
                for dim in [dim, dim + half] {
                    cos[i * head_dim + dim] = c;
                    sin[i * head_dim + dim] = s;
                }
            }
        }
        let tensor = |values: Vec<f32>| {
            Tensor::<1>::from_floats(values.as_slice(), device).reshape([rows, 1, time, head_dim])
        };
        Self { cos: tensor(cos), sin: tensor(sin), rotated }
    }

    /// Rotates queries or keys `[batch, heads, time, head_dim]`.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        if self.rotated == 0 {
            return x;
        }
        let [_, _, _, head_dim] = x.dims();
        let half = self.rotated / 2;
        // (x1, x2, rest) -> (-x2, x1, rest); the rest meets sine zero
        let mut turned = vec![x.clone().narrow(3, half, half).neg(), x.clone().narrow(3, 0, half)];
        if head_dim > self.rotated {
            turned.push(x.clone().narrow(3, self.rotated, head_dim - self.rotated));
        }
        x * self.cos.clone() + Tensor::cat(turned, 3) * self.sin.clone()
    }
}
