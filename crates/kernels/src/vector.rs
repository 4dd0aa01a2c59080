//! The vectors of the machine, for loops that must stay in registers.

use burn::tensor::bf16;

/// A vector of f32 of one instruction set.
///
/// # Safety
/// Every function may only run where its instruction set is there: inside a function that was
/// chosen by [`run`].
pub unsafe trait Vector: Copy {
    /// Numbers a vector.
    const LANES: usize;
    /// Rows of three vectors each that fit into the registers as sums.
    const ROWS: usize;

    /// All lanes `x`.
    unsafe fn splat(x: f32) -> Self;
    /// `LANES` numbers from `from` on, wherever it points.
    unsafe fn load(from: *const f32) -> Self;
    /// `LANES` bf16 numbers, widened.
    unsafe fn load_bf16(from: *const bf16) -> Self;
    /// Writes `LANES` numbers.
    unsafe fn store(self, to: *mut f32);
    /// Asks for the cache line at `from`, which need not exist, into the second-level cache.
    #[inline(always)]
    unsafe fn prefetch<T>(from: *const T) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(from.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = from;
    }
    /// `self * b + c`
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self;
}

/// Numbers a matrix may be stored as.
pub trait Stored: Copy + Send + Sync {
    /// `V::LANES` of them from `from` on.
    ///
    /// # Safety
    /// That of [`Vector`], and there are as many.
    unsafe fn load<V: Vector>(from: *const Self) -> V;
    /// One of them.
    fn number(self) -> f32;
}

impl Stored for f32 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's
        unsafe { V::load(from) }
    }

    #[inline(always)]
    fn number(self) -> f32 {
        self
    }
}

impl Stored for bf16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's
        unsafe { V::load_bf16(from) }
    }

    #[inline(always)]
    fn number(self) -> f32 {
        self.to_f32()
    }
}

/// A computation over the vectors of whatever machine it runs on.
pub trait Vectorized {
    /// Must be `#[inline(always)]`, so that it takes on the instruction set of its caller.
    ///
    /// # Safety
    /// Those of [`Vector`].
    unsafe fn on<V: Vector>(self);
}

/// Runs `what` over the widest vectors there are.
pub fn run(what: impl Vectorized) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: just detected
            return unsafe { x86::avx512(what) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: just detected
            return unsafe { x86::avx2(what) };
        }
    }
    // SAFETY: plain Rust
    unsafe { what.on::<Plain>() }
}

/// Four numbers, for the compiler to make of what it can.
#[derive(Clone, Copy)]
pub struct Plain([f32; 4]);

// SAFETY: needs no instruction set
unsafe impl Vector for Plain {
    const LANES: usize = 4;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the caller's
        Self(unsafe { from.cast::<[bf16; 4]>().read_unaligned() }.map(bf16::to_f32))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
        let one = |i: usize| {
            if cfg!(target_arch = "aarch64") {
                self.0[i].mul_add(b.0[i], c.0[i])
            } else {
                self.0[i] * b.0[i] + c.0[i]
            }
        };
        Self([one(0), one(1), one(2), one(3)])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use burn::tensor::bf16;

    use super::{Vector, Vectorized};

    #[target_feature(enable = "avx512f")]
    pub fn avx512(what: impl Vectorized) {
        // SAFETY: inside the instruction set
        unsafe { what.on::<Wide>() }
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2(what: impl Vectorized) {
        // SAFETY: inside the instruction set
        unsafe { what.on::<Half>() }
    }

    #[derive(Clone, Copy)]
    pub struct Wide(__m512);
    #[derive(Clone, Copy)]
    pub struct Half(__m256);

    macro_rules! vector {
        (
            $name:ident, $lanes:literal, $rows:literal,
            $splat:ident, $load:ident, $store:ident, $fma:ident, $widen:expr
        ) => {
            // SAFETY: every function is one instruction of the set
            unsafe impl Vector for $name {
                const LANES: usize = $lanes;
                const ROWS: usize = $rows;

                #[inline(always)]
                unsafe fn splat(x: f32) -> Self {
                    // SAFETY: the caller's, here and below
                    Self(unsafe { $splat(x) })
                }

                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    Self(unsafe { $load(from) })
                }

                #[inline(always)]
                unsafe fn load_bf16(from: *const bf16) -> Self {
                    Self(unsafe { $widen(from) })
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    unsafe { $store(to, self.0) }
                }

                #[inline(always)]
                unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
                    Self(unsafe { $fma(self.0, b.0, c.0) })
                }
            }
        };
    }
    vector!(
        Wide,
        16,
        8,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        // a bf16 is the upper half of an f32
        |from: *const bf16| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(
            _mm256_loadu_si256(from.cast())
        )))
    );
    vector!(
        Half,
        8,
        4,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        |from: *const bf16| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(
            _mm_loadu_si128(from.cast())
        )))
    );
}
