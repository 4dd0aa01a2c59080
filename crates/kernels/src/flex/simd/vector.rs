//! Explicit vectors of the processor, for loops that must keep their sums in registers.

use burn::tensor::bf16;

use crate::instruction_set::{InstructionSet, current};

/// A vector of f32 of one instruction set.
///
/// # Safety
/// A method may only run on a processor that has the instruction set, that is, inside a computation
/// that [`dispatch`] started.
pub(crate) unsafe trait Vector: Copy {
    /// Elements per vector.
    const LANES: usize;
    /// Vector registers of the processor.
    const REGISTERS: usize;
    /// Number of rows of three vectors for which all sums fit into the registers.
    const ROWS: usize = if Self::REGISTERS < 32 { 4 } else { 8 };

    /// A vector with `x` in all lanes.
    unsafe fn splat(x: f32) -> Self;
    /// Loads `LANES` elements from `from`, which needs no alignment.
    unsafe fn load(from: *const f32) -> Self;
    /// Loads `LANES` bf16 elements and widens them.
    unsafe fn load_bf16(from: *const bf16) -> Self;
    /// Loads `LANES` integers and converts them.
    unsafe fn load_i8(from: *const i8) -> Self;
    /// Stores `LANES` elements.
    unsafe fn store(self, to: *mut f32);
    /// Prefetches the cache line at `from`, a valid address or not, into the second-level cache.
    #[inline(always)]
    unsafe fn prefetch<T>(from: *const T) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(from.cast());
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: a hint
        unsafe {
            std::arch::asm!(
                "prfm pldl2keep, [{}]",
                in(reg) from,
                options(readonly, nostack, preserves_flags)
            );
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = from;
    }
    /// `self * b + c`
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self;
    /// Transposes a square of `LANES` rows, `stride` elements apart, to `LANES` rows that follow each other.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
        for row in 0..Self::LANES {
            for column in 0..Self::LANES {
                // SAFETY: by the caller's promise
                unsafe { *to.add(column * Self::LANES + row) = *from.add(row * stride + column) };
            }
        }
    }
}

/// An element type that a weight matrix may have.
pub(crate) trait Stored: Copy + Send + Sync {
    /// Rows of a panel that hold the scales of its columns, in f32.
    const SCALE_ROWS: usize = 0;

    /// Loads `V::LANES` elements from `from` as f32.
    ///
    /// # Safety
    /// The conditions of [`Vector`] apply. `V::LANES` elements from `from` on must be valid to
    /// read.
    unsafe fn load<V: Vector>(from: *const Self) -> V;
    /// The element as f32.
    fn to_f32(self) -> f32;
}

impl Stored for f32 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: by the caller's promise
        unsafe { V::load(from) }
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Stored for bf16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: by the caller's promise
        unsafe { V::load_bf16(from) }
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        Self::to_f32(self)
    }
}

impl Stored for i8 {
    const SCALE_ROWS: usize = crate::packed::SCALE_ROWS;

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: by the caller's promise
        unsafe { V::load_i8(from) }
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.into()
    }
}

/// A computation over vectors of any instruction set.
pub(crate) trait Vectorized {
    /// Runs with vectors of type `V`. Implementations must be `#[inline(always)]`, so that they are
    /// compiled for the instruction set of their caller.
    ///
    /// # Safety
    /// The conditions of [`Vector`] apply.
    unsafe fn run<V: Vector>(self);
}

/// Runs `computation` with the vectors of [`current`].
pub(crate) fn dispatch(computation: impl Vectorized) {
    match current() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has the instruction set, here and below
        InstructionSet::Avx512 => unsafe { x86::avx512(computation) },
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => unsafe { x86::avx2(computation) },
        #[cfg(target_arch = "aarch64")]
        InstructionSet::Neon => unsafe { computation.run::<super::neon::Neon>() },
        // SAFETY: plain Rust needs no instruction set
        _ => unsafe { computation.run::<Plain>() },
    }
}

/// Four elements in plain Rust, for any instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 4]);

// SAFETY: plain Rust needs no instruction set
unsafe impl Vector for Plain {
    const LANES: usize = 4;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: by the caller's promise
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: by the caller's promise
        Self(unsafe { from.cast::<[bf16; 4]>().read_unaligned() }.map(bf16::to_f32))
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: by the caller's promise
        Self(unsafe { from.cast::<[i8; 4]>().read_unaligned() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: by the caller's promise
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
        let lane = |i: usize| {
            if cfg!(target_arch = "aarch64") {
                self.0[i].mul_add(b.0[i], c.0[i])
            } else {
                self.0[i] * b.0[i] + c.0[i]
            }
        };
        Self([lane(0), lane(1), lane(2), lane(3)])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use burn::tensor::bf16;

    use super::super::transpose::{transpose_8, transpose_16};
    use super::{Vector, Vectorized};

    #[target_feature(enable = "avx512f,avx512vl")]
    pub(super) fn avx512(computation: impl Vectorized) {
        // SAFETY: this function is compiled for the instruction set and only called where it is detected
        unsafe { computation.run::<Wide>() }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(computation: impl Vectorized) {
        // SAFETY: this function is compiled for the instruction set and only called where it is detected
        unsafe { computation.run::<Half>() }
    }

    #[derive(Clone, Copy)]
    pub(super) struct Wide(__m512);
    #[derive(Clone, Copy)]
    pub(super) struct Half(__m256);

    macro_rules! vector {
        (
            $name:ident, $lanes:literal, $registers:literal,
            $splat:ident, $load:ident, $store:ident, $fma:ident, $widen:expr, $convert:expr,
            $transpose:ident
        ) => {
            // SAFETY: every method uses instructions of the set only
            unsafe impl Vector for $name {
                const LANES: usize = $lanes;
                const REGISTERS: usize = $registers;

                #[inline(always)]
                unsafe fn splat(x: f32) -> Self {
                    // SAFETY: by the caller's promise, here and below
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
                unsafe fn load_i8(from: *const i8) -> Self {
                    Self(unsafe { $convert(from) })
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    unsafe { $store(to, self.0) }
                }

                #[inline(always)]
                unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
                    Self(unsafe { $fma(self.0, b.0, c.0) })
                }

                #[inline(always)]
                unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
                    unsafe { $transpose(from, stride, to) }
                }
            }
        };
    }
    vector!(
        Wide,
        16,
        32,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        // a bf16 is the upper half of an f32
        |from: *const bf16| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(
            _mm256_loadu_si256(from.cast())
        ))),
        |from: *const i8| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))),
        transpose_16
    );
    vector!(
        Half,
        8,
        16,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        |from: *const bf16| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(
            _mm_loadu_si128(from.cast())
        ))),
        |from: *const i8| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))),
        transpose_8
    );
}
