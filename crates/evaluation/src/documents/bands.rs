//! Bands of positions that are equally wide on a logarithmic scale.

use std::ops::Range;

/// Splits `from..to` into bands, `per_octave` per doubling of the position. Each band is a whole
/// number of `unit` positions, except the last, which ends at `to`. With the block length as the
/// unit, no band contains a part of a block. This matters because the loss depends on the position
/// inside a block.
///
/// # Panics
/// When `from`, `per_octave` or `unit` is 0.
pub(crate) fn bands(from: usize, to: usize, per_octave: usize, unit: usize) -> Vec<Range<usize>> {
    assert!(from > 0 && per_octave > 0 && unit > 0);
    let edge = |i: usize| {
        let along = from as f64 * ((i as f64 / per_octave as f64).exp2() - 1.0);
        from + (along / unit as f64).round() as usize * unit
    };
    let mut edges: Vec<usize> = (0..).map(edge).take_while(|&edge| edge < to).collect();
    edges.dedup();
    let ends = edges.iter().skip(1).copied().chain([to]);
    edges.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// The centre of a band on a logarithmic axis: the geometric mean of the first and the last
/// position of the band.
pub(crate) fn middle(band: &Range<usize>) -> f64 {
    (band.start as f64 * (band.end - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octaves_double_and_bands_cover_every_position_once() {
        assert_eq!(bands(4, 64, 1, 4), [4..8, 8..16, 16..32, 32..64]);
        assert_eq!(bands(1, 6, 1, 1), [1..2, 2..4, 4..6]);
        assert!(bands(4, 4, 1, 4).is_empty());
        for (from, to, per_octave, unit) in [(4, 2048, 4, 4), (1, 1000, 3, 1), (8, 100, 8, 8)] {
            let bands = bands(from, to, per_octave, unit);
            assert_eq!((bands[0].start, bands[bands.len() - 1].end), (from, to));
            assert!(bands.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(bands.iter().all(|band| !band.is_empty() && band.start % unit == 0));
        }
    }
}
