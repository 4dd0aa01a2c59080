//! Skipped steps, and errors of several devices.

use super::*;
use crate::config::TrainConfig;
use crate::replicas::Replicas;
use crate::trainer::Trainer;
use block_transformer_checkpoint::{Checkpoint, RunFolder};
use block_transformer_collectives::{Collective, CollectiveError, Replica, Wire};
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

/// Ranks whose sums fail as on a device without memory, or those of the others.
struct Full(Option<Replica>);
impl Collective for Full {
    fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, Replica::rank)
    }

    fn size(&self) -> usize {
        2
    }

    fn sum(&self, tensors: Vec<Tensor<1>>, wire: Wire) -> Result<Vec<Tensor<1>>, CollectiveError> {
        match &self.0 {
            Some(replica) => replica.sum(tensors, wire),
            None => panic!(
                "called `Result::unwrap()` on an `Err` value: out of device memory allocating 64 bytes"
            ),
        }
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
        Ok(vec![bytes; 2])
    }

    fn abort(&self, _: u8) -> ! {
        panic!("nothing aborts")
    }
}

#[test]
fn a_device_without_memory_is_an_error_that_names_a_smaller_micro_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run(dir.path());
    run.config.batch = 8;
    let trainer = || Trainer::new(&run.model, &run.config, &Device::flex());
    run.replicas = Replicas::with_places(
        trainer(),
        vec![trainer()],
        vec![Arc::new(Full(None)), Arc::new(Full(None))],
    );
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
    // only the second replica has no memory
    let (first, second) = {
        let mut replicas = Replica::on_host(2);
        (replicas.swap_remove(0), replicas.remove(0))
    };
    struct Leaves(Replica);
    impl Collective for Leaves {
        fn rank(&self) -> usize {
            1
        }

        fn size(&self) -> usize {
            2
        }

        fn sum(&self, _: Vec<Tensor<1>>, _: Wire) -> Result<Vec<Tensor<1>>, CollectiveError> {
            panic!("CUDA_ERROR_OUT_OF_MEMORY")
        }

        fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
            self.0.gather(bytes)
        }

        fn abort(&self, status: u8) -> ! {
            self.0.abort(status)
        }
    }
    let places: Vec<Arc<dyn Collective>> =
        vec![Arc::new(Full(Some(first))), Arc::new(Leaves(second))];
    run.replicas = Replicas::with_places(trainer(), vec![trainer()], places);
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
