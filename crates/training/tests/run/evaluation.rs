//! Evaluation while training.

use block_transformer_training::{EvaluationScore, RunEvent, TrainConfig, TrainError, TrainingRun};
use block_transformer_zoo::LanguageModel;
use burn::tensor::Device;
use burn::train::Interrupter;

use crate::{bits, config, corpus, metrics, whole};

#[test]
fn evaluations_change_no_bit_of_the_training_and_are_repeated_by_a_resumed_run() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    let plain = config(dir.path().join("plain"));
    let expected = whole(&plain, &corpus, false).unwrap();

    let evaluated = |out: &str| TrainConfig {
        eval_every: 2,
        eval_tasks: vec!["sum".into()],
        log_every: 1,
        ..config(dir.path().join(out))
    };
    // a score of the weights, and a value that JSON cannot state
    let evaluate = |model: &LanguageModel| {
        let sum = bits(model).values().flatten().map(|&bits| f64::from(f32::from_bits(bits))).sum();
        let score = |metric: &str, value| EvaluationScore {
            task: "sum".into(),
            metric: metric.into(),
            value,
            stderr: None,
        };
        Ok(vec![score("weights", sum), score("none", f64::NAN)])
    };
    let open = |config: &TrainConfig, resume| {
        let run = TrainingRun::open(config, &corpus, resume, &Device::flex()).unwrap();
        run.evaluate(evaluate)
    };
    let straight = evaluated("straight");
    let outcome = open(&straight, false).launch(|training| training).unwrap();
    assert_eq!(bits(&outcome.model), bits(&expected.model));
    let steps: Vec<u64> = outcome
        .metrics
        .iter()
        .filter(|row| !row.evaluation.is_empty())
        .map(|row| row.step)
        .collect();
    assert_eq!(steps, [2, 4, 6]);
    let last = evaluate(&outcome.model).unwrap();
    assert_eq!(outcome.metrics[5].evaluation[0], last[0]);
    assert!(outcome.metrics[3].evaluation[0] != last[0]);

    let broken = evaluated("broken");
    let interrupter = Interrupter::new();
    let stop = interrupter.clone();
    let run = open(&broken, false).observe(move |event| {
        if let RunEvent::Evaluation { step: 4, scores } = event {
            assert_eq!(scores.len(), 2);
            stop.stop(None);
        }
    });
    let half = run.launch(|training| training.with_interrupter(interrupter)).unwrap();
    assert_eq!((half.step, half.interrupted), (4, true));
    let resumed = open(&broken, true).launch(|training| training).unwrap();
    assert_eq!(bits(&resumed.model), bits(&expected.model));
    assert_eq!(metrics(&broken.out), metrics(&straight.out));
    let read =
        |config: &TrainConfig| std::fs::read_to_string(config.out.join("evaluations.csv")).unwrap();
    assert_eq!(read(&broken), read(&straight));
    assert_eq!(read(&straight).lines().count(), 1 + 3 * 2);
    assert!(!plain.out.join("evaluations.csv").exists());

    let failing = evaluated("failing");
    let run = TrainingRun::open(&failing, &corpus, false, &Device::flex()).unwrap();
    let error = run.evaluate(|_| Err("no score".into())).launch(|training| training).unwrap_err();
    assert!(matches!(error, TrainError::Evaluation { step: 2, .. }), "{error}");
}
