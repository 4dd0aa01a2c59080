//! Results by length and depth.

use serde::Serialize;

use crate::needle::items::NeedleSettings;
use crate::table;
use crate::tasks::{Evaluation, Item, chosen};

/// The results of a length and a depth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct NeedleCell {
    /// Tokens of the text with the needle.
    pub length: usize,
    /// Place of the needle in percent.
    pub depth: usize,
    /// Samples.
    pub samples: usize,
    /// Fraction of samples whose right number is the most likely option.
    pub acc: f64,
    /// Fraction of samples whose right number is the greedy continuation.
    pub exact_match: f64,
    /// Loss of the right number in nats per token.
    pub loss: f64,
}

/// The results of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NeedleGrid {
    /// The checkpoint's name.
    pub label: String,
    /// The cells, in the order of lengths and depths.
    pub cells: Vec<NeedleCell>,
}

impl NeedleGrid {
    /// Averages the samples of each length and depth.
    pub fn new(
        label: &str,
        settings: &NeedleSettings,
        items: &[Item],
        evaluation: &Evaluation,
    ) -> Self {
        let places = settings
            .lengths
            .iter()
            .flat_map(|&length| settings.depths.iter().map(move |&depth| (length, depth)));
        let mut pairs = items.iter().zip(&evaluation.items);
        let cell = |(length, depth)| {
            let (mut right, mut exact, mut nats, mut tokens) = (0, 0, 0.0, 0);
            for (item, found) in pairs.by_ref().take(settings.samples) {
                let Item::Choice { options, gold } = item else { continue };
                right += usize::from(chosen(options, found, false) == Some(*gold));
                exact += usize::from(found.greedy[*gold]);
                nats -= found.log_likelihoods[*gold];
                tokens += found.tokens[*gold];
            }
            let samples = settings.samples;
            let share = |count: usize| count as f64 / samples as f64;
            let loss = nats / tokens as f64;
            NeedleCell {
                length,
                depth,
                samples,
                acc: share(right),
                exact_match: share(exact),
                loss,
            }
        };
        Self { label: label.into(), cells: places.map(cell).collect() }
    }
}

/// The results of several checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NeedleReport {
    /// The settings.
    pub settings: NeedleSettings,
    /// The checkpoints.
    pub checkpoints: Vec<NeedleGrid>,
}

impl NeedleReport {
    /// The accuracy of each checkpoint by length (rows) and depth (columns), and the share of exact matches.
    pub fn table(&self) -> String {
        let depths = self.settings.depths.iter().map(|depth| format!("{depth} %"));
        let head: Vec<String> =
            ["checkpoint".into(), "tokens".into()].into_iter().chain(depths).collect();
        let mut rows = Vec::new();
        for grid in &self.checkpoints {
            for cells in grid.cells.chunks(self.settings.depths.len()) {
                let values = cells.iter().map(|c| format!("{:.2} / {:.2}", c.acc, c.exact_match));
                let first = [grid.label.clone(), cells[0].length.to_string()];
                rows.push(first.into_iter().chain(values).collect());
            }
        }
        table::markdown(&head, 1, &rows)
    }

    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        let NeedleSettings { samples, options, seed, .. } = self.settings;
        format!(
            "# Needle in a haystack\n\nBy depth of the needle (columns) and tokens of text (rows): accuracy among \
             {options} numbers / share of exact matches, over {samples} samples each, seed {seed}. The accuracy of \
             guessing is {:.2}.\n\n{}",
            1.0 / options as f64,
            self.table()
        )
    }

    /// The cells as CSV, with a header.
    pub fn csv(&self) -> String {
        let mut text = String::from("checkpoint,length,depth,samples,acc,exact_match,loss\n");
        for grid in &self.checkpoints {
            let label = match grid.label.contains([',', '"', '\n']) {
                true => format!("\"{}\"", grid.label.replace('"', "\"\"")),
                false => grid.label.clone(),
            };
            for NeedleCell { length, depth, samples, acc, exact_match, loss } in &grid.cells {
                text += &format!("{label},{length},{depth},{samples},{acc},{exact_match},{loss}\n");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::needle::items::needle_metrics;
    use crate::tasks::{ItemScore, Prompt};

    #[test]
    fn samples_are_averaged_by_place() {
        let settings = NeedleSettings {
            lengths: vec![10, 20],
            depths: vec![0, 100],
            samples: 2,
            options: 2,
            seed: 0,
        };
        let option = || Prompt { context: "c".into(), continuation: " 1".into() };
        let items = vec![Item::Choice { options: vec![option(), option()], gold: 1 }; 8];
        let found = |i: u32| ItemScore {
            log_likelihoods: vec![-2.0, if i.is_multiple_of(2) { -1.0 } else { -3.0 }],
            greedy: vec![false, i == 7],
            tokens: vec![1, 2],
        };
        let evaluation = Evaluation {
            task: needle_metrics(),
            items: (0..8).map(found).collect(),
            scores: Vec::new(),
            tokens: 0,
        };
        let grid = NeedleGrid::new("a", &settings, &items, &evaluation);
        assert_eq!(grid.cells.len(), 4);
        let last = NeedleCell {
            length: 20,
            depth: 100,
            samples: 2,
            acc: 0.5,
            exact_match: 0.5,
            loss: 1.0,
        };
        assert_eq!(grid.cells[3], last);
        let report = NeedleReport { settings, checkpoints: vec![grid] };
        assert!(report.table().contains("0.50 / 0.50"), "{}", report.table());
        assert_eq!(report.csv().lines().last().unwrap(), "a,20,100,2,0.5,0.5,1");
    }
}
