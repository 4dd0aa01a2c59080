//! The report of a study, from the ledger alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use block_transformer_files::{FileError, write};
use block_transformer_zoo::FamilyConfig;

use crate::claim::Confidence;
use crate::declaration::{Column, Study};
use crate::error::StudyError;
use crate::ledger::Ledger;
use crate::measurement::TRAIN;
use crate::points::{Mean, View};
use crate::published::published;
use crate::rates::Rates;

/// The result of a report.
#[derive(Clone, Debug)]
pub struct Report {
    /// The file `report.md`.
    pub path: PathBuf,
    /// Runs whose training is in the ledger, and all runs.
    pub runs: (usize, usize),
    /// The claims, and what the measurements say about them.
    pub claims: Vec<(String, Confidence)>,
    /// Names of the figures.
    pub figures: Vec<String>,
}

impl Study {
    /// Writes `report.md` and the figures of the study to the folder `out`, from the ledger alone. The same ledger
    /// makes the same bytes.
    ///
    /// # Errors
    /// When the study has no runs at this scale, or a file cannot be written.
    pub fn report(&self, scale: &str, ledger: &Ledger, out: &Path) -> Result<Report, StudyError> {
        let rates = Rates::of(ledger, scale)?;
        let runs = self.runs(scale, rates.as_ref())?;
        let view = View::new(self, scale, ledger, &runs);
        std::fs::create_dir_all(out).map_err(FileError::write(out))?;
        let done = runs.iter().filter(|run| view.row(run, TRAIN).is_some()).count();
        let mut text = format!("# {}\n\n{}\n\n", self.title, self.question.trim());
        text += &self.conditions(scale, &view, rates.as_ref(), (done, runs.len()));
        let mut claims = Vec::new();
        if !self.claims.is_empty() {
            text += "## Claims\n\n| claim | the paper | here | because |\n|---|---|---|---|\n";
        }
        for claim in &self.claims {
            let verdict = claim.verdict(&view);
            let cells =
                [&claim.claim, &claim.paper, &verdict.confidence.to_string(), &verdict.because];
            text += &row(cells.map(String::as_str));
            claims.push((claim.claim.clone(), verdict.confidence));
        }
        if self.claims.iter().any(crate::claim::Claim::is_of_equal_loss) {
            text += "\nAt equal loss: a number is the ratio in the middle of the losses that both families reach. Its range goes from \
                     the smallest to the largest ratio over these losses, with the losses of one family moved up and those of the other \
                     moved down by the largest interval of a loss, and the reverse, and between the slowest round of one and the fastest \
                     of the other.\n";
        }
        text += &self.deviations(&view);
        let mut figures = Vec::new();
        let mut has_published = false;
        for figure in &self.figures {
            if !figure.write(&view, out)? {
                continue;
            }
            if figures.is_empty() {
                text += "\n## Figures\n";
            }
            text += &format!("\n![{}]({}.svg)\n", figure.title, figure.name);
            if !figure.caption.is_empty() {
                text += &format!("\n{}\n", figure.caption.trim());
            }
            has_published |= figure.has_published();
            figures.push(figure.name.clone());
        }
        if has_published {
            let published = published();
            text += &format!(
                "\nHollow marks are published values, as they are recalled. {} {}\n",
                published.source.trim(),
                published.conditions.trim()
            );
        }
        text += &self.table(&view);
        text += &self.run_table(&view);
        let path = out.join("report.md");
        write(&path, text.as_bytes())?;
        Ok(Report { path, runs: (done, runs.len()), claims, figures })
    }

    /// The conditions of the measurements.
    fn conditions(
        &self,
        scale: &str,
        view: &View<'_>,
        rates: Option<&Rates>,
        (done, all): (usize, usize),
    ) -> String {
        let runs = || view.points.iter().flat_map(|point| &point.runs);
        let rows: Vec<_> = runs().filter_map(|run| view.row(run, TRAIN)).collect();
        let set = |of: &dyn Fn(&crate::ledger::Row) -> String| {
            let values: BTreeSet<String> = rows.iter().map(|row| of(row)).collect();
            values.into_iter().collect::<Vec<_>>().join(", ")
        };
        let tokens: BTreeSet<u64> = runs().map(crate::run::Run::tokens).collect();
        let range = match (tokens.first(), tokens.last()) {
            (Some(least), Some(most)) if least != most => {
                format!("{} to {}", short(*least as f64), short(*most as f64))
            }
            (Some(tokens), _) => short(*tokens as f64),
            _ => String::new(),
        };
        let mut text = format!(
            "Scale `{scale}`: {done} of {all} runs are trained, each on {range} tokens of {}.",
            self.corpus
        );
        if !rows.is_empty() {
            text += &format!(
                " Device {}, commits {}, `{}`.",
                set(&|row| row.device.clone()),
                set(&|row| row.commit.clone()),
                set(&|row| row.command.clone())
            );
        }
        text += "\n\n";
        let uses_rates = runs().any(|run| run.config.lr > 0.0 && self.rates.is_none());
        if let Some(rates) = rates.filter(|_| uses_rates && self.uses_rates(scale)) {
            text += &format!("{}\n\n", rates.describe());
        }
        text += "Losses are in nats per token. An interval (±, error bars) is the 95% interval of a mean over seeds; the \
                 deviation between seeds is pooled over all points of the study. A claim *holds* or *does not hold* if \
                 the interval lies on one side, and is *undecided at this scale* otherwise. Several claims are tested \
                 without a correction for their number.\n\n";
        text
    }

    /// The deviations between seeds that the intervals of the claims follow from.
    fn deviations(&self, view: &View<'_>) -> String {
        let metrics: BTreeSet<&str> =
            self.claims.iter().map(crate::claim::Claim::between_seeds).collect();
        let mut text = String::new();
        for metric in metrics {
            let pooled = view.pooled(metric);
            let (Some(deviation), Some((point, share))) =
                (pooled.deviation(), view.most_deviating(metric))
            else {
                continue;
            };
            text += &format!(
                "\nThe standard deviation of `{metric}` between seeds is {deviation:.4}, with {} degrees of freedom; {:.0}% of the \
                 sum of squares come from {}.\n",
                pooled.degrees(),
                100.0 * share,
                point.name()
            );
        }
        text
    }

    /// Whether a run has the learning rate of the sweep.
    pub fn uses_rates(&self, scale: &str) -> bool {
        let open = self.runs(scale, None).unwrap_or_default();
        open.iter().any(|run| run.is_open)
    }

    fn table(&self, view: &View<'_>) -> String {
        if self.columns.is_empty() {
            return String::new();
        }
        let heads = self.columns.iter().map(|column| column.head.as_str());
        let heads: Vec<&str> = std::iter::once("model").chain(heads).collect();
        let mut text = format!("\n## Measurements\n\n{}", row(heads.iter().copied()));
        text += &format!("|{}\n", "---|".repeat(heads.len()));
        for point in &view.points {
            let cells = self.columns.iter().map(|column| {
                view.mean(point, &column.metric)
                    .map_or_else(|| "-".into(), |mean| cell(&mean, column))
            });
            let cells: Vec<String> = std::iter::once(point.name()).chain(cells).collect();
            text += &row(cells.iter().map(String::as_str));
        }
        text
    }

    fn run_table(&self, view: &View<'_>) -> String {
        let mut text = String::from("\n## Runs\n\n");
        let heads = [
            "run",
            "identity",
            "parameters outside embeddings",
            "learning rate",
            "steps",
            "tokens",
            "trained",
        ];
        text += &row(heads);
        text += &format!("|{}\n", "---|".repeat(heads.len()));
        for run in view.points.iter().flat_map(|point| &point.runs) {
            let (id, lr) = match run.is_open {
                true => ("follows from the learning rate".into(), "not chosen yet".into()),
                false => (format!("`{}`", run.id), run.config.lr.to_string()),
            };
            let trained = if view.row(run, TRAIN).is_some() { "yes" } else { "no" };
            let cells = [
                run.name(),
                id,
                run.config.model.num_params_non_embedding().to_string(),
                lr,
                run.config.steps.to_string(),
                run.tokens().to_string(),
                trained.into(),
            ];
            text += &row(cells.iter().map(String::as_str));
        }
        text
    }
}

fn row<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let cells = cells.into_iter().map(|cell| cell.replace('|', "\\|"));
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

fn cell(mean: &Mean, column: &Column) -> String {
    let digits = column.digits;
    let half = mean.half.filter(|half| *half > 0.0);
    if mean.value.abs() >= 1000.0 {
        let value = short(mean.value);
        return half.map_or(value.clone(), |half| format!("{value} ± {}", short(half)));
    }
    match half {
        Some(half) => format!("{:.digits$} ± {half:.digits$}", mean.value),
        None => format!("{:.digits$}", mean.value),
    }
}

/// A number with three significant digits and a suffix.
pub(crate) fn short(value: f64) -> String {
    let units = [(1e18, "e18"), (1e15, "e15"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (scaled, suffix) = units
        .iter()
        .find(|(unit, _)| value >= 0.9995 * unit)
        .map_or((value, ""), |(unit, suffix)| (value / unit, *suffix));
    let decimals = if scaled >= 99.95 {
        0
    } else if scaled >= 9.995 {
        1
    } else {
        2
    };
    format!("{scaled:.decimals$}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.5, 12.34, 999.96, 3_000_000.0, 1.2e19].map(short);
        assert_eq!(shown, ["0.50", "12.3", "1.00k", "3.00M", "12.0e18"]);
    }
}
