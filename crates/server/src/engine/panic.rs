//! Panics on the threads of an engine. They end the server with one line, which says where they happened.

use std::any::Any;
use std::cell::Cell;
use std::panic::PanicHookInfo;
use std::sync::{Mutex, PoisonError};

thread_local! {
    static COMPUTES: Cell<bool> = const { Cell::new(false) };
}

static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Marks the current thread as one of an engine.
pub(super) fn mark_thread() {
    COMPUTES.set(true);
}

/// Keeps the text of a panic on a thread of an engine for the error that ends the server, and returns whether it did.
/// A panic hook that calls this function need not print such a panic.
pub fn keep_panic(panic: &PanicHookInfo<'_>) -> bool {
    if !COMPUTES.get() {
        return false;
    }
    let text = message(panic.payload());
    let text = match panic.location() {
        Some(place) => format!("{text} ({}:{})", place.file(), place.line()),
        None => text,
    };
    LAST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
    true
}

/// The text of a panic that was caught.
pub(super) fn text(payload: &(dyn Any + Send)) -> String {
    let kept = LAST.lock().unwrap_or_else(PoisonError::into_inner).take();
    kept.unwrap_or_else(|| message(payload))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_string()
}
