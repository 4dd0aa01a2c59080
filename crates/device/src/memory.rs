//! The memory of the process and the machine.

/// Tells glibc to keep the memory that the process frees, and Linux to use large pages for it.
/// Returns true if the settings were changed.
///
/// Call this function first in `main`: the speeds in the README were measured with it. Every tensor
/// operation of burn's CPU backends allocates its result. By default, glibc requests memory from
/// the system for each large result and returns it afterwards; the system clears these pages each
/// time, which takes a fifth of a training step. With pages of 4 KiB, matrices are also read at
/// only two thirds of the memory bandwidth.
///
/// Returns false and changes nothing on systems other than Linux with glibc, and when the process
/// already has other threads, because glibc does not allow these settings to change while other
/// threads run.
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
        // The heap is grown once to the size of the machine's memory (this reserves addresses
        // only), so that large pages can be requested once for all of it.
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

/// Returns the bytes of memory of the machine; `None` on systems that do not report it.
pub fn machine_memory() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory_specifics(sysinfo::MemoryRefreshKind::nothing().with_ram());
    Some(system.total_memory()).filter(|&bytes| bytes > 0)
}

/// Returns the bytes of memory that this process occupies; `None` on systems that do not report it.
pub fn process_memory() -> Option<u64> {
    use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};
    let (pid, mut system) = (get_current_pid().ok()?, System::new());
    let memory = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, memory);
    system.process(pid).map(sysinfo::Process::memory).filter(|&bytes| bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_process_grows_with_what_it_uses() {
        let Some(before) = process_memory() else { return };
        let used = vec![1_u8; 64 << 20];
        assert!(process_memory().unwrap() >= before + (48 << 20), "{}", used.len());
    }
}
