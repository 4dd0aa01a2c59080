//! Growth of the memory of the process.

/// Measures by how much the resident memory of the process grows. Unused pages of the heap do not
/// count.
pub(crate) struct Growth {
    before: Option<u64>,
}

impl Growth {
    /// Returns unused pages to the system, resets the peak, and starts to measure.
    pub(crate) fn start() -> Self {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: returns only pages that hold no allocation
        unsafe {
            libc::malloc_trim(0);
        }
        // writing 5 resets the peak; where this is not allowed, the growth cannot be measured
        let reset = std::fs::write("/proc/self/clear_refs", "5");
        Self { before: reset.ok().and_then(|()| peak()) }
    }

    /// Returns the bytes by which the process grew at its peak; `None` on systems other than Linux.
    pub(crate) fn bytes(&self) -> Option<u64> {
        Some(peak()?.saturating_sub(self.before?))
    }
}

/// Returns the peak resident memory in bytes. It is read from `/proc`, because no dependency
/// reports it.
fn peak() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes << 10)
}
