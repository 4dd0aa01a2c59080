//! Vector arithmetic: functions that the compiler vectorizes, and explicit vectors.

/// Defines a function that is compiled for each instruction set. A call runs that of
/// [`current`](crate::instruction_set::current). Arguments are names, not patterns.
macro_rules! vectorized {
    (
        $(#[$attribute:meta])*
        $visible:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block
    ) => {
        $(#[$attribute])*
        $visible fn $name($($argument: $type),*) $(-> $output)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl")]
            fn avx512($($argument: $type),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) $(-> $output)? $body

            // the compiler uses NEON wherever the processor has it
            fn plain($($argument: $type),*) $(-> $output)? $body

            match $crate::instruction_set::current() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the machine has the instruction set; also below
                $crate::InstructionSet::Avx512 => unsafe { avx512($($argument),*) },
                #[cfg(target_arch = "x86_64")]
                $crate::InstructionSet::Avx2 => unsafe { avx2($($argument),*) },
                _ => plain($($argument),*),
            }
        }
    };
}

pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod transpose;
pub(crate) mod vector;
