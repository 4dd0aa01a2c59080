//! Kinds of windows in runs.

use std::path::Path;

use block_transformer_datasets::{DocumentSource, PreparedCorpus, Split, WindowKind, prepare};
use block_transformer_text::Tokenizer;
use block_transformer_training::TrainConfig;

use crate::{bits, config, metrics, until, whole};

/// A corpus of 60 short documents: 2 epochs are less than a run.
fn documents(dir: &Path) -> PreparedCorpus {
    let path = dir.join("texts.jsonl");
    let line = |i: usize| format!("{{\"text\": \"text {i} of {}\"}}\n", i * 37 % 101);
    std::fs::write(&path, (0..60).map(line).collect::<String>()).unwrap();
    let source = DocumentSource::open(&path).unwrap();
    prepare("texts", &source, &Tokenizer::Bytes, &dir.join("texts"), &mut |_, _| {}).unwrap()
}

#[test]
fn a_run_on_contiguous_windows_is_exact_after_an_interrupt() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = documents(dir.path());
    let config = |out: &str| TrainConfig {
        windows: WindowKind::Contiguous,
        validation: WindowKind::Contiguous,
        batch: 8,
        log_every: 1,
        ..config(dir.path().join(out))
    };
    let straight = config("straight");
    let expected = whole(&straight, &corpus, false).unwrap();
    let windows = corpus.packing(
        WindowKind::Contiguous,
        Split::Train,
        4,
        straight.context,
        Some(straight.seed),
    );
    let used = straight.steps * (straight.batch * straight.accumulate) as u64;
    assert!(used > 2 * windows.unwrap().windows_per_epoch());
    let broken = config("broken");
    assert!(until(4, &broken, &corpus).interrupted);
    let resumed = whole(&broken, &corpus, true).unwrap();
    assert_eq!(bits(&resumed.model), bits(&expected.model));
    assert_eq!(metrics(&broken.out), metrics(&straight.out));
    // windows without padding: every one of them counts
    let tokens = straight.context as u64 * used;
    assert_eq!(resumed.metrics.last().unwrap().tokens, tokens);

    let documents = TrainConfig { windows: WindowKind::Documents, ..config("documents") };
    let documents = whole(&documents, &corpus, false).unwrap();
    assert_ne!(bits(&documents.model), bits(&expected.model));
    assert!(documents.metrics.last().unwrap().tokens < tokens);
}

#[test]
fn the_windows_of_validation_do_not_follow_those_of_training() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = documents(dir.path());
    // a learning rate that changes no weight
    let loss = |windows, validation| {
        let out = tempfile::tempdir_in(dir.path()).unwrap().path().join("run");
        let config = TrainConfig { windows, validation, lr: 1e-30, steps: 2, ..config(out) };
        whole(&config, &corpus, false).unwrap().validation_loss.unwrap()
    };
    let [documents, contiguous] = [WindowKind::Documents, WindowKind::Contiguous];
    assert_eq!(loss(documents, documents), loss(contiguous, documents));
    assert_eq!(loss(documents, contiguous), loss(contiguous, contiguous));
    assert_ne!(loss(documents, documents), loss(documents, contiguous));
}
