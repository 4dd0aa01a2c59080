//! Runs: an interrupted run ends with the same bits as an uninterrupted one, and burn-train's metrics,
//! loggers and early stopping work in a run.

mod burn_train;
mod evaluation;
mod windows;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use block_transformer_checkpoint::{Checkpoint, RunFolder};
use block_transformer_cost::OptimizerKind;
use block_transformer_datasets::{DocumentSource, PreparedCorpus, TokenizerChoice, prepare};
use block_transformer_text::Tokenizer;
use block_transformer_training::{
    Outcome, ReadPolicy, RunEvent, TrainConfig, TrainError, TrainingRun,
};
use block_transformer_zoo::{LanguageModel, Precision};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;

const STEPS: u64 = 6;

fn corpus(dir: &Path) -> PreparedCorpus {
    let path = dir.join("text.txt");
    let text: String = (0..600).map(|i| format!("line {i} of {}\n", i * 37 % 101)).collect();
    std::fs::write(&path, text).unwrap();
    let source = DocumentSource::open(&path).unwrap();
    prepare("lines", &source, &Tokenizer::Bytes, &dir.join("corpus"), &mut |_, _| {}).unwrap()
}

fn config(out: PathBuf) -> TrainConfig {
    TrainConfig {
        out,
        steps: STEPS,
        warmup: 2,
        batch: 2,
        accumulate: 2,
        context: 32,
        validate_every: 2,
        validation_windows: 3,
        checkpoint_every: 3,
        tokenizer: TokenizerChoice::Bytes,
        ..TrainConfig::from_preset("debug-block").unwrap()
    }
}

/// Trains to the end.
fn whole(
    config: &TrainConfig,
    corpus: &PreparedCorpus,
    resume: bool,
) -> Result<Outcome, TrainError> {
    TrainingRun::open(config, corpus, resume, &Device::flex())?.launch(|training| training)
}

/// Trains and interrupts after step `last`.
fn until(last: u64, config: &TrainConfig, corpus: &PreparedCorpus) -> Outcome {
    let interrupter = Interrupter::new();
    let stop = interrupter.clone();
    let run = TrainingRun::open(config, corpus, false, &Device::flex()).unwrap();
    let run = run.observe(move |event| {
        if let RunEvent::Step(progress) = event
            && progress.metrics.step == last
        {
            stop.stop(None);
        }
    });
    run.launch(|training| training.with_interrupter(interrupter)).unwrap()
}

/// Bits of every weight, by parameter.
fn bits(model: &LanguageModel) -> BTreeMap<u64, Vec<u32>> {
    struct Bits(BTreeMap<u64, Vec<u32>>);
    impl ModuleVisitor for Bits {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = param.val().into_data().iter::<f32>().map(f32::to_bits).collect();
            self.0.insert(param.id.val(), values);
        }
    }
    let mut bits = Bits(BTreeMap::new());
    model.visit(&mut bits);
    bits.0
}

/// Metrics without times.
fn metrics(out: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let row = |line: &str| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        let measured =
            ["seconds", "device_memory"].map(|key| row.as_object_mut().unwrap().remove(key));
        assert!(measured.iter().all(Option::is_some));
        row
    };
    text.lines().map(row).collect()
}

#[test]
fn an_interrupted_run_ends_bit_for_bit_where_an_uninterrupted_one_does() {
    for (precision, recompute, optimizer) in [
        (Precision::F32, false, OptimizerKind::Adamw),
        (Precision::F32, false, OptimizerKind::Muon),
        (Precision::Bf16, false, OptimizerKind::Adamw),
        (Precision::Bf16, true, OptimizerKind::Muon),
    ] {
        is_exact_after_an_interrupt(precision, recompute, optimizer);
    }
}

/// With `recompute`, the interrupted and resumed run recomputes activations, and the other does not.
fn is_exact_after_an_interrupt(precision: Precision, recompute: bool, optimizer: OptimizerKind) {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let config = |out| TrainConfig { precision, optimizer, ..config(out) };
    let straight = config(dir.path().join("straight"));
    let expected = whole(&straight, &corpus, false).unwrap();
    assert_eq!((expected.step, expected.interrupted), (STEPS, false));

    let broken = TrainConfig { recompute, log_every: 1, ..config(dir.path().join("broken")) };
    let half = until(3, &broken, &corpus);
    assert_eq!((half.step, half.interrupted), (3, true));
    // the state that a later kill leaves: one more row, an incomplete row and an incomplete
    // checkpoint
    let folder = RunFolder::new(&broken.out);
    let later = folder.file("metrics.jsonl");
    let rows = std::fs::read_to_string(&later).unwrap();
    let next = rows.lines().last().unwrap().replace("\"step\":3", "\"step\":4");
    std::fs::write(&later, format!("{rows}{next}\n{{\"step\":5,\"lo")).unwrap();
    std::fs::create_dir(broken.out.join("checkpoints/.step-000004.partial-1")).unwrap();

    let resumed = whole(&broken, &corpus, true).unwrap();
    assert_eq!(bits(&resumed.model), bits(&expected.model));
    assert_eq!(metrics(&broken.out), metrics(&straight.out));
    assert!(!broken.out.join("checkpoints/.step-000004.partial-1").exists());
    let loaded = Checkpoint::open(&broken.out).unwrap();
    assert_eq!(loaded.state.step, STEPS);
    assert_eq!(bits(&loaded.load_model(&Device::flex()).unwrap()), bits(&expected.model));
    assert!(broken.out.join("metrics.csv").exists());
}

#[test]
fn training_in_bf16_ends_near_training_in_f32() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let losses = [Precision::F32, Precision::Bf16].map(|precision| {
        let out = dir.path().join(precision.to_string());
        let config = TrainConfig {
            precision,
            steps: 200,
            accumulate: 1,
            batch: 4,
            validate_every: 200,
            ..config(out)
        };
        whole(&config, &corpus, false).unwrap().validation_loss.unwrap()
    });
    let difference = (losses[0] - losses[1]).abs();
    // the losses of a byte start at ln 257 = 5.5
    assert!(losses[0] < 2.0 && difference > 0.0 && difference < 0.02, "{losses:?}");
}

#[test]
fn damaged_checkpoints_are_passed_over_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let config = TrainConfig { keep: 9, ..config(dir.path().join("run")) };
    let expected = whole(&config, &corpus, false).unwrap();
    let folder = RunFolder::new(&config.out);
    let damage = |step: u64| {
        let path = folder.checkpoint(step).join("model.bpk");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    };
    damage(STEPS);
    let before = Checkpoint::open(&config.out).unwrap();
    assert!(before.state.step < STEPS);
    let error = Checkpoint::open(&folder.checkpoint(STEPS)).unwrap_err().to_string();
    assert!(error.contains("model.bpk") && error.contains("SHA-256"), "{error}");
    // the steps after the checkpoint before it are repeated
    let again = whole(&TrainConfig { keep: 1, ..config.clone() }, &corpus, true).unwrap();
    assert_eq!(bits(&again.model), bits(&expected.model));
    Checkpoint::open(&folder.checkpoint(STEPS)).unwrap();
    folder
        .checkpoints()
        .iter()
        .for_each(|path| std::fs::remove_file(path.join("optim.bpk")).unwrap());
    // the optimizer state is needed to resume, not to use the model
    let model = Checkpoint::open_model(&config.out).unwrap().load_model(&Device::flex()).unwrap();
    assert_eq!(bits(&model), bits(&expected.model));
    let error = whole(&config, &corpus, true).unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
}

#[test]
fn folders_and_configurations_are_guarded() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let config = config(dir.path().join("run"));
    let refused = |config: &TrainConfig, resume: bool, named: &str| {
        let error = whole(config, &corpus, resume).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let text = format!("{error}: {}", cause.unwrap_or_default());
        assert!(text.contains(named), "{text}");
    };
    refused(&config, true, "no run to resume");
    // rotary embeddings need no table, so that the context may exceed max_position_embeddings
    refused(&TrainConfig { context: 1 << 20, ..config.clone() }, false, "window");
    assert!(!config.out.exists());
    whole(&config, &corpus, false).unwrap();
    refused(&config, false, "holds a run already");
    refused(&TrainConfig { lr: 1.0, ..config.clone() }, true, "lr");
    std::fs::remove_file(config.out.join("train.toml")).unwrap();
    refused(&config, true, "train.toml: the file is missing");
}

/// Metrics without times, up to the step `last`.
fn metrics_up_to(last: u64, out: &Path) -> Vec<serde_json::Value> {
    let mut rows = metrics(out);
    rows.retain(|row| row["step"].as_u64().unwrap() <= last);
    rows
}

#[test]
fn a_loss_that_is_no_number_skips_steps_and_then_stops_the_run_and_names_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    for (name, reading, checkpoint_every) in [
        ("each", ReadPolicy::EveryStep, 1),
        ("some", ReadPolicy::EverySteps(4), 1),
        ("late", ReadPolicy::EverySteps(4), 50),
    ] {
        let config = TrainConfig {
            lr: 1e30,
            warmup: 0,
            steps: 50,
            log_every: 50,
            validate_every: 50,
            checkpoint_every,
            ..config(dir.path().join(name))
        };
        let run = TrainingRun::open(&config, &corpus, false, &Device::flex()).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let skipped = seen.clone();
        let run = run.reading(reading).observe(move |event| {
            if let RunEvent::Skipped { step, .. } = event {
                skipped.lock().unwrap().push(*step);
            }
        });
        let error = run.launch(|training| training).unwrap_err();
        let TrainError::NotFinite { step, saved, in_a_row, .. } = error else { panic!("{error}") };
        assert_eq!(in_a_row, 10);
        assert_eq!(*seen.lock().unwrap(), (step..step + 9).collect::<Vec<_>>());
        let rows = metrics(&config.out);
        assert_eq!(rows.len() as u64, step + 8);
        assert!(rows.iter().all(|row| row["skipped"] == (row["step"].as_u64().unwrap() >= step)));
        if checkpoint_every == 1 {
            // the checkpoint before the first skipped step is kept
            assert_eq!(saved + 1, step);
            assert_eq!(Checkpoint::open(&config.out).unwrap().state.step, saved);
        }
    }
}

#[test]
fn reading_several_steps_at_once_changes_no_result() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let steps = 23;
    let config = |name: &str| TrainConfig {
        steps,
        // three micro-batches: not a power of two, so that a mean is rounded
        accumulate: 3,
        clip: 0.5,
        log_every: 10,
        validate_every: 8,
        checkpoint_every: 9,
        ..config(dir.path().join(name))
    };
    let run = |name: &str, resume, reading, interrupter: Interrupter| {
        let run = TrainingRun::open(&config(name), &corpus, resume, &Device::flex()).unwrap();
        run.reading(reading).launch(|training| training.with_interrupter(interrupter)).unwrap()
    };
    let expected = run("each", false, ReadPolicy::EveryStep, Interrupter::new());
    let all = run("all", false, ReadPolicy::EverySteps(1000), Interrupter::new());
    assert_eq!(bits(&all.model), bits(&expected.model));
    assert_eq!(metrics(&config("all").out), metrics(&config("each").out));

    // wherever an interrupt falls, the rows end at the checkpoint and the rest is the same
    let interrupter = Interrupter::new();
    let stop = interrupter.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(60));
        stop.stop(None);
    });
    let half = run("some", false, ReadPolicy::EverySteps(5), interrupter);
    thread.join().unwrap();
    assert_eq!(half.metrics.last().map_or(0, |row| row.step), half.step);
    assert_eq!(Checkpoint::open(&config("some").out).unwrap().state.step, half.step);
    assert_eq!(metrics(&config("some").out), metrics_up_to(half.step, &config("each").out));
    let rest = run("some", true, ReadPolicy::EverySteps(7), Interrupter::new());
    assert_eq!(bits(&rest.model), bits(&expected.model));
    assert_eq!(metrics(&config("some").out), metrics(&config("each").out));
}

#[test]
fn micro_batches_average_to_the_large_batch() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let losses = |name: &str, batch, accumulate| {
        let config = TrainConfig { batch, accumulate, ..config(dir.path().join(name)) };
        whole(&config, &corpus, false).unwrap();
        let rows = metrics(&config.out);
        rows.iter().map(|row| row["loss"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    // windows have different amounts of padding, so the means are only approximately equal
    for (a, b) in losses("one", 4, 1).iter().zip(losses("two", 2, 2)) {
        assert!((a - b).abs() < 2e-2 * a, "{a} {b}");
    }
}

/// A run without accumulation and warm-up, which writes no checkpoint before its end.
fn short(dir: &Path, lr: f64, steps: u64) -> TrainingRun {
    let config = config(dir.join("run"));
    let config =
        TrainConfig { lr, steps, warmup: 0, accumulate: 1, checkpoint_every: 100, ..config };
    TrainingRun::open(&config, &corpus(dir), false, &Device::flex()).unwrap()
}

#[test]
fn a_full_disk_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let run = short(dir.path(), 3e-3, STEPS);
    std::fs::remove_dir_all(dir.path().join("run")).unwrap();
    std::fs::write(dir.path().join("run"), "in the way").unwrap();
    let error = run.launch(|training| training).unwrap_err();
    assert!(matches!(error, TrainError::Checkpoint(_) | TrainError::File(_)), "{error}");
}
