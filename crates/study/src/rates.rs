//! Learning rates that follow from a sweep by a rule.

use std::collections::BTreeMap;

use block_transformer_zoo::FamilyConfig;

use crate::declaration::{RATES, Study};
use crate::error::StudyError;
use crate::ledger::Ledger;
use crate::points::View;

/// The rate of each family that the sweep chose, by the rule that the study `rates` states.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    /// Rate and width by family.
    chosen: BTreeMap<String, (f64, usize)>,
    power: f64,
}

impl Rates {
    /// The rates that follow from the ledger at a scale; `None` while a run of the sweep is not measured, and at
    /// scales without a sweep.
    ///
    /// # Errors
    /// When the study `rates` is not valid.
    pub fn of(ledger: &Ledger, scale: &str) -> Result<Option<Self>, StudyError> {
        let study = Study::open(RATES)?;
        let Some(rule) = &study.rates else { return Ok(None) };
        let runs = match study.runs(scale, None) {
            Err(StudyError::NoRuns { .. }) => return Ok(None),
            runs => runs?,
        };
        let view = View::new(&study, scale, ledger, &runs);
        let mut chosen: BTreeMap<String, (f64, usize, f64)> = BTreeMap::new();
        for point in &view.points {
            let mean = view.mean(point, &rule.metric).filter(|mean| mean.count == point.runs.len());
            let Some(mean) = mean.map(|mean| mean.value) else { return Ok(None) };
            let config = &point.runs[0].config;
            let (family, width) = (config.model.family(), config.model.stacks().context.width);
            let best = chosen.entry(family.into()).or_insert((config.lr, width, mean));
            if mean < best.2 {
                *best = (config.lr, width, mean);
            }
        }
        let chosen = chosen.into_iter().map(|(family, (lr, width, _))| (family, (lr, width)));
        Ok(Some(Self { chosen: chosen.collect(), power: rule.power }))
    }

    /// The rate for a model of `family` with `width`.
    pub(crate) fn rate(&self, family: &str, width: usize) -> Option<f64> {
        let &(lr, swept) = self.chosen.get(family)?;
        let scaled = lr * (swept as f64 / width as f64).powf(self.power);
        // the same on every machine, although powers may differ in their last digits
        format!("{scaled:.2e}").parse().ok()
    }

    /// The rule and the rates in words.
    pub(crate) fn describe(&self) -> String {
        let rates = self
            .chosen
            .iter()
            .map(|(family, (lr, width))| format!("{lr} for {family} models at width {width}"));
        format!(
            "The learning rate is the one with the lowest validation loss in a sweep at the smallest size, by the same \
             rule for both families: {}. A model of width `w` gets this rate times (width of the sweep / `w`)^{}.",
            rates.collect::<Vec<_>>().join(" and "),
            self.power
        )
    }
}
