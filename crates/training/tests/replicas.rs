//! Data-parallel runs: several replicas give the losses of one device to rounding.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use block_transformer_collectives::Alone;
use block_transformer_cost::OptimizerKind;
use block_transformer_datasets::{DocumentSource, PreparedCorpus, TokenizerChoice, prepare};
use block_transformer_device::DeviceName;
use block_transformer_text::Tokenizer;
use block_transformer_training::{
    MetricsRow, Outcome, ReadPolicy, RunEvent, TrainConfig, TrainError, TrainingRun,
};
use burn::tensor::Device;
use burn::train::Interrupter;

const STEPS: u64 = 20;
/// Sums of f32 in another order differ by about 1e-7 in each step, and the steps carry it on.
const TOLERANCE: f64 = 1e-5;

fn corpus(dir: &Path) -> PreparedCorpus {
    let path = dir.join("text.txt");
    let text: String = (0..600).map(|i| format!("line {i} of {}\n", i * 37 % 101)).collect();
    std::fs::write(&path, text).unwrap();
    let source = DocumentSource::open(&path).unwrap();
    prepare("lines", &source, &Tokenizer::Bytes, &dir.join("corpus"), &mut |_, _| {}).unwrap()
}

fn config(out: PathBuf, batch: usize, accumulate: usize) -> TrainConfig {
    TrainConfig {
        out,
        steps: STEPS,
        warmup: 2,
        batch,
        accumulate,
        context: 32,
        validate_every: 10,
        validation_windows: 3,
        checkpoint_every: 10,
        tokenizer: TokenizerChoice::Bytes,
        ..TrainConfig::from_preset("debug-block").unwrap()
    }
}

/// Trains with `replicas` replicas to the end, or until the interrupt after step `last`.
fn train(
    config: &TrainConfig,
    corpus: &PreparedCorpus,
    (replicas, reading): (usize, ReadPolicy),
    (resume, last): (bool, u64),
) -> Result<Outcome, TrainError> {
    let others = vec![Device::flex(); replicas - 1];
    let run =
        TrainingRun::open_on(config, corpus, resume, &Device::flex(), &others, Arc::new(Alone))?;
    let interrupter = Interrupter::new();
    let stop = interrupter.clone();
    let run = run.reading(reading).observe(move |event| {
        if matches!(event, RunEvent::Validation { step, .. } if *step == last) {
            stop.stop(None);
        }
    });
    run.launch(|training| training.with_interrupter(interrupter))
}

fn assert_close(rows: &[MetricsRow], expected: &[MetricsRow]) {
    assert_eq!(rows.len(), expected.len());
    for (a, b) in rows.iter().zip(expected) {
        // the same windows
        assert_eq!((a.step, a.tokens), (b.step, b.tokens));
        for (a, b) in [(a.loss, b.loss), (a.grad_norm, b.grad_norm)] {
            assert!((a - b).abs() < TOLERANCE * b, "{a} {b}");
        }
    }
}

#[test]
fn replicas_give_the_losses_of_one_device_and_so_does_a_resume_with_another_number() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let each = ReadPolicy::EveryStep;
    // one micro-batch that is divided, two that are dealt, and three that are divided unevenly
    for (batch, accumulate) in [(4, 1), (2, 2), (3, 3)] {
        let config =
            |name: &str| config(dir.path().join(format!("{name}-{batch}")), batch, accumulate);
        let to_end = (false, STEPS + 1);
        let one = train(&config("one"), &corpus, (1, each), to_end).unwrap();
        let two = train(&config("two"), &corpus, (2, each), to_end).unwrap();
        assert_close(&two.metrics, &one.metrics);
        let losses = |run: &Outcome| run.metrics.iter().map(|row| row.loss).collect::<Vec<_>>();
        // two whole micro-batches are added in the same order; parts of one are not
        assert_eq!(losses(&two) == losses(&one), accumulate == 2);
        // the values stay on the devices for some steps
        let late = train(&config("late"), &corpus, (2, ReadPolicy::EverySteps(7)), to_end).unwrap();
        assert_eq!(losses(&late), losses(&two));

        let recomputed = TrainConfig { recompute: true, ..config("recomputed") };
        let recomputed = train(&recomputed, &corpus, (2, each), to_end).unwrap();
        assert_eq!(losses(&recomputed), losses(&two));

        let half = train(&config("half"), &corpus, (2, each), (false, 10)).unwrap();
        assert_eq!((half.step, half.interrupted), (10, true));
        let whole = train(&config("half"), &corpus, (1, each), (true, STEPS + 1)).unwrap();
        assert_close(&whole.metrics, &one.metrics);
    }
}

/// Every replica orthogonalizes the same sum of gradients.
#[test]
fn replicas_with_muon_give_the_losses_of_one_device() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let losses = |replicas: usize| {
        let config = config(dir.path().join(replicas.to_string()), 2, 2);
        let config = TrainConfig { optimizer: OptimizerKind::Muon, ..config };
        let run = train(&config, &corpus, (replicas, ReadPolicy::EveryStep), (false, STEPS + 1));
        run.unwrap().metrics.iter().map(|row| row.loss).collect::<Vec<_>>()
    };
    // two whole micro-batches are added in the same order
    assert_eq!(losses(2), losses(1));
}

#[test]
fn replicas_need_devices_of_one_kind() {
    let gpus = vec![DeviceName::Cuda(0), DeviceName::Cuda(1)];
    let config = TrainConfig { devices: gpus, ..config("run".into(), 2, 2) };
    config.check().unwrap();
    let devices = vec![DeviceName::Cuda(0), DeviceName::Flex];
    let error = TrainConfig { devices, ..config }.check().unwrap_err().to_string();
    assert!(error.contains("devices = cuda, flex") && error.contains("one kind"), "{error}");
}

#[test]
fn a_step_needs_a_sequence_for_every_replica() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let each = ReadPolicy::EveryStep;
    let config = config(dir.path().join("run"), 2, 2);
    let error = train(&config, &corpus, (3, each), (false, 1)).unwrap_err().to_string();
    assert!(error.contains("devices = 3") && error.contains("at most 2"), "{error}");
    assert!(!config.out.exists());
    // four replicas do not fit two sequences, but four micro-batches
    let config = TrainConfig { accumulate: 4, ..config };
    train(&config, &corpus, (4, each), (false, 10)).unwrap();
}
