//! Runs of several processes under `mpirun`. They need a build with the feature `mpi` and an MPI launcher:
//! `cargo test --workspace --features block-transformer-cli/mpi --test ranks`.

mod agreement;
mod failures;
mod job;
mod link;
mod network;
mod sharing;
#[path = "../support.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;
mod training;
