//! Processes over MPI.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use mpi::datatype::PartitionMut;
use mpi::request::{Request, Scope, scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;

use crate::values::{Values, Wire, add, add_bf16, to_bf16};
use crate::{Collective, CollectiveError, PendingSum};

/// Values that are summed at a time: 4 MiB. While one part travels, others are copied to and from the
/// device.
const PART: usize = 1 << 20;

/// Values of all ranks together up to which each rank gets all values: few messages matter more than few bytes.
const SMALL: usize = 1 << 14;

/// The time for which a transfer is watched without a break. After it, the watching thread leaves its
/// core to the computation.
const WATCHED: Duration = Duration::from_micros(200);
/// The break between two looks at a transfer.
const BREAK: Duration = Duration::from_micros(50);

/// One process of a job that an MPI launcher (`mpirun`, `srun`) started.
///
/// A thread of its own makes all calls of MPI, one after the other, in the order in which they were
/// asked for. So MPI needs no support for threads, and a sum goes on while the process computes.
pub struct Mpi {
    rank: usize,
    size: usize,
    calls: Mutex<Sender<Call>>,
    /// A status above 0 ends all processes.
    abort: Arc<AtomicI32>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is asked for, and where it sends the result.
enum Call {
    Sum(Vec<f32>, Wire, Sender<Result<Vec<f32>, CollectiveError>>),
    Gather(Vec<u8>, Sender<Result<Vec<Vec<u8>>, CollectiveError>>),
}

impl Mpi {
    /// Joins the job. Once per process.
    ///
    /// # Errors
    /// When MPI cannot be started, or was started before.
    pub fn init() -> Result<Self, CollectiveError> {
        let (calls, received) = channel();
        let (place, placed) = channel();
        let abort = Arc::new(AtomicI32::new(0));
        let status = abort.clone();
        let work = move || {
            let Some((universe, _)) = mpi::initialize_with_threading(mpi::Threading::Funneled)
            else {
                let _ = place.send(None);
                return;
            };
            let world = universe.world();
            let _ = place.send(Some((world.rank(), world.size())));
            serve(&world, &received, &status);
        };
        let thread = thread::Builder::new().name("mpi".into()).spawn(work);
        let thread = thread.map_err(|_| CollectiveError::Init("no thread can be started"))?;
        let place = placed.recv().map_err(|_| CollectiveError::Init("it ended"))?;
        let (rank, size) = place.ok_or(CollectiveError::Init("it was started before"))?;
        let count = |number| usize::try_from(number).unwrap_or_default();
        let (rank, size) = (count(rank), count(size));
        Ok(Self { rank, size, calls: Mutex::new(calls), abort, thread: Some(thread) })
    }

    fn call(&self, call: Call) -> Result<(), CollectiveError> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.send(call).map_err(|_| CollectiveError::Ended)
    }
}

impl Drop for Mpi {
    /// Leaves the job, after all other ranks have come here as well.
    fn drop(&mut self) {
        // the thread ends when nobody can call any more
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner) = channel().0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, tensors: Vec<Tensor<1>>, wire: Wire) -> Result<Vec<Tensor<1>>, CollectiveError> {
        let Some(mut own) = Values::of(tensors) else { return Ok(Vec::new()) };
        let values = std::mem::take(&mut own.values);
        let parts: Vec<PendingSum> =
            values.chunks(PART).filter_map(|part| self.begin_sum(part.to_vec(), wire)).collect();
        let mut sums = Vec::with_capacity(values.len());
        for part in parts {
            sums.extend(part.wait()?);
        }
        if sums.len() != values.len() {
            return Err(CollectiveError::Ended);
        }
        Ok(own.tensors(&sums))
    }

    fn begin_sum(&self, values: Vec<f32>, wire: Wire) -> Option<PendingSum> {
        let (sender, receiver) = channel();
        self.call(Call::Sum(values, wire, sender)).ok()?;
        Some(PendingSum(receiver))
    }

    fn begins_sums(&self) -> bool {
        true
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let (sender, receiver) = channel();
        self.call(Call::Gather(bytes, sender))?;
        receiver.recv().map_err(|_| CollectiveError::Ended)?
    }

    fn abort(&self, status: u8) -> ! {
        self.abort.store(i32::from(status.max(1)), Ordering::SeqCst);
        // the thread sees it within a break, or ended before
        thread::sleep(Duration::from_secs(5));
        std::process::exit(i32::from(status.max(1)))
    }
}

/// Answers calls until nobody can call any more.
fn serve(world: &SimpleCommunicator, calls: &Receiver<Call>, abort: &AtomicI32) {
    let check = || match abort.load(Ordering::SeqCst) {
        0 => {}
        status => world.abort(status),
    };
    loop {
        let call = match calls.recv_timeout(Duration::from_millis(20)) {
            Ok(call) => call,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                check();
                continue;
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
        };
        // a caller that does not wait for its result is no error
        match call {
            Call::Sum(values, wire, result) => {
                let _ = result.send(Ok(sum(world, &values, wire, &check)));
            }
            Call::Gather(bytes, result) => {
                let _ = result.send(gather(world, &bytes, &check));
            }
        }
    }
}

/// Waits for `request`, and calls `check` meanwhile.
fn finish<'a, D: ?Sized, S: Scope<'a>>(mut request: Request<'a, D, S>, check: &dyn Fn()) {
    let begun = Instant::now();
    loop {
        request = match request.test() {
            Ok(_) => return,
            Err(request) => request,
        };
        check();
        if begun.elapsed() > WATCHED {
            thread::sleep(BREAK);
        }
    }
}

/// The sum over all ranks, in the order of the ranks and in f32. So the bits depend on the number of ranks only, and
/// not on the MPI library or the network.
fn sum(world: &SimpleCommunicator, values: &[f32], wire: Wire, check: &dyn Fn()) -> Vec<f32> {
    let size = usize::try_from(world.size()).unwrap_or(1);
    if values.len() * size <= SMALL {
        let mut all = vec![0.0; values.len() * size];
        scope(|scope| {
            finish(world.immediate_all_gather_into(scope, values, &mut all[..]), check);
        });
        return sum_of(&all, values.len());
    }
    // each rank sums a part of the values, and sends the sums to all
    let part = values.len().div_ceil(size);
    match wire {
        Wire::F32 => {
            let mut sent = values.to_vec();
            sent.resize(part * size, 0.0);
            let received = exchanged(world, &sent, check);
            let mut sums = gathered(world, &sum_of(&received, part), sent, check);
            sums.truncate(values.len());
            sums
        }
        Wire::Bf16 => {
            let mut sent = to_bf16(values);
            sent.resize(part * size, 0);
            let received = exchanged(world, &sent, check);
            let mut own = vec![0.0; part];
            received.chunks_exact(part).for_each(|values| add_bf16(&mut own, values));
            let rounded = gathered(world, &to_bf16(&own), sent, check);
            let mut sums = vec![0.0; values.len()];
            add_bf16(&mut sums, &rounded[..values.len()]);
            sums
        }
    }
}

/// The sum of the rows of `length` values in `all`.
fn sum_of(all: &[f32], length: usize) -> Vec<f32> {
    let mut sum = vec![0.0; length];
    all.chunks_exact(length.max(1)).for_each(|row| add(&mut sum, row));
    sum
}

/// The parts for this rank of the values `sent` by each rank, in their order.
fn exchanged<T>(world: &SimpleCommunicator, sent: &[T], check: &dyn Fn()) -> Vec<T>
where
    T: Equivalence + Clone + Default,
{
    let mut received = vec![T::default(); sent.len()];
    scope(|scope| {
        finish(world.immediate_all_to_all_into(scope, sent, &mut received[..]), check);
    });
    received
}

/// The parts `own` of all ranks, in their order, in the memory `all`.
fn gathered<T>(world: &SimpleCommunicator, own: &[T], mut all: Vec<T>, check: &dyn Fn()) -> Vec<T>
where
    T: Equivalence,
{
    scope(|scope| {
        finish(world.immediate_all_gather_into(scope, own, &mut all[..]), check);
    });
    all
}

/// The bytes of all ranks.
fn gather(
    world: &SimpleCommunicator,
    bytes: &[u8],
    check: &dyn Fn(),
) -> Result<Vec<Vec<u8>>, CollectiveError> {
    let size = usize::try_from(world.size()).unwrap_or(1);
    let mut lengths = vec![0_u64; size];
    let own = [bytes.len() as u64];
    scope(|scope| {
        finish(world.immediate_all_gather_into(scope, &own[..], &mut lengths[..]), check);
    });
    let total: u64 = lengths.iter().sum();
    if total == 0 {
        // Open MPI refuses a message without any bytes
        return Ok(vec![Vec::new(); size]);
    }
    let too_large = || CollectiveError::TooLarge(usize::try_from(total).unwrap_or(usize::MAX));
    i32::try_from(total).map_err(|_| too_large())?;
    let counts = lengths.iter().map(|&length| i32::try_from(length));
    let counts = counts.collect::<Result<Vec<i32>, _>>().map_err(|_| too_large())?;
    let starts: Vec<i32> = counts
        .iter()
        .scan(0, |next, count| {
            let start = *next;
            *next += count;
            Some(start)
        })
        .collect();
    let mut all = vec![0_u8; usize::try_from(total).unwrap_or_default()];
    {
        // the address of an empty vector is 1, which Open MPI knows as `MPI_IN_PLACE`
        let bytes = if bytes.is_empty() { &[0_u8][..0] } else { bytes };
        let mut all = PartitionMut::new(&mut all[..], &counts[..], &starts[..]);
        scope(|scope| {
            let request = world.immediate_all_gather_varcount_into(scope, bytes, &mut all);
            finish(request, check);
        });
    }
    let mut rest = &all[..];
    let part = |&length: &u64| {
        let (part, after) = rest.split_at(usize::try_from(length).unwrap_or_default());
        rest = after;
        part.to_vec()
    };
    Ok(lengths.iter().map(part).collect())
}
