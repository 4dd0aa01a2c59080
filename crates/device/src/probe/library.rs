//! Shared libraries that are loaded at run time.

use std::ffi::OsString;
use std::mem::ManuallyDrop;

use libloading::{Library, Symbol};

use super::fault::Fault;

/// A library that stays loaded until the process ends, because drivers keep threads and handlers of
/// their own.
pub(super) struct Loaded {
    name: String,
    library: ManuallyDrop<Library>,
}

impl Loaded {
    /// Loads the first of `names` that can be loaded.
    ///
    /// # Errors
    /// [`Fault::Library`], with the reason of the last name.
    pub(super) fn open(names: &[OsString]) -> Result<Self, Fault> {
        let mut reason = String::from("no name was given");
        for name in names {
            // SAFETY: the initializers of these libraries may run at any time
            match unsafe { Library::new(name) } {
                Ok(library) => {
                    let name = name.to_string_lossy().into_owned();
                    return Ok(Self { name, library: ManuallyDrop::new(library) });
                }
                Err(error) => reason = error.to_string(),
            }
        }
        let library = names.last().map_or_else(String::new, |name| name.to_string_lossy().into());
        Err(Fault::Library { library, reason })
    }

    /// Returns the function called `name`.
    ///
    /// # Errors
    /// [`Fault::Library`] when the library has no such function.
    ///
    /// # Safety
    /// `F` must be the type of the function.
    pub(super) unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, Fault> {
        // SAFETY: the caller names the type
        let symbol: Result<Symbol<'_, F>, _> = unsafe { self.library.get(name.as_bytes()) };
        symbol.map(|symbol| *symbol).map_err(|error| Fault::Library {
            library: self.name.clone(),
            reason: error.to_string(),
        })
    }

    /// Returns an error when `code`, which `call` returned, is not 0.
    pub(super) fn check(&self, call: &'static str, code: i32) -> Result<(), Fault> {
        match code {
            0 => Ok(()),
            code => Err(Fault::Call { library: self.name.clone(), call, code }),
        }
    }
}
