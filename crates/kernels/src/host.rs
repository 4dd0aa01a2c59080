//! Arithmetic on the host that needs no backend.

/// Returns the largest value, or -inf for an empty slice. NaN is ignored.
#[inline(always)]
pub fn max_of(x: &[f32]) -> f32 {
    // 16 running maxima, one per lane of the widest vector
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (max, &x) in lanes.iter_mut().zip(chunk) {
            *max = if x > *max { x } else { *max };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max })
}
