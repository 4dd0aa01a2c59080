//! Work that is shared by rank, with the results of one rank.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::nested::{framed, parts};
use crate::{Collective, CollectiveError};

/// The most bytes that all ranks together send at a time. MPI counts up to 2 GiB.
const MOST_BYTES: usize = 1 << 30;

/// The time that a round should take. Ranks wait for the slowest at its end, and a kill loses it.
const ROUND: Duration = Duration::from_millis(200);

/// The most works of a rank in a round.
const MOST_WORKS: usize = 64;

/// A result that is sent to the other ranks.
pub trait Message: Sized {
    /// The result as bytes.
    fn to_bytes(&self) -> Vec<u8>;

    /// Reads the bytes of another rank; `None` if they are no result.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// Computes the results of `works`, and calls `take` with each of them in the order of `works`, on every rank.
///
/// All ranks bring the same works. Work `i` is computed by rank `i % ranks.size()` only. After each round, in which
/// every rank computes one or more results, all ranks take the results of all. So what a rank does in `take` does not
/// depend on the number of ranks. With one rank, nothing is converted or sent.
///
/// # Errors
/// The first error of `works`, `compute` or `take`, without the results of its round. When a rank has left, or has
/// other works.
pub fn share_in_order<W, R: Message, E: From<CollectiveError>>(
    ranks: &dyn Collective,
    mut works: impl Iterator<Item = Result<W, E>>,
    mut compute: impl FnMut(&W) -> Result<R, E>,
    mut take: impl FnMut(W, R) -> Result<(), E>,
) -> Result<(), E> {
    let (rank, size) = (ranks.rank(), ranks.size());
    if size == 1 {
        return works.try_for_each(|work| {
            let work = work?;
            let result = compute(&work)?;
            take(work, result)
        });
    }
    let mut works = works.fuse();
    let mut works_of_rank = 1;
    loop {
        let begun = Instant::now();
        let mut round = Vec::new();
        for (i, work) in works.by_ref().take(works_of_rank * size).enumerate() {
            let work = work?;
            let result = if i % size == rank { Some(compute(&work)?) } else { None };
            round.push((work, result));
        }
        if round.is_empty() {
            return Ok(());
        }
        let time = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut message = vec![time.to_le_bytes().to_vec()];
        message.extend(round.iter().filter_map(|(_, result)| Some(result.as_ref()?.to_bytes())));
        let all = gather(ranks, framed(&message), MOST_BYTES)?;
        let mut all: Vec<_> = all.iter().map(|message| parts(message).into_iter()).collect();
        // all ranks see the same times
        let times = all.iter_mut().filter_map(|message| message.next()?.try_into().ok());
        let slowest = Duration::from_micros(times.map(u64::from_le_bytes).max().unwrap_or(0));
        for (i, (work, own)) in round.into_iter().enumerate() {
            let bytes = all[i % size].next();
            let result = own.or_else(|| R::from_bytes(&bytes?));
            take(work, result.ok_or(CollectiveError::OtherWork(i % size))?)?;
        }
        works_of_rank = next_works(works_of_rank, slowest);
    }
}

/// The works of a rank in the round after one of `works` works that took `time`.
fn next_works(works: usize, time: Duration) -> usize {
    if time < ROUND / 2 {
        (works * 2).min(MOST_WORKS)
    } else if time > ROUND {
        (works / 2).max(1)
    } else {
        works
    }
}

/// The message of each rank, sent in parts if all together have more than `most` bytes.
fn gather(
    ranks: &dyn Collective,
    mut message: Vec<u8>,
    most: usize,
) -> Result<Vec<Vec<u8>>, CollectiveError> {
    let length = message.len() as u64;
    let part = (most / ranks.size()).max(1);
    let mut next = || {
        let after = message.split_off(part.min(message.len()));
        std::mem::replace(&mut message, after)
    };
    let first = [&length.to_le_bytes()[..], &next()].concat();
    let mut all = Vec::new();
    for (rank, bytes) in ranks.gather(first)?.into_iter().enumerate() {
        let other = CollectiveError::OtherWork(rank);
        let (length, bytes) = bytes.split_first_chunk().ok_or(other)?;
        all.push((u64::from_le_bytes(*length), bytes.to_vec()));
    }
    while all.iter().any(|(length, bytes)| (bytes.len() as u64) < *length) {
        for ((_, bytes), more) in all.iter_mut().zip(ranks.gather(next())?) {
            bytes.extend(more);
        }
    }
    Ok(all.into_iter().map(|(_, bytes)| bytes).collect())
}

/// Computes a value on rank 0, and returns it on all ranks.
///
/// # Errors
/// Those of `compute` on rank 0. When a rank has left, or the value cannot be written or read as JSON.
pub fn of_rank_0<T: Serialize + DeserializeOwned, E: From<CollectiveError>>(
    ranks: &dyn Collective,
    compute: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let json = |error: serde_json::Error| CollectiveError::Json(error.to_string());
    if ranks.rank() > 0 {
        let bytes = ranks.broadcast(Vec::new())?;
        return Ok(serde_json::from_slice(&bytes).map_err(json)?);
    }
    let value = compute()?;
    if ranks.size() > 1 {
        ranks.broadcast(serde_json::to_vec(&value).map_err(json)?)?;
    }
    Ok(value)
}

/// Calls `run` on rank 0, and then on the other ranks: for what rank 0 puts into files that all ranks see, such as
/// a download.
///
/// # Errors
/// Those of `run`, and when a rank has left.
pub fn rank_0_first<T, E: From<CollectiveError>>(
    ranks: &dyn Collective,
    run: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    if ranks.rank() > 0 {
        ranks.barrier()?;
        return run();
    }
    let result = run()?;
    ranks.barrier()?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Alone, Replica};

    #[derive(Debug, PartialEq)]
    struct Square(u64);

    impl Message for Square {
        fn to_bytes(&self) -> Vec<u8> {
            self.0.to_le_bytes().into()
        }

        fn from_bytes(bytes: &[u8]) -> Option<Self> {
            Some(Self(u64::from_le_bytes(bytes.try_into().ok()?)))
        }
    }

    /// The works that this rank computes, and all results.
    fn squares(ranks: &dyn Collective, count: u64) -> (Vec<u64>, Vec<(u64, u64)>) {
        let (mut computed, mut taken) = (Vec::new(), Vec::new());
        share_in_order::<_, _, CollectiveError>(
            ranks,
            (0..count).map(Ok),
            |&work| {
                computed.push(work);
                Ok(Square(work * work))
            },
            |work, Square(square)| {
                taken.push((work, square));
                Ok(())
            },
        )
        .unwrap();
        (computed, taken)
    }

    #[test]
    fn every_rank_takes_all_results_in_order_and_computes_its_own() {
        for count in [0, 1, 3, 8, 500] {
            let expected = squares(&Alone, count).1;
            assert_eq!(expected.len() as u64, count);
            let all = Replica::each(3, |replica| squares(replica, count));
            for (rank, (computed, taken)) in all.into_iter().enumerate() {
                let own: Vec<u64> = (rank as u64..count).step_by(3).collect();
                assert_eq!(computed, own);
                assert_eq!(taken, expected);
            }
        }
    }

    #[test]
    fn a_rank_with_other_works_is_named() {
        let errors = Replica::each(2, |replica| {
            let count = if replica.rank() == 0 { 4 } else { 3 };
            let works = (0..count).map(Ok::<_, CollectiveError>);
            let shared =
                share_in_order(replica, works, |&work: &u64| Ok(Square(work)), |_, _| Ok(()));
            shared.err()
        });
        assert_eq!(errors, [Some(CollectiveError::OtherWork(1)), None]);
    }

    #[test]
    fn an_error_ends_the_sharing() {
        let errors = Replica::each(2, |replica| {
            let works = (0..9).map(|i| if i < 5 { Ok(i) } else { Err(CollectiveError::Lengths) });
            let mut taken = 0;
            let shared = share_in_order(
                replica,
                works,
                |&work: &u64| Ok(Square(work)),
                |_, _| {
                    taken += 1;
                    Ok(())
                },
            );
            (shared.unwrap_err(), taken)
        });
        // the results of the rounds before it
        let taken = errors[0].1;
        assert!(taken == 2 || taken == 4, "{taken}");
        assert_eq!(errors, vec![(CollectiveError::Lengths, taken); 2]);
    }

    #[test]
    fn long_messages_are_sent_in_parts() {
        for most in [1, 6, 7, 1000] {
            let all = Replica::each(3, |replica| {
                let own = vec![7; 10 * replica.rank()];
                gather(replica, own, most).unwrap()
            });
            assert_eq!(all, vec![[vec![], vec![7; 10], vec![7; 20]]; 3]);
        }
    }

    #[test]
    fn rounds_get_longer_until_they_take_their_time() {
        let after = |works, millis| next_works(works, Duration::from_millis(millis));
        assert_eq!([after(1, 1), after(4, 99), after(4, 150), after(4, 201)], [2, 8, 4, 2]);
        assert_eq!([after(1, 900), after(64, 1)], [1, 64]);
    }

    #[test]
    fn a_value_of_rank_0_is_known_to_all_and_rank_0_comes_first() {
        let order = std::sync::Mutex::new(Vec::new());
        let values = Replica::each(3, |replica| {
            let rank = replica.rank();
            rank_0_first(replica, || {
                order.lock().unwrap().push(rank);
                Ok::<_, CollectiveError>(())
            })
            .unwrap();
            let value = || Ok::<_, CollectiveError>((rank, 0.1 + 0.2));
            of_rank_0(replica, value).unwrap()
        });
        assert_eq!(values, [(0, 0.1 + 0.2); 3]);
        assert_eq!(order.lock().unwrap()[0], 0);
    }
}
