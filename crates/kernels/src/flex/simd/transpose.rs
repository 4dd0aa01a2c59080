//! Transposition of squares in registers.

use std::arch::x86_64::*;

// Loops instead of closures: a closure is not always compiled for the instruction set of its function.

/// Transposes 8 x 8 elements; see [`Vector::transpose`](super::vector::Vector::transpose).
///
/// # Safety
/// The processor must have AVX2. The square and 64 elements from `to` on must be valid.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn transpose_8(from: *const f32, stride: usize, to: *mut f32) {
    // of four rows, column `c` of each half at place `c`
    let mut quads = [[_mm256_setzero_ps(); 4]; 2];
    for (quad, columns) in quads.iter_mut().enumerate() {
        let mut rows = [_mm256_setzero_ps(); 4];
        for (row, to) in rows.iter_mut().enumerate() {
            // SAFETY: by the caller's promise, here and below
            *to = unsafe { _mm256_loadu_ps(from.add((4 * quad + row) * stride)) };
        }
        let [a, b, c, d] = rows;
        let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
        let (ab, cd) = (_mm256_castps_pd(ab), _mm256_castps_pd(cd));
        columns[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd));
        columns[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd));
        let (ab, cd) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
        let (ab, cd) = (_mm256_castps_pd(ab), _mm256_castps_pd(cd));
        columns[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd));
        columns[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd));
    }
    let [left, right] = quads;
    for (column, (a, b)) in left.into_iter().zip(right).enumerate() {
        unsafe {
            _mm256_storeu_ps(to.add(column * 8), _mm256_permute2f128_ps::<0x20>(a, b));
            _mm256_storeu_ps(to.add((column + 4) * 8), _mm256_permute2f128_ps::<0x31>(a, b));
        }
    }
}

/// Transposes 16 x 16 elements; see [`Vector::transpose`](super::vector::Vector::transpose).
///
/// # Safety
/// The processor must have AVX-512 F. The square and 256 elements from `to` on must be valid.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose_16(from: *const f32, stride: usize, to: *mut f32) {
    // by column of each quarter, the quarters of four rows
    let mut quads = [[_mm512_setzero_ps(); 4]; 4];
    for (quad, first) in (0..16).step_by(4).enumerate() {
        let mut rows = [_mm512_setzero_ps(); 4];
        for (row, to) in rows.iter_mut().enumerate() {
            // SAFETY: by the caller's promise, here and below
            *to = unsafe { _mm512_loadu_ps(from.add((first + row) * stride)) };
        }
        let [a, b, c, d] = rows;
        let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
        let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
        quads[0][quad] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
        quads[1][quad] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
        let (ab, cd) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
        let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
        quads[2][quad] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
        quads[3][quad] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
    }
    for (column, [a, b, c, d]) in quads.into_iter().enumerate() {
        // the quarters 0 and 2, then 1 and 3
        let (ab, cd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(c, d));
        unsafe {
            _mm512_storeu_ps(to.add(column * 16), _mm512_shuffle_f32x4::<0x88>(ab, cd));
            _mm512_storeu_ps(to.add((column + 8) * 16), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
        }
        let (ab, cd) = (_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(c, d));
        unsafe {
            _mm512_storeu_ps(to.add((column + 4) * 16), _mm512_shuffle_f32x4::<0x88>(ab, cd));
            _mm512_storeu_ps(to.add((column + 12) * 16), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
        }
    }
}
