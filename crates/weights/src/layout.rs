//! Memory layouts of parameters in published files.

/// Layout of a published tensor relative to the model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The same layout.
    Same,
    /// The model has `[in, out]`, the file `[out, in]`.
    Transposed,
    /// The model has `[kernel * in, out]`, the file `[out, in, kernel]`.
    Conv {
        /// Positions that the convolution joins.
        kernel: usize,
    },
}

impl Layout {
    /// Returns the published shape of a parameter of shape `ours`.
    pub fn published_shape(self, ours: &[usize]) -> Vec<usize> {
        match self {
            Self::Same => ours.to_vec(),
            Self::Transposed => vec![ours[1], ours[0]],
            Self::Conv { kernel } => vec![ours[1], ours[0] / kernel, kernel],
        }
    }

    /// Reorders the values of a parameter of shape `ours` to the published layout.
    pub fn to_published(self, ours: &[usize], values: Vec<f32>) -> Vec<f32> {
        self.permute(ours, values, |out, at, ours_at, values| out[at] = values[ours_at])
    }

    /// Reorders published values to the layout of a parameter of shape `ours`.
    pub fn from_published(self, ours: &[usize], values: Vec<f32>) -> Vec<f32> {
        self.permute(ours, values, |out, at, ours_at, values| out[ours_at] = values[at])
    }

    /// Calls `put(out, published index, our index, values)` for every element.
    fn permute(
        self,
        ours: &[usize],
        values: Vec<f32>,
        put: impl Fn(&mut [f32], usize, usize, &[f32]),
    ) -> Vec<f32> {
        let kernel = match self {
            Self::Same => return values,
            Self::Transposed => 1,
            Self::Conv { kernel } => kernel,
        };
        let (rows, cols) = (ours[0], ours[1]);
        let width = rows / kernel;
        let mut out = vec![0.0; values.len()];
        for col in 0..cols {
            for i in 0..width {
                for k in 0..kernel {
                    put(
                        &mut out,
                        (col * width + i) * kernel + k,
                        (k * width + i) * cols + col,
                        &values,
                    );
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::Layout;

    #[test]
    fn published_layouts_round_trip_and_permute() {
        let ours: Vec<f32> = (0..12).map(|v| v as f32).collect();
        for layout in [Layout::Same, Layout::Transposed, Layout::Conv { kernel: 2 }] {
            let published = layout.to_published(&[4, 3], ours.clone());
            assert_eq!(layout.from_published(&[4, 3], published), ours, "{layout:?}");
        }
        // ours[k * in + i][o] = published[o][i][k]
        let published = Layout::Conv { kernel: 2 }.to_published(&[4, 3], ours);
        assert_eq!(published[..4], [0.0, 6.0, 3.0, 9.0]);
        assert_eq!(Layout::Conv { kernel: 2 }.published_shape(&[4, 3]), [3, 2, 2]);
    }
}
