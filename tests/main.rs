//! The tests that need the command's binary, or several crates together.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod backends;
mod bench;
mod cli;
#[cfg(all(unix, feature = "tui", feature = "flex"))]
mod dashboard;
mod data;
mod errors;
mod eval;
mod eval_pg19;
mod eval_resume;
mod eval_tasks;
mod eval_training;
mod given_weights;
mod gpu_check;
mod import;
mod kill;
mod old_run;
mod own_model;
mod parity;
mod plan_ranks;
mod presets;
mod readme;
mod replicas;
mod rope_scaling;
mod serve;
mod study;
mod support;
