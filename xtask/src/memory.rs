//! How the process keeps its memory, and how much it has.

/// Tells glibc to keep freed pages, and Linux to make them large.
///
/// Every tensor operation of burn's CPU backends allocates its result; by default large ones are
/// mapped from the system and given back each time, and clearing the pages again takes a fifth of a
/// training step. Matrices on pages of 4 KiB are read at two thirds of the speed that the memory
/// has.
pub fn keep_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: called before any other thread exists; the block is not touched, and freed at once.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // The heap is grown once to what may be needed (addresses, not memory), so that it is one
        // area with one wish.
        let page = libc::sysconf(libc::_SC_PAGESIZE).max(1) as usize;
        let mut size = libc::sysconf(libc::_SC_PHYS_PAGES).max(0) as usize * page;
        while size > 1 << 30 {
            let block = libc::malloc(size);
            if !block.is_null() {
                let start = block as usize / page * page;
                libc::madvise(start as *mut libc::c_void, size, libc::MADV_HUGEPAGE);
                libc::free(block);
                return;
            }
            size /= 2;
        }
    }
}

/// Bytes of memory the machine has, where the system tells.
pub fn of_machine() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    kilobytes(&text, "MemTotal:").map(|kilobytes| kilobytes << 10)
}

/// Peak resident memory of the process in bytes, where the system tells.
pub fn peak() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    kilobytes(&text, "VmHWM:").map(|kilobytes| kilobytes << 10)
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Measures by how much the process grows from now on, pages it has but does not use not counted.
pub struct Growth {
    before: Option<u64>,
}

impl Growth {
    /// Gives unused pages back, and forgets the peak so far.
    pub fn start() -> Self {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: asks for nothing but pages that hold nothing
        unsafe {
            libc::malloc_trim(0);
        }
        // 5 resets the peak; where it is not allowed there is nothing to measure from
        let reset = std::fs::write("/proc/self/clear_refs", "5");
        Self { before: reset.ok().and_then(|()| peak()) }
    }

    /// Bytes that it grew by at most.
    pub fn bytes(&self) -> Option<u64> {
        Some(peak()?.saturating_sub(self.before?))
    }
}
