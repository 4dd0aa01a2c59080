//! The shared libraries that this process has loaded.

use std::path::PathBuf;

/// The starts of the names of libraries that belong to the system, the compiler's run time, or a
/// driver. A copy of them on another machine would not fit its loader or its kernel.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "bundles are for Linux"))]
const OF_THE_MACHINE: [&str; 18] = [
    "ld-linux",
    "ld-musl",
    "ld64",
    "libc.so",
    "libc-",
    "libm.so",
    "libpthread.so",
    "libdl.so",
    "librt.so",
    "libresolv.so",
    "libutil.so",
    "libnss_",
    "libgcc_s.so",
    "libstdc++.so",
    "libcuda.so",
    "libnvidia",
    "libnvrtc",
    "linux-vdso",
];

/// Returns the libraries that this process has loaded, under the names by which they were asked
/// for, without those that every machine has.
#[cfg(target_os = "linux")]
pub(crate) fn loaded_libraries() -> Vec<PathBuf> {
    use std::ffi::{CStr, OsStr, c_int, c_void};
    use std::os::unix::ffi::OsStrExt;

    unsafe extern "C" fn add(info: *mut libc::dl_phdr_info, _: usize, all: *mut c_void) -> c_int {
        // SAFETY: the caller passes the list, and glibc a name that ends with a zero
        let (all, name) = unsafe {
            let name = (*info).dlpi_name;
            if name.is_null() {
                return 0;
            }
            (&mut *all.cast::<Vec<PathBuf>>(), CStr::from_ptr(name))
        };
        all.push(PathBuf::from(OsStr::from_bytes(name.to_bytes())));
        0
    }

    let mut all: Vec<PathBuf> = Vec::new();
    // SAFETY: `add` gets the list, which lives until the call returns
    unsafe { libc::dl_iterate_phdr(Some(add), (&raw mut all).cast()) };
    all.retain(|path| path.is_absolute() && path.file_name().is_some_and(is_carried));
    all
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn loaded_libraries() -> Vec<PathBuf> {
    Vec::new()
}

/// Returns whether a library has to be carried to another machine.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "bundles are for Linux"))]
fn is_carried(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    !OF_THE_MACHINE.iter().any(|start| name.starts_with(start))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_the_system_stay_where_they_are() {
        for name in ["libc.so.6", "ld-linux-x86-64.so.2", "libm.so.6", "libcuda.so.1"] {
            assert!(!is_carried(name.as_ref()), "{name}");
        }
        for name in ["libLLVM.so.23.1", "libc++.so.1", "libc++abi.so.1", "libz.so.1"] {
            assert!(is_carried(name.as_ref()), "{name}");
        }
        let names = loaded_libraries();
        assert!(names.iter().all(|path| !path.ends_with("libc.so.6")), "{names:?}");
    }
}
