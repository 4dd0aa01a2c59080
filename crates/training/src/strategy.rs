//! The launch of a run through burn-train.

use std::sync::{Arc, Mutex, PoisonError};

use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::lr_scheduler::constant::ConstantLr;
use burn::train::metric::{LearningRateMetric, LossMetric};
use burn::train::{
    Learner, SupervisedLearningStrategy, SupervisedTraining, SupervisedTrainingEventProcessor,
    TrainLoader, TrainingComponents, TrainingStrategy, ValidLoader,
};

use crate::batch::WindowBatcher;
use crate::error::TrainError;
use crate::optimizer::optimizer;
use crate::run::{Outcome, TrainingRun};
use crate::silent::NoRenderer;
use crate::step_metric::{LastValues, StepMetric};
use crate::trainable::{Learned, Trainable};

impl TrainingRun {
    /// Trains to the last step, as a `SupervisedTraining` of burn-train. `customize` can change
    /// the metrics, loggers, renderer, interrupter, early stopping and summary. Metrics read a
    /// [`StepOutput`](crate::StepOutput); an epoch is the steps between two validations.
    ///
    /// ```no_run
    /// # fn train(run: block_transformer_training::TrainingRun) -> Result<(), Box<dyn std::error::Error>> {
    /// use block_transformer_training::StepMetric;
    ///
    /// let grad_norm = StepMetric::new("Clipped", false, |step| step.grad_norm.min(1.0));
    /// let outcome = run.launch(|training| training.metric_train_numeric(grad_norm))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// These parts of burn's contract are not used, because they would cost exactness or speed:
    ///
    /// - Data loaders: they start at the first item of an epoch, so a run could not resume in the
    ///   middle of an epoch. Windows are read from [`Packing`](block_transformer_datasets::Packing)
    ///   by their index. The loaders that burn requires are created, but never iterated over.
    /// - `Learner`: it does not give access to its optimizer, although a checkpoint needs the
    ///   optimizer's state, and it shares the model during the update, so that all weights would be
    ///   copied in each step. The run uses a [`Trainer`](crate::Trainer).
    /// - `grads_accumulation`: it sums micro-batches instead of averaging them, and burn clips each
    ///   tensor separately. [`apply_update`](crate::apply_update) averages and clips the global norm.
    /// - Checkpointers: they write at the end of an epoch only, and a kill can leave incomplete
    ///   files. The run writes checkpoint folders that are complete or absent.
    /// - `FileMetricLogger`: it cannot return an error and panics when the disk is full. The run
    ///   writes `metrics.jsonl` and `metrics.csv` itself, before the checkpoint of the same step.
    ///   `with_metric_logger` adds burn's logger, which `summary` needs.
    ///
    /// # Errors
    /// When the loss is not finite, a file cannot be written, or a metric fails.
    ///
    /// # Panics
    /// When a renderer or a logger panics. burn's terminal dashboard panics when its user chooses
    /// to end the program.
    pub fn launch(
        self,
        customize: impl FnOnce(SupervisedTraining<Learned>) -> SupervisedTraining<Learned>,
    ) -> Result<Outcome, TrainError> {
        let config = self.config();
        let loader =
            |windows: &block_transformer_datasets::MixedWindows| -> Arc<dyn DataLoader<_>> {
                let batcher = WindowBatcher { block_length: self.block_length() };
                DataLoaderBuilder::new(batcher).batch_size(config.batch).build(windows.clone())
            };
        let (train, validation) = self.windows_of_splits();
        let training = SupervisedTraining::new(&config.out, loader(train), loader(validation))
            .with_application_logger(None)
            .with_metric_logger(LastValues::default())
            .renderer(Box::new(NoRenderer))
            .label(&config.preset)
            .num_epochs(self.epochs())
            .checkpoint(self.epochs_done())
            .metric_train_numeric(LossMetric::new())
            .metric_valid_numeric(LossMetric::new())
            .metric_train_numeric(LearningRateMetric::new())
            .metric_train_numeric(StepMetric::new("Gradient norm", false, |step| step.grad_norm))
            .metric_train_numeric(StepMetric::new("Tokens per second", true, |step| {
                step.tokens_per_second
            }));
        let training = match self.mfu {
            Some(_) => training
                .metric_train_numeric(StepMetric::new("MFU %", true, |step| step.mfu_percent)),
            None => training,
        };
        // a device that reports no memory has no row for it
        let training = match self.device_memory() {
            Some(_) => {
                training.metric_train_numeric(StepMetric::new("Device memory GiB", false, |step| {
                    step.device_memory
                }))
            }
            None => training,
        };
        let model = Trainable { model: self.trainer().model().clone() };
        let learner = Learner::new(model, optimizer(config).0, ConstantLr::new(config.lr));
        #[expect(clippy::arc_with_non_send_sync, reason = "burn-train takes an Arc of a strategy")]
        let exact = Arc::new(ExactLoop(Mutex::new(Some((self, Ok(()))))));
        let strategy = TrainingStrategy::Custom(exact.clone());
        // the terminal must be restored before the outcome is reported
        drop(customize(training).with_training_strategy(strategy).launch(learner));
        let done = exact.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (run, result) = done.expect("the strategy keeps the run");
        result.map(|()| run.into_outcome())
    }
}

/// The loop of a run as a strategy of burn-train.
struct ExactLoop(Mutex<Option<(TrainingRun, Result<(), TrainError>)>>);

impl SupervisedLearningStrategy<Learned> for ExactLoop {
    fn fit(
        &self,
        mut components: TrainingComponents<Learned>,
        learner: Learner<Learned>,
        _: TrainLoader<Learned>,
        _: ValidLoader<Learned>,
        _: usize,
    ) -> (Learned, SupervisedTrainingEventProcessor<Learned>) {
        // weights are updated in place if only the trainer holds them
        drop(learner);
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (run, result) = slot.as_mut().expect("a run is launched once");
        *result = run.train(&mut components);
        let model = Trainable { model: run.trainer().model().clone() };
        (model, components.event_processor)
    }
}
