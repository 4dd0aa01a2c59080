//! Partial rotary position embedding in the half-split ("rotate-half") form of GPT-NeoX.

use block_transformer_kernels::{PerDevice, RotaryAngles};
use burn::tensor::{Device, Tensor};

/// The rotation of queries and keys at a sequence of positions per row.
#[derive(Clone, Debug)]
pub struct Rotary {
    angles: RotaryAngles,
    /// See [`cos_sin`](Self::cos_sin).
    cos_sin: PerDevice<[Tensor<4>; 2]>,
}

impl Rotary {
    pub(crate) fn new(angles: RotaryAngles) -> Self {
        Self { angles, cos_sin: PerDevice::default() }
    }

    /// Returns the angles in the form that kernels take.
    pub(crate) fn angles(&self) -> &RotaryAngles {
        &self.angles
    }

    /// Cosines and sines for all dimensions of a head, `[1 or batch, 1, time, head_dim]` each.
    /// Dimensions that are not rotated have cosine 1 and sine 0.
    fn cos_sin(&self, head_dim: usize, device: &Device) -> [Tensor<4>; 2] {
        self.cos_sin.get_or_make(device, || {
            let (rows, time) = (self.angles.rows(), self.angles.time());
            let [half, rest] = [self.angles.rotated() / 2, head_dim - self.angles.rotated()];
            let positions = self.angles.positions().tensor(device);
            let [cos, sin] = self
                .angles
                .table(device)
                .map(|table| table.select(0, positions.clone()).reshape([rows, 1, time, half]));
            let spread = |half: Tensor<4>, fill: f32| {
                let mut parts = vec![half.clone(), half];
                if rest > 0 {
                    parts.push(Tensor::full([rows, 1, time, rest], fill, device));
                }
                Tensor::cat(parts, 3)
            };
            [spread(cos, 1.0), spread(sin, 0.0)]
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
        // (x1, x2, rest) -> (-x2, x1, rest); the sine of the rest is 0
        let mut turned = vec![x.clone().narrow(3, half, half).neg(), x.clone().narrow(3, 0, half)];
        if head_dim > rotated {
            turned.push(x.clone().narrow(3, rotated, head_dim - rotated));
        }
        let [cos, sin] = self.cos_sin(head_dim, &x.device());
        x * cos + Tensor::cat(turned, 3) * sin
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_transformer_kernels::RotaryTable;

    #[test]
    fn pairs_of_dimensions_turn_by_their_angle() {
        // 4 of 6 dimensions are rotated, in the pairs (0, 2) and (1, 3) with the frequencies 1 and
        // 0.01
        let rotary = Rotary::new(RotaryTable::new(4, 1e4).angles(vec![0, 3, 2, 1], 2));
        // by Python's math.cos and math.sin from [1, 2, 3, 4, 5, 6]
        let expected = [
            [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            [-1.413_352_5, 1.879_118, -2.828_857_5, 4.058_191, 5.0, 6.0],
            [-3.144_039, 1.919_605_3, -0.339_143, 4.039_197_3, 5.0, 6.0],
            [-1.984_110_6, 1.959_900_7, 2.462_377_9, 4.019_799_7, 5.0, 6.0],
        ];
        #[expect(deprecated, reason = "supported for as long as burn has it")]
        for device in [Device::flex(), Device::ndarray()] {
            let x = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &device);
            let rows = rotary.apply(x.reshape([1, 1, 1, 6]).expand([2, 1, 2, 6]));
            let found = rows.into_data();
            for (found, expected) in found.iter::<f32>().zip(expected.into_iter().flatten()) {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
    }
}
