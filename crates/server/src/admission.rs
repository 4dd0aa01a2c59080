//! The bound on the sequences that a model works on or that wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the sequences of a model that have not ended.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Sequences with and without a slot.
    live: AtomicUsize,
    /// Sequences that may wait.
    queue: usize,
}

/// The place of a sequence in the bound. It is free again when the ticket is dropped.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Admission>);

/// The seconds after which a client is told to try again at the latest.
const LONGEST_RETRY: usize = 30;

impl Admission {
    /// A bound of `queue` waiting sequences.
    pub(crate) fn new(queue: usize) -> Self {
        Self { live: AtomicUsize::new(0), queue }
    }

    /// Takes a place for each of `count` sequences of a model with `slots` slots. A request with more sequences than
    /// all places is only taken if there is no other. The error is the number of seconds after which the client
    /// should try again.
    pub(crate) fn take(self: &Arc<Self>, count: usize, slots: usize) -> Result<Vec<Ticket>, u64> {
        let room = slots.saturating_add(self.queue);
        let taken = self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |live| {
            let after = live.saturating_add(count);
            (live == 0 || after <= room).then_some(after)
        });
        match taken {
            Ok(_) => Ok((0..count).map(|_| Ticket(self.clone())).collect()),
            // a second for each batch that is in front
            Err(live) => Err((1 + live / slots.max(1)).min(LONGEST_RETRY) as u64),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_become_free() {
        let admission = Arc::new(Admission::new(2));
        let first = admission.take(4, 4).unwrap();
        let second = admission.take(2, 4).unwrap();
        assert_eq!(admission.take(1, 4).unwrap_err(), 2);
        drop(second);
        let _third = admission.take(1, 4).unwrap();
        assert!(admission.take(2, 4).is_err());
        drop(first);
        assert_eq!(admission.take(5, 4).unwrap().len(), 5);
    }

    #[test]
    fn a_request_with_more_sequences_than_places_waits_for_an_empty_server() {
        let admission = Arc::new(Admission::new(0));
        let one = admission.take(1, 2).unwrap();
        assert!(admission.take(9, 2).is_err());
        drop(one);
        let many = admission.take(9, 2).unwrap();
        assert_eq!(admission.take(1, 2).unwrap_err(), 5);
        drop(many);
        assert_eq!(admission.live.load(Ordering::Relaxed), 0);
    }
}
