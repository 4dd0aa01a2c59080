//! Metrics of burn-train from the values of a step, and the logger that early stopping reads.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::logger::MetricLogger;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{
    Metric, MetricAttributes, MetricDefinition, MetricId, MetricMetadata, MetricName, Numeric,
    NumericAttributes, NumericEntry, SerializedEntry,
};

use crate::trainable::StepOutput;

/// A value of [`StepOutput`] as a metric of burn-train.
#[derive(Clone)]
pub struct StepMetric {
    name: MetricName,
    value: fn(&StepOutput) -> f64,
    higher_is_better: bool,
    state: NumericMetricState,
}

impl StepMetric {
    /// Creates a metric called `name`.
    pub fn new(name: &str, higher_is_better: bool, value: fn(&StepOutput) -> f64) -> Self {
        let state = NumericMetricState::new();
        Self { name: Arc::new(name.into()), value, higher_is_better, state }
    }

    fn format(&self) -> FormatOptions {
        FormatOptions::new(self.name()).precision(3)
    }
}

impl Metric for StepMetric {
    type Input = StepOutput;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        let higher_is_better = self.higher_is_better;
        NumericAttributes { unit: None, higher_is_better }.into()
    }

    fn update(
        &mut self,
        item: &StepOutput,
        _: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.state.update((self.value)(item), 1);
        Ok(self.state.compute_update(self.format()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(self.format()))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for StepMetric {
    fn value(&self) -> Option<NumericEntry> {
        Some(self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}

/// The last value of each metric by epoch and split. (burn's own file logger panics when the disk is
/// full, and its in-memory logger counts epochs from the start of the process.)
#[derive(Default)]
pub(crate) struct LastValues(HashMap<(MetricId, usize, Split), NumericEntry>);

impl MetricLogger for LastValues {
    fn log(&mut self, update: MetricsUpdate, epoch: usize, split: &Split) {
        for metric in update.entries_numeric {
            if let Some(value) = metric.numeric_entry {
                self.0.insert((metric.entry.metric_id, epoch, split.clone()), value);
            }
        }
    }

    fn read_numeric(
        &mut self,
        name: &str,
        epoch: usize,
        split: &Split,
    ) -> Result<Vec<NumericEntry>, String> {
        let key = (MetricId::new(Arc::new(name.into())), epoch, split.clone());
        Ok(self.0.get(&key).cloned().into_iter().collect())
    }

    fn log_metric_definition(&mut self, _: MetricDefinition) {}

    fn log_epoch_summary(&mut self, _: EpochSummary) {}
}
