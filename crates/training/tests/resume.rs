//! An interrupted run ends with the same bits as an uninterrupted one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use block_transformer_checkpoint::{Checkpoint, RunFolder};
use block_transformer_datasets::{
    DocumentSource, PrepareOptions, PreparedCorpus, TokenizerChoice, prepare,
};
use block_transformer_text::Tokenizer;
use block_transformer_training::{Outcome, RunEvent, TrainConfig, TrainError, TrainingRun};
use block_transformer_zoo::LanguageModel;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;

const STEPS: u64 = 6;

fn corpus(dir: &Path) -> PreparedCorpus {
    let path = dir.join("text.txt");
    let text: String = (0..600).map(|i| format!("line {i} of {}\n", i * 37 % 101)).collect();
    std::fs::write(&path, text).unwrap();
    let source = DocumentSource::open(&path).unwrap();
    let options = PrepareOptions::default();
    prepare("lines", &source, &Tokenizer::Bytes, &dir.join("corpus"), options, &mut |_, _| {})
        .unwrap()
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
            && progress.step == last
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
        row.as_object_mut().unwrap().remove("seconds");
        row
    };
    text.lines().map(row).collect()
}

#[test]
fn an_interrupted_run_ends_bit_for_bit_where_an_uninterrupted_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let straight = config(dir.path().join("straight"));
    let expected = whole(&straight, &corpus, false).unwrap();
    assert_eq!((expected.step, expected.interrupted), (STEPS, false));

    let broken = TrainConfig { log_every: 1, ..config(dir.path().join("broken")) };
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
    refused(&TrainConfig { context: 1 << 20, ..config.clone() }, false, "window");
    assert!(!config.out.exists());
    whole(&config, &corpus, false).unwrap();
    refused(&config, false, "holds a run already");
    refused(&TrainConfig { lr: 1.0, ..config.clone() }, true, "lr");
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_names_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let config = TrainConfig {
        lr: 1e30,
        warmup: 0,
        steps: 50,
        checkpoint_every: 1,
        ..config(dir.path().join("run"))
    };
    let error = whole(&config, &corpus, false).unwrap_err();
    let TrainError::NotFinite { step, saved, .. } = error else { panic!("{error}") };
    assert_eq!(saved + 1, step);
    Checkpoint::open(&config.out).unwrap();
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
