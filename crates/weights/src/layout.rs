//! Memory layouts of parameters in published files.

/// Layout of a published tensor relative to the model's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TensorLayout {
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

impl TensorLayout {
    /// Returns the published shape of a parameter of shape `ours`.
    pub(crate) fn published_shape(self, ours: &[usize]) -> Vec<usize> {
        match self {
            Self::Same => ours.to_vec(),
            Self::Transposed => vec![ours[1], ours[0]],
            Self::Conv { kernel } => vec![ours[1], ours[0] / kernel, kernel],
        }
    }

    /// Reorders the values of a parameter of shape `ours` to the published layout.
    pub(crate) fn to_published(self, ours: &[usize], values: Vec<f32>) -> Vec<f32> {
        let kernel = match self {
            Self::Same => return values,
            Self::Transposed => 1,
            Self::Conv { kernel } => kernel,
        };
        // the iterator does not know its length
        let mut out = Vec::with_capacity(values.len());
        out.extend(published_order(ours, kernel).map(|at| values[at]));
        out
    }

    /// Reorders published values to the layout of a parameter of shape `ours`.
    pub(crate) fn to_ours(self, ours: &[usize], values: Vec<f32>) -> Vec<f32> {
        let kernel = match self {
            Self::Same => return values,
            Self::Transposed => 1,
            Self::Conv { kernel } => kernel,
        };
        let mut out = vec![0.0; values.len()];
        published_order(ours, kernel).zip(values).for_each(|(at, value)| out[at] = value);
        out
    }
}

/// Our index of each element `[out][in][kernel]` of a published matrix, in its order.
fn published_order(ours: &[usize], kernel: usize) -> impl Iterator<Item = usize> {
    let (rows, cols) = (ours[0], ours[1]);
    let width = rows / kernel;
    let of_input = move |col, i| (0..kernel).map(move |k| (k * width + i) * cols + col);
    (0..cols).flat_map(move |col| (0..width).flat_map(move |i| of_input(col, i)))
}

#[cfg(test)]
mod tests {
    use super::TensorLayout;

    #[test]
    fn published_layouts_round_trip_and_permute() {
        let ours: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let conv = TensorLayout::Conv { kernel: 2 };
        for layout in [TensorLayout::Same, TensorLayout::Transposed, conv] {
            let published = layout.to_published(&[4, 3], ours.clone());
            assert_eq!(layout.to_ours(&[4, 3], published), ours, "{layout:?}");
        }
        // ours[k * in + i][o] = published[o][i][k]
        assert_eq!(conv.to_published(&[4, 3], ours)[..4], [0.0, 6.0, 3.0, 9.0]);
        assert_eq!(conv.published_shape(&[4, 3]), [3, 2, 2]);
    }
}
