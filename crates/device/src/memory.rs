//! The memory of the process and the machine.

/// Tells glibc to keep the memory that the process frees, and Linux to use large pages for it.
/// Returns whether it did.
///
/// Call it first in `main`: the README's speeds were measured with it. Every tensor operation of
/// burn's backends on the processor allocates its result. By default glibc maps large results from
/// the system and returns them each time, and clearing the pages again takes a fifth of a training
/// step; and from pages of 4 KiB, matrices are read at two thirds of the memory's speed.
///
/// Returns false, and changes nothing, on systems other than Linux with glibc, and when the process
/// has other threads, because glibc does not allow these settings to change beside them.
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
        if threads == 1 {
            set_malloc_options();
        }
        threads == 1
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set_malloc_options() {
    // SAFETY: no other thread exists; the block is not accessed, and is freed at once
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // The heap is grown once to the size of the machine's memory (addresses only), so that it is
        // one area for which large pages are requested once.
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

/// Returns the bytes of memory of the machine; `None` on systems that do not tell.
pub fn machine_memory() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory_specifics(sysinfo::MemoryRefreshKind::nothing().with_ram());
    Some(system.total_memory()).filter(|&bytes| bytes > 0)
}
