//! Metrics, loggers, early stopping and the summary of burn-train in a run.

use std::sync::{Arc, Mutex};

use block_transformer_training::StepMetric;
use burn::train::logger::{FileMetricLogger, MetricLogger};
use burn::train::metric::store::{Aggregate, Direction, EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{LossMetric, MetricDefinition, NumericEntry};
use burn::train::{LearnerSummary, MetricEarlyStoppingStrategy, StoppingCondition};

use crate::{STEPS, short};

/// Split, epoch, name and value of a metric.
type LoggedValue = (Split, usize, String, f64);

/// All logged values.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<LoggedValue>>>);

impl MetricLogger for Recorded {
    fn log(&mut self, update: MetricsUpdate, epoch: usize, split: &Split) {
        for metric in update.entries_numeric {
            if let Some(NumericEntry::Aggregated { aggregated_value, .. }) = metric.numeric_entry {
                let name = format!("{:?}", metric.entry.metric_id);
                self.0.lock().unwrap().push((split.clone(), epoch, name, aggregated_value));
            }
        }
    }

    fn read_numeric(&mut self, _: &str, _: usize, _: &Split) -> Result<Vec<NumericEntry>, String> {
        Ok(Vec::new())
    }

    fn log_metric_definition(&mut self, _: MetricDefinition) {}

    fn log_epoch_summary(&mut self, _: EpochSummary) {}
}

#[test]
fn a_metric_and_a_logger_of_the_user_see_every_step() {
    let dir = tempfile::tempdir().unwrap();
    let recorded = Recorded::default();
    let half = StepMetric::new("Half of the norm", false, |step| step.grad_norm / 2.0);
    let outcome = short(dir.path(), 3e-3, STEPS)
        .launch(|training| training.metric_train_numeric(half).with_metric_logger(recorded.clone()))
        .unwrap();
    let all = recorded.0.lock().unwrap();
    let values = |split: Split, name: &str| -> Vec<(usize, f64)> {
        let of = all.iter().filter(|row| row.0 == split && row.2.contains(name));
        of.map(|row| (row.1, row.3)).collect()
    };
    let expected = |value: fn(f64, f64) -> f64| -> Vec<(usize, f64)> {
        let rows = outcome.metrics.iter();
        rows.map(|row| (row.step.div_ceil(2) as usize, value(row.loss, row.grad_norm))).collect()
    };
    assert_eq!(values(Split::Train, "Half of the norm"), expected(|_, norm| norm / 2.0));
    assert_eq!(values(Split::Train, "Loss"), expected(|loss, _| f64::from(loss as f32)));
    let losses: Vec<f64> = values(Split::Valid, "Loss").iter().map(|(_, loss)| *loss).collect();
    let validations = outcome.metrics.iter().filter_map(|row| row.validation_loss);
    assert_eq!(losses, validations.map(|loss| f64::from(loss as f32)).collect::<Vec<_>>());
}

#[test]
fn early_stopping_ends_a_run_that_does_not_improve() {
    let dir = tempfile::tempdir().unwrap();
    let stopping = MetricEarlyStoppingStrategy::new(
        &LossMetric::new(),
        Aggregate::Mean,
        Direction::Lowest,
        Split::Valid,
        StoppingCondition::NoImprovementSince { n_epochs: 1 },
    );
    // the learning rate is far too high, so the loss rises
    let outcome =
        short(dir.path(), 0.5, 60).launch(|training| training.early_stopping(stopping)).unwrap();
    assert!(outcome.step < 60 && !outcome.interrupted, "{}", outcome.step);
    assert!(outcome.checkpoint.exists());
    let losses: Vec<f64> = outcome.metrics.iter().filter_map(|row| row.validation_loss).collect();
    let (last, before) = losses.split_last().unwrap();
    assert!(before.is_sorted_by(|a, b| a > b) && last >= before.last().unwrap(), "{losses:?}");
}

#[test]
fn burns_summary_reads_the_files_of_burns_logger() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    let logger = FileMetricLogger::new(&logs);
    short(dir.path(), 3e-3, STEPS).launch(|training| training.with_metric_logger(logger)).unwrap();
    let summary = LearnerSummary::new(&logs, &["Loss"]).unwrap();
    assert_eq!((summary.epochs, summary.metrics.valid[0].entries.len()), (3, 3));
}
