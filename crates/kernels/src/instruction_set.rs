//! The instruction set of the kernels on the processor.

use std::ffi::OsString;
use std::fmt::{Display, Formatter};
use std::sync::OnceLock;

/// The environment variable that selects the instruction set.
const VARIABLE: &str = "BLOCK_TRANSFORMER_SIMD";

/// An instruction set that the kernels on the processor are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// AVX-512 F and VL: vectors of 16 f32.
    Avx512,
    /// AVX2 and FMA: vectors of 8 f32.
    Avx2,
    /// NEON: vectors of 4 f32.
    Neon,
    /// Plain Rust, for any processor.
    Plain,
}

impl InstructionSet {
    const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Plain];

    /// The instruction sets that this machine has, the widest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|set| set.is_available())
    }

    /// The name, which is the value of `BLOCK_TRANSFORMER_SIMD`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Plain => "plain",
        }
    }

    fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            // every processor of this architecture has it
            Self::Neon => cfg!(target_arch = "aarch64"),
            Self::Plain => true,
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    fn widest() -> Self {
        Self::available().next().unwrap_or(Self::Plain)
    }
}

impl Display for InstructionSet {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The value of `BLOCK_TRANSFORMER_SIMD` is no instruction set of this machine.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{VARIABLE}={value}: {problem}; set it to one of {}, or unset it", names())]
pub struct InvalidInstructionSet {
    value: String,
    problem: &'static str,
}

fn names() -> String {
    let names: Vec<_> = InstructionSet::available().map(InstructionSet::name).collect();
    names.join(", ")
}

/// The instruction set that the kernels on the processor use: that in the environment variable
/// `BLOCK_TRANSFORMER_SIMD` (`avx512`, `avx2`, `neon` or `plain`), otherwise the widest of the
/// machine. The variable is read once per process. It applies to the kernels of this project only:
/// burn-flex and the crate `gemm` choose by the features of the processor.
///
/// # Errors
/// When the machine does not have the instruction set, or the value is unknown. Kernels then use the
/// widest.
pub fn instruction_set() -> Result<InstructionSet, InvalidInstructionSet> {
    selected().clone()
}

fn selected() -> &'static Result<InstructionSet, InvalidInstructionSet> {
    static SELECTED: OnceLock<Result<InstructionSet, InvalidInstructionSet>> = OnceLock::new();
    SELECTED.get_or_init(|| select(std::env::var_os(VARIABLE)))
}

fn select(value: Option<OsString>) -> Result<InstructionSet, InvalidInstructionSet> {
    let Some(value) = value else { return Ok(InstructionSet::widest()) };
    let known = InstructionSet::ALL.into_iter().find(|set| value == set.name());
    let problem = match known {
        Some(set) if set.is_available() => return Ok(set),
        Some(_) => "this machine does not have the instruction set",
        None => "unknown instruction set",
    };
    Err(InvalidInstructionSet { value: value.to_string_lossy().into_owned(), problem })
}

/// The instruction set of a kernel that starts now. The machine has it.
#[cfg(feature = "flex")]
#[inline]
pub(crate) fn current() -> InstructionSet {
    #[cfg(test)]
    if let Some(set) = forced::get() {
        return set;
    }
    selected().as_ref().copied().unwrap_or_else(|_| InstructionSet::widest())
}

/// The choice of tests.
#[cfg(all(test, feature = "flex"))]
pub(crate) mod forced {
    use std::sync::{Mutex, PoisonError, RwLock};

    use super::InstructionSet;

    // not local to a thread, because kernels run on the threads of rayon
    static FORCED: RwLock<Option<InstructionSet>> = RwLock::new(None);
    /// Held by the test that has set [`FORCED`].
    static LOCK: Mutex<()> = Mutex::new(());

    pub(super) fn get() -> Option<InstructionSet> {
        *FORCED.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(set: Option<InstructionSet>) {
        *FORCED.write().unwrap_or_else(PoisonError::into_inner) = set;
    }

    /// Calls `test` with kernels on each instruction set of the machine. One test at a time does so; no
    /// kernel may run in a test outside of this function.
    pub(crate) fn for_each_set(mut test: impl FnMut(InstructionSet)) {
        let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        for each in InstructionSet::available() {
            set(Some(each));
            test(each);
        }
        set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_selects_an_instruction_set_of_the_machine() {
        assert_eq!(select(None).unwrap(), InstructionSet::widest());
        for set in InstructionSet::ALL {
            let selected = select(Some(set.name().into()));
            assert_eq!(selected.is_ok(), InstructionSet::available().any(|each| each == set));
            assert!(selected.is_ok_and(|selected| selected == set) || !set.is_available());
        }
        let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
        for (value, problem) in
            [(foreign, "does not have"), ("AVX2", "unknown"), ("sse", "unknown"), ("", "unknown")]
        {
            let error = select(Some(value.into())).unwrap_err().to_string();
            assert!(error.starts_with(&format!("BLOCK_TRANSFORMER_SIMD={value}: ")), "{error}");
            assert!(error.contains(problem) && error.contains("plain"), "{error}");
        }
    }
}
