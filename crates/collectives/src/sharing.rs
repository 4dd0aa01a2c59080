//! Work that is shared by rank, with the results of one rank.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Collective, CollectiveError};

/// The most bytes that all ranks together send at a time. MPI counts up to 2 GiB.
const MOST_BYTES: usize = 1 << 30;

/// The length of the message of a rank that has no work in a round.
const NO_WORK: u64 = u64::MAX;

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
/// every rank computes one result, all ranks take the results of all. So what a rank does in `take` does not depend
/// on the number of ranks. With one rank, nothing is converted or sent.
///
/// # Errors
/// The first error of `works`, `compute` or `take`, without the results of its round. When a rank has left, or has
/// other works.
pub fn share_in_order<W, R: Message, E: From<CollectiveError>>(
    ranks: &dyn Collective,
    works: impl Iterator<Item = Result<W, E>>,
    mut compute: impl FnMut(&W) -> Result<R, E>,
    mut take: impl FnMut(W, R) -> Result<(), E>,
) -> Result<(), E> {
    let mut works = works.fuse();
    if ranks.size() == 1 {
        return works.try_for_each(|work| {
            let work = work?;
            let result = compute(&work)?;
            take(work, result)
        });
    }
    loop {
        let round = works.by_ref().take(ranks.size()).collect::<Result<Vec<W>, E>>()?;
        if round.is_empty() {
            return Ok(());
        }
        let own = round.get(ranks.rank()).map(&mut compute).transpose()?;
        let all = gather(ranks, own.as_ref().map(Message::to_bytes), MOST_BYTES)?;
        let mut own = own;
        for (rank, (work, bytes)) in round.into_iter().zip(all).enumerate() {
            let own = if rank == ranks.rank() { own.take() } else { None };
            let result = own.or_else(|| R::from_bytes(&bytes?));
            take(work, result.ok_or(CollectiveError::OtherWork(rank))?)?;
        }
    }
}

/// The message of each rank, sent in parts if all together have more than `most` bytes.
fn gather(
    ranks: &dyn Collective,
    message: Option<Vec<u8>>,
    most: usize,
) -> Result<Vec<Option<Vec<u8>>>, CollectiveError> {
    let length = message.as_ref().map_or(NO_WORK, |bytes| bytes.len() as u64);
    let mut rest = message.unwrap_or_default();
    let part = (most / ranks.size()).max(1);
    let mut next = || {
        let after = rest.split_off(part.min(rest.len()));
        std::mem::replace(&mut rest, after)
    };
    let first = [&length.to_le_bytes()[..], &next()].concat();
    let mut all = Vec::new();
    for (rank, bytes) in ranks.gather(first)?.into_iter().enumerate() {
        let other = CollectiveError::OtherWork(rank);
        let (length, bytes) = bytes.split_first_chunk().ok_or(other)?;
        all.push((u64::from_le_bytes(*length), bytes.to_vec()));
    }
    let is_part =
        |(length, bytes): &(u64, Vec<u8>)| *length != NO_WORK && (bytes.len() as u64) < *length;
    while all.iter().any(is_part) {
        for ((_, bytes), more) in all.iter_mut().zip(ranks.gather(next())?) {
            bytes.extend(more);
        }
    }
    Ok(all.into_iter().map(|(length, bytes)| (length != NO_WORK).then_some(bytes)).collect())
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

    /// The results of all ranks.
    fn on_ranks<T: Send>(size: usize, run: impl Fn(&Replica) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let run = &run;
            let threads: Vec<_> = Replica::on_host(size)
                .into_iter()
                .map(|replica| scope.spawn(move || run(&replica)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
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
        for count in [0, 1, 3, 8] {
            let expected = squares(&Alone, count).1;
            assert_eq!(expected.len() as u64, count);
            let all = on_ranks(3, |replica| squares(replica, count));
            for (rank, (computed, taken)) in all.into_iter().enumerate() {
                let own: Vec<u64> = (rank as u64..count).step_by(3).collect();
                assert_eq!(computed, own);
                assert_eq!(taken, expected);
            }
        }
    }

    #[test]
    fn a_rank_with_other_works_is_named() {
        let errors = on_ranks(2, |replica| {
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
        let errors = on_ranks(2, |replica| {
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
        assert_eq!(errors, vec![(CollectiveError::Lengths, 4); 2]);
    }

    #[test]
    fn long_messages_are_sent_in_parts() {
        for most in [1, 6, 7, 1000] {
            let all = on_ranks(3, |replica| {
                let own = [Some(vec![1; 20]), None, Some(Vec::new())];
                gather(replica, own[replica.rank()].clone(), most).unwrap()
            });
            assert_eq!(all, vec![vec![Some(vec![1; 20]), None, Some(Vec::new())]; 3]);
        }
    }

    #[test]
    fn a_value_of_rank_0_is_known_to_all_and_rank_0_comes_first() {
        let order = std::sync::Mutex::new(Vec::new());
        let values = on_ranks(3, |replica| {
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
