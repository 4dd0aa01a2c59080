//! The events of a run, sent to burn-train's metrics, renderer and early stopping.

use burn::data::dataloader::Progress as Items;
use burn::train::{
    EventProcessorError, EventProcessorTraining, LearnerEvent, TrainingComponents, TrainingItem,
};

use crate::config::TrainConfig;
use crate::trainable::{Learned, StepOutput};

/// Sends events in burn's order. An epoch is the steps between two validations.
pub(crate) struct Events<'a> {
    components: &'a mut TrainingComponents<Learned>,
    every: u64,
    /// Steps per epoch. The same value is reported for a shorter last epoch, because burn's
    /// dashboard estimates the remaining time from it.
    per_epoch: usize,
    begun: bool,
}

impl<'a> Events<'a> {
    pub(crate) fn new(
        config: &TrainConfig,
        components: &'a mut TrainingComponents<Learned>,
    ) -> Self {
        let every = config.validate_every;
        Self { components, every, per_epoch: to_usize(every.min(config.steps)), begun: false }
    }

    /// Whether the training was interrupted, or an event failed.
    pub(crate) fn should_stop(&self) -> bool {
        self.components.interrupter.should_stop()
    }

    /// Reports the training step `step`, counted from 1.
    pub(crate) fn step(&mut self, step: u64, output: StepOutput, lr: f64) {
        let epoch_number = self.epoch(step);
        if !std::mem::replace(&mut self.begun, true) {
            let total_items = self.per_epoch;
            self.train(LearnerEvent::StartSplit { epoch_number, total_items });
        }
        let done = to_usize((step - 1) % self.every) + 1;
        let item = TrainingItem::new(
            output,
            items(done, self.per_epoch),
            Some(to_usize(step)),
            Some(lr.into()),
        );
        self.train(LearnerEvent::ProcessedItem(item));
    }

    /// Reports the validation after step `step`, which ends an epoch. Returns whether the training
    /// should stop early.
    pub(crate) fn validation(&mut self, step: u64, output: StepOutput) -> bool {
        let epoch = self.epoch(step);
        self.begun = false;
        self.train(LearnerEvent::EndSplit(epoch));
        self.valid(LearnerEvent::StartSplit { epoch_number: epoch, total_items: 1 });
        let item = TrainingItem::new(output, items(1, 1), Some(to_usize(step)), None);
        self.valid(LearnerEvent::ProcessedItem(item));
        self.valid(LearnerEvent::EndSplit(epoch));
        self.train(LearnerEvent::EndEpoch(epoch));
        let components = &mut *self.components;
        let Some(early_stopping) = &mut components.early_stopping else { return false };
        components.interrupter.fail_on_error(components.event_processor.flush());
        early_stopping.should_stop(epoch, &components.event_store)
    }

    fn epoch(&self, step: u64) -> usize {
        to_usize((step - 1) / self.every) + 1
    }

    fn train(&mut self, event: LearnerEvent<StepOutput>) {
        let sent = self.components.event_processor.process_train(event);
        self.check(sent);
    }

    fn valid(&mut self, event: LearnerEvent<StepOutput>) {
        let sent = self.components.event_processor.process_valid(event);
        self.check(sent);
    }

    fn check(&self, sent: Result<(), EventProcessorError>) {
        self.components.interrupter.fail_on_error(sent);
    }
}

fn items(done: usize, total: usize) -> Items {
    Items::new(done, total, Some("items".into()))
}

pub(crate) fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
