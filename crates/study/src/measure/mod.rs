//! Measurements of runs and shapes.

mod loss;
mod needle;
mod shapes;
mod tasks;
mod train;

use std::time::Instant;

use block_transformer_checkpoint::{Checkpoint, RunFolder};
use block_transformer_datasets::PreparedCorpus;
use serde_json::Value;

pub(crate) use shapes::of_shapes;
pub(crate) use train::train;

use crate::error::StudyError;
use crate::execute::Laboratory;
use crate::ledger::Row;
use crate::measurement::Measurement;
use crate::run::Run;

/// A run with its prepared corpus.
pub(crate) struct Subject<'a> {
    pub run: &'a Run,
    pub corpus: &'a PreparedCorpus,
    /// The identity of the text.
    pub text: &'a str,
}

impl Subject<'_> {
    /// The trained model.
    fn checkpoint(&self, laboratory: &Laboratory) -> Result<Checkpoint, StudyError> {
        let folder = RunFolder::new(&laboratory.settings.out.join(&self.run.id));
        let last = folder.checkpoint(self.run.config.steps);
        let mut checkpoint = Checkpoint::open_model(&last)?;
        let read = self.run.read_model(&checkpoint.config);
        checkpoint.config = read.map_err(|reason| StudyError::Declaration {
            origin: format!("run {}", self.run.name()),
            reason,
        })?;
        Ok(checkpoint)
    }

    /// The row of a measurement of this run.
    fn row(&self, laboratory: &Laboratory, measurement: &str, values: Value) -> Row {
        let row = laboratory.row(&self.run.id, measurement, values);
        Row { seed: Some(self.run.config.seed), text: self.text.into(), ..row }
    }
}

/// Measures a trained run.
pub(crate) fn of_run(
    laboratory: &Laboratory,
    subject: &Subject<'_>,
    measurement: &Measurement,
) -> Result<Row, StudyError> {
    let begun = Instant::now();
    let values = match measurement {
        Measurement::Loss(keys) => loss::loss(laboratory, subject, keys, true),
        Measurement::Position(keys) => loss::loss(laboratory, subject, keys, false),
        Measurement::Needle(keys) => needle::needle(laboratory, subject, keys),
        Measurement::Tasks(keys) => tasks::tasks(laboratory, subject, keys),
        Measurement::Decode(_) | Measurement::Speed(_) => {
            unreachable!("shapes are measured by `of_shapes`")
        }
    };
    let row = subject.row(laboratory, measurement.name(), values?);
    let seconds = laboratory.settings.clock.seconds(begun, 0.0);
    Ok(Row { settings: measurement.settings(subject.run), seconds, ..row })
}
