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
    chosen: BTreeMap<String, Chosen>,
    power: f64,
}

/// The rate of a family.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Chosen {
    rate: f64,
    width: usize,
    loss: f64,
    /// Whether the sweep has no lower or no higher rate: a rate outside of it may be better.
    is_edge: bool,
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
        let mut swept: BTreeMap<String, Vec<Chosen>> = BTreeMap::new();
        for point in &view.points {
            let mean = view.mean(point, &rule.metric).filter(|mean| mean.count == point.runs.len());
            let Some(loss) = mean.map(|mean| mean.value) else { return Ok(None) };
            let config = &point.runs[0].config;
            let (rate, width) = (config.lr, config.model.stacks().context.width);
            let one = Chosen { rate, width, loss, is_edge: false };
            swept.entry(config.model.family().into()).or_default().push(one);
        }
        let best = |(family, mut all): (String, Vec<Chosen>)| {
            all.sort_by(|a, b| a.rate.total_cmp(&b.rate));
            let (i, best) = all.iter().enumerate().min_by(|a, b| a.1.loss.total_cmp(&b.1.loss))?;
            Some((family, Chosen { is_edge: i == 0 || i + 1 == all.len(), ..*best }))
        };
        let chosen = swept.into_iter().filter_map(best).collect();
        Ok(Some(Self { chosen, power: rule.power }))
    }

    /// The rate for a model of `family` with `width`, times `factor`.
    pub(crate) fn rate(&self, family: &str, width: usize, factor: f64) -> Option<f64> {
        let chosen = self.chosen.get(family)?;
        let scaled = factor * chosen.rate * (chosen.width as f64 / width as f64).powf(self.power);
        // the same on every machine, although powers may differ in their last digits
        format!("{scaled:.2e}").parse().ok()
    }

    /// The rule and the rates in words.
    pub(crate) fn describe(&self) -> String {
        let rates = self.chosen.iter().map(|(family, Chosen { rate, width, is_edge, .. })| {
            let edge = if *is_edge {
                " (the end of the sweep: a rate outside it may be better)"
            } else {
                ""
            };
            format!("{rate} for {family} models at width {width}{edge}")
        });
        format!(
            "The learning rate is the one with the lowest validation loss in a sweep at the smallest size, by the same \
             rule for both families: {}. A model of width `w` gets this rate times (width of the sweep / `w`){}.",
            rates.collect::<Vec<_>>().join(" and "),
            if self.power == 1.0 { String::new() } else { format!("^{}", self.power) }
        )
    }
}
