//! The processes of a job that an MPI launcher started: `mpirun -n 8 block-transformer train ...`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use block_transformer_collectives::{Alone, Collective, CollectiveError};
use block_transformer_datasets::DatasetError;
use block_transformer_evaluation::EvalError;
use block_transformer_training::TrainError;

use crate::output;

/// This process among those of the job, from [`join`] to [`leave`].
static JOB: Mutex<Option<Arc<dyn Collective>>> = Mutex::new(None);

/// Variables with which launchers tell a process its number: Open MPI, PMIx (Open MPI 5, Slurm), PMI
/// (MPICH, Intel MPI, Slurm), MVAPICH.
const RANKS: [&str; 4] = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK"];

/// The number that a launcher gave this process; `None` if no launcher started it.
pub(crate) fn launched_rank() -> Option<usize> {
    RANKS.iter().find_map(|name| std::env::var(name).ok()?.parse().ok())
}

/// Joins the job that a launcher started. Only rank 0 prints from now on. Without a launcher, this process is
/// alone.
///
/// # Errors
/// When MPI cannot be started, or this build has none.
pub(crate) fn join() -> Result<Arc<dyn Collective>> {
    let mut job = JOB.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(job) = &*job {
        return Ok(job.clone());
    }
    if launched_rank().is_none() {
        return Ok(Arc::new(Alone));
    }
    let joined: Arc<dyn Collective> = start()?;
    if joined.rank() > 0 {
        output::silence();
    }
    *job = Some(joined.clone());
    Ok(joined)
}

#[cfg(feature = "mpi")]
fn start() -> Result<Arc<dyn Collective>> {
    Ok(Arc::new(block_transformer_collectives::Mpi::init()?))
}

/// A launcher with one process is no reason to stop; several would all write the same files.
#[cfg(not(feature = "mpi"))]
fn start() -> Result<Arc<dyn Collective>> {
    const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"];
    let sizes = SIZES.iter().find_map(|name| std::env::var(name).ok()?.parse::<usize>().ok());
    anyhow::ensure!(
        sizes == Some(1),
        "an MPI launcher started this process, but this build has no MPI; build with `--features mpi`, or start \
         it without the launcher"
    );
    Ok(Arc::new(Alone))
}

/// Leaves the job, after all ranks have come here.
pub(crate) fn leave() {
    JOB.lock().unwrap_or_else(PoisonError::into_inner).take();
}

fn joined() -> Option<Arc<dyn Collective>> {
    JOB.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|job| job.size() > 1)
}

/// Reports `error` to the user, and ends the other ranks if they do not know of it.
pub(crate) fn fail(error: &anyhow::Error, text: &str) {
    let Some(job) = joined() else {
        output::error(text);
        return;
    };
    if error.chain().any(is_of_all_ranks) {
        if job.rank() == 0 {
            output::error(text);
        }
        // a launcher ends all processes when the first one fails, so rank 0 prints before
        let _ = job.barrier();
        return;
    }
    abort(&*job, text)
}

/// Whether all ranks get the error `cause`.
fn is_of_all_ranks(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref().is_some_and(TrainError::is_of_all_ranks)
        || cause.downcast_ref().is_some_and(CollectiveError::is_of_all_ranks)
        || cause.downcast_ref().is_some_and(DatasetError::is_of_all_ranks)
        || cause.downcast_ref().is_some_and(EvalError::is_of_all_ranks)
}

/// Ends all ranks with an error of this one.
fn abort(job: &dyn Collective, text: &str) -> ! {
    // errors of all ranks, such as those of a flag, are reported by the first
    std::thread::sleep(Duration::from_millis(300) * job.rank().min(2) as u32);
    output::error(&format!("rank {}: {text}", job.rank()));
    job.abort(1)
}

/// Ends the other ranks after a panic of this one, which has been reported.
pub(crate) fn fail_of_panic() {
    if let Some(job) = joined() {
        abort(&*job, "the program stopped; its message is above");
    }
}
