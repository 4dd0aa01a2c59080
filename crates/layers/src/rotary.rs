//! Partial rotary position embedding in the half-split ("rotate-half") form of GPT-NeoX.

use std::cell::OnceCell;

use block_transformer_kernels::Angles;
use burn::tensor::{Device, Tensor};

use crate::Positions;

/// Cosines and sines for a run of positions.
#[derive(Clone, Debug)]
pub struct Rotary {
    angles: Angles,
    head_dim: usize,
    /// Made when they are first asked for.
    tables: OnceCell<Tables>,
}

/// The angles spread over the whole head: dimensions that are not rotated hold cosine one and sine
/// zero.
///
/// # Shapes
/// `[1 or batch, 1, time, head_dim]` each
#[derive(Clone, Debug)]
struct Tables {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotary {
    /// Angles `position * base^(-2i / rotated)` for the first `rotated` dimensions of a head
    /// (Su et al., arXiv 2104.09864), for `time` positions from where each row of `at` starts.
    pub fn new(at: &Positions, time: usize, head_dim: usize, rotated: usize, base: f64) -> Self {
        let rows: Vec<Vec<usize>> =
            at.starts().iter().map(|&start| (start..start + time).collect()).collect();
        Self::at(&rows, head_dim, rotated, base)
    }

    /// The same for any positions, `[rows][time]`.
    pub fn at(positions: &[Vec<usize>], head_dim: usize, rotated: usize, base: f64) -> Self {
        let angles = Angles::new(positions, rotated, base);
        Self { angles, head_dim, tables: OnceCell::new() }
    }

    /// The angles on the host.
    pub fn angles(&self) -> &Angles {
        &self.angles
    }

    fn tables(&self, device: &Device) -> &Tables {
        self.tables.get_or_init(|| {
            let (rows, time) = (self.angles.rows(), self.angles.time());
            let count = rows * time * self.head_dim;
            let (mut all_cos, mut all_sin) = (vec![1.0_f32; count], vec![0.0_f32; count]);
            for i in 0..rows * time {
                let (cos, sin) = self.angles.at(i / time, i % time);
                for start in [i * self.head_dim, i * self.head_dim + cos.len()] {
                    all_cos[start..start + cos.len()].copy_from_slice(cos);
                    all_sin[start..start + sin.len()].copy_from_slice(sin);
                }
            }
            let tensor = |values: Vec<f32>| {
                let values = Tensor::<1>::from_floats(values.as_slice(), device);
                values.reshape([rows, 1, time, self.head_dim])
            };
            Tables { cos: tensor(all_cos), sin: tensor(all_sin) }
        })
    }

    /// Rotates queries or keys `[batch, heads, time, head_dim]`.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let rotated = self.angles.rotated();
        if rotated == 0 {
            return x;
        }
        let [_, _, _, head_dim] = x.dims();
        let half = rotated / 2;
        // (x1, x2, rest) -> (-x2, x1, rest); the rest meets sine zero
        let mut turned = vec![x.clone().narrow(3, half, half).neg(), x.clone().narrow(3, 0, half)];
        if head_dim > rotated {
            turned.push(x.clone().narrow(3, rotated, head_dim - rotated));
        }
        let Tables { cos, sin } = self.tables(&x.device());
        x * cos.clone() + Tensor::cat(turned, 3) * sin.clone()
    }
}
