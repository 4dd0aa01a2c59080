//! How the process keeps its memory.

/// Tells glibc to keep freed pages. Every tensor operation of burn's CPU backends allocates its
/// result; by default large ones are mapped from the system and given back each time, and clearing
/// the pages again takes a fifth of a training step.
pub fn keep_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: called before any other thread exists.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
