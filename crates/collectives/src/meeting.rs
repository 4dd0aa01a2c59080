//! A place where the threads of a data-parallel run wait for one another.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::CollectiveError;

/// The time between two looks for work of the pool while a thread of it waits.
const LOOK: Duration = Duration::from_micros(200);

/// Rounds in which every replica brings a part, and takes the same result of all parts.
pub(crate) struct Meeting<T, R> {
    round: Mutex<Round<T, R>>,
    changed: Condvar,
    /// Computes the result of a round from the parts, by replica.
    combine: fn(Vec<T>) -> Result<R, CollectiveError>,
}

/// One round. The next one begins when every replica has taken the result.
struct Round<T, R> {
    parts: Vec<Option<T>>,
    result: Option<Result<R, CollectiveError>>,
    /// Replicas that have taken the result.
    taken: usize,
    /// The first replica that left.
    left: Option<usize>,
}

impl<T, R: Clone> Meeting<T, R> {
    /// Creates rounds of `ranks` replicas.
    pub(crate) fn new(ranks: usize, combine: fn(Vec<T>) -> Result<R, CollectiveError>) -> Self {
        let parts = (0..ranks).map(|_| None).collect();
        let round = Round { parts, result: None, taken: 0, left: None };
        Self { round: Mutex::new(round), changed: Condvar::new(), combine }
    }

    /// Waits until every replica has brought its part of the round, and returns the result.
    ///
    /// # Errors
    /// When a replica has left, and the errors of `combine`.
    pub(crate) fn meet(&self, rank: usize, part: T) -> Result<R, CollectiveError> {
        let mut round = self.wait_while(self.lock(), |round| round.result.is_some());
        if let Some(rank) = round.left {
            return Err(CollectiveError::Stopped(rank));
        }
        round.parts[rank] = Some(part);
        if round.parts.iter().all(Option::is_some) {
            let parts = round.parts.iter_mut().filter_map(Option::take).collect();
            round.result = Some((self.combine)(parts));
            round.taken = 0;
            self.changed.notify_all();
        }
        round = self.wait_while(round, |round| round.result.is_none());
        let result = match &round.result {
            Some(result) => result.clone()?,
            None => return Err(CollectiveError::Stopped(round.left.unwrap_or(rank))),
        };
        round.taken += 1;
        if round.taken == round.parts.len() {
            round.result = None;
            self.changed.notify_all();
        }
        Ok(result)
    }

    /// Takes replica `rank` out: the rounds that need it return an error from now on.
    pub(crate) fn leave(&self, rank: usize) {
        self.lock().left.get_or_insert(rank);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Round<T, R>> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as `condition` holds and every replica is there.
    fn wait_while<'a>(
        &'a self,
        round: MutexGuard<'a, Round<T, R>>,
        condition: fn(&Round<T, R>) -> bool,
    ) -> MutexGuard<'a, Round<T, R>> {
        let waits = |round: &mut Round<T, R>| round.left.is_none() && condition(round);
        if rayon::current_thread_index().is_none() {
            return self.changed.wait_while(round, waits).unwrap_or_else(PoisonError::into_inner);
        }
        // a thread of the pool must work for the others, which may need it to come here
        let mut round = round;
        while waits(&mut round) {
            drop(round);
            let idle = rayon::yield_now() != Some(rayon::Yield::Executed);
            round = self.lock();
            if idle && waits(&mut round) {
                let waited = self.changed.wait_timeout(round, LOOK);
                round = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        round
    }
}
