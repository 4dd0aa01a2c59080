//! Vectors of NEON.

use std::arch::aarch64::*;

use burn::tensor::bf16;

use super::vector::Vector;

#[derive(Clone, Copy)]
pub(super) struct Neon(float32x4_t);

// SAFETY: every processor of this architecture has NEON
unsafe impl Vector for Neon {
    const LANES: usize = 4;
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: by the caller's promise, here and below
        Self(unsafe { vdupq_n_f32(x) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { vld1q_f32(from) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // a bf16 is the upper half of an f32
        Self(unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(from.cast())))) })
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // there is no load of four bytes into a vector
        unsafe {
            let four = vreinterpret_s8_s32(vdup_n_s32(from.cast::<i32>().read_unaligned()));
            Self(vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(four)))))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { vst1q_f32(to, self.0) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
        Self(unsafe { vfmaq_f32(c.0, self.0, b.0) })
    }
}
