//! The plot of the loss by position.

use block_transformer_plot::{AxisScale, Plot, PlotLine, Ribbon, Style};

use crate::documents::report::{CheckpointReport, PositionReport};

impl PositionReport {
    /// The smoothed curves, each in a ribbon of plus and minus one standard error.
    pub fn plot(&self) -> Plot {
        let books = self.books.iter().filter(|book| book.windows > 0).count();
        let line = |checkpoint: &CheckpointReport| PlotLine {
            label: label(checkpoint),
            points: checkpoint.smoothed.iter().map(|(at, loss)| (*at, loss.value)).collect(),
            style: Style::Solid,
        };
        let ribbon = |(i, checkpoint): (usize, &CheckpointReport)| {
            let edges = checkpoint.smoothed.iter().filter_map(|(at, loss)| {
                let error = loss.standard_error?;
                Some((*at, loss.value - error, loss.value + error))
            });
            Ribbon { line: i, edges: edges.collect() }
        };
        Plot {
            title: format!("Loss by position, {books} books, windows of {}", self.windows.context),
            x_label: "position in the window (tokens before it)".into(),
            y_label: "loss (nats per token, ± 1 standard error)".into(),
            x_scale: AxisScale::Log2,
            lines: self.checkpoints.iter().map(line).collect(),
            ribbons: self.checkpoints.iter().enumerate().map(ribbon).collect(),
            ..Plot::default()
        }
    }
}

fn label(checkpoint: &CheckpointReport) -> String {
    let CheckpointReport { info, beyond_trained_context, .. } = checkpoint;
    let family = (info.label != info.family).then(|| info.family.clone());
    let trained = beyond_trained_context.then(|| format!("trained with {}", info.trained_context));
    match [family, trained].into_iter().flatten().collect::<Vec<_>>() {
        more if more.is_empty() => info.label.clone(),
        more => format!("{} ({})", info.label, more.join(", ")),
    }
}
