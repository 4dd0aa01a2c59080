//! How the process keeps its memory.

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
