//! Skipped steps, and errors of several devices.

use super::*;
use crate::config::TrainConfig;
use crate::reduce::{HostReduce, Reduce, ReduceError};
use crate::replicas::Replicas;
use crate::trainer::Trainer;
use block_transformer_checkpoint::{Checkpoint, RunFolder};
use block_transformer_datasets::{DocumentSource, TokenizerChoice, prepare};
use block_transformer_text::Tokenizer;
use burn::tensor::{Device, Tensor};
use std::path::Path;
use std::sync::Arc;

fn run(dir: &Path) -> TrainingRun {
    let path = dir.join("text.txt");
    std::fs::write(&path, "a line of a text\n".repeat(200)).unwrap();
    let source = DocumentSource::open(&path).unwrap();
    let corpus = dir.join("corpus");
    let corpus = prepare("lines", &source, &Tokenizer::Bytes, &corpus, &mut |_, _| {}).unwrap();
    let config = TrainConfig {
        out: dir.join("run"),
        context: 32,
        batch: 1,
        tokenizer: TokenizerChoice::Bytes,
        ..TrainConfig::from_preset("debug-block").unwrap()
    };
    TrainingRun::open(&config, &corpus, false, &Device::flex()).unwrap()
}

#[test]
fn a_run_ends_at_a_first_step_or_ten_steps_in_a_row_that_are_not_finite() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run(dir.path());
    let bad = StepResult { loss: 2.0, grad_norm: f64::INFINITY };
    let error = run.check_skipped(1, bad).unwrap_err();
    let TrainError::NotFinite { step: 1, in_a_row: 1, .. } = error else { panic!("{error}") };
    let text = error.to_string();
    assert!(text.starts_with("step 1: the gradient norm is not finite; there"), "{text}");
    let lr = 1e-3;
    for step in 1..=10 {
        let skipped = step > 1;
        if skipped {
            run.check_skipped(step, bad).unwrap();
        }
        let StepResult { loss, grad_norm } = bad;
        let row = MetricsRow { step, loss, lr, grad_norm, skipped, ..MetricsRow::default() };
        run.metrics.push(row).unwrap();
    }
    let text = run.check_skipped(11, bad).unwrap_err().to_string();
    assert!(text.contains("step 2: ") && text.contains("the 9 steps after it"), "{text}");
}

/// Sums that fail as on a device without memory.
struct Full;
impl Reduce for Full {
    fn all_reduce(&self, _: usize, _: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ReduceError> {
        panic!(
            "called `Result::unwrap()` on an `Err` value: out of device memory allocating 64 bytes"
        )
    }

    fn leave(&self, _: usize) {}
}

#[test]
fn a_device_without_memory_is_an_error_that_names_a_smaller_micro_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run(dir.path());
    run.config.batch = 8;
    let trainer = || Trainer::new(&run.model, &run.config, &Device::flex());
    run.replicas = Replicas::with_reduce(trainer(), vec![trainer()], Arc::new(Full));
    let error = run.launch(|training| training).unwrap_err();
    let text = error.to_string();
    let TrainError::OutOfMemory { step: 1, batch: 8, smaller: Some(smaller), .. } = error else {
        panic!("{error}")
    };
    assert!(
        (1..8).contains(&smaller) && text.contains(&format!("of {smaller} sequence")),
        "{text}"
    );
}

#[test]
fn a_replica_without_memory_ends_the_run_with_the_same_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run(dir.path());
    run.config.batch = 2;
    let trainer = || Trainer::new(&run.model, &run.config, &Device::flex());
    /// Only the second replica has no memory.
    struct SecondFull(HostReduce);
    impl Reduce for SecondFull {
        fn all_reduce(
            &self,
            rank: usize,
            tensors: Vec<Tensor<1>>,
        ) -> Result<Vec<Tensor<1>>, ReduceError> {
            assert!(rank == 0, "CUDA_ERROR_OUT_OF_MEMORY");
            self.0.all_reduce(rank, tensors)
        }

        fn leave(&self, rank: usize) {
            self.0.leave(rank);
        }
    }
    let reduce = Arc::new(SecondFull(HostReduce::new(2)));
    run.replicas = Replicas::with_reduce(trainer(), vec![trainer()], reduce);
    let error = run.launch(|training| training).unwrap_err();
    assert!(matches!(error, TrainError::OutOfMemory { step: 1, .. }), "{error}");
}

#[test]
fn a_checkpoint_is_written_on_another_thread_and_its_error_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run(dir.path());
    run.state.step = 5;
    run.checkpoint(true).unwrap();
    assert_eq!(run.writer.saved(), 0);
    run.writer.wait().unwrap();
    assert_eq!(run.writer.saved(), 5);
    assert_eq!(Checkpoint::open(&dir.path().join("run")).unwrap().state.step, 5);

    let checkpoints = RunFolder::new(&dir.path().join("run")).file("checkpoints");
    std::fs::remove_dir_all(&checkpoints).unwrap();
    std::fs::write(&checkpoints, "in the way").unwrap();
    run.state.step = 6;
    run.checkpoint(false).unwrap();
    // the next checkpoint waits for this one
    let error = run.checkpoint(false).unwrap_err();
    assert!(matches!(error, TrainError::Checkpoint(_)), "{error}");
    assert_eq!(run.writer.saved(), 5);
}
