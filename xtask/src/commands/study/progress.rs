//! Progress of a study as plain lines.

use std::io::stdout;

use block_transformer_study::StudyEvent;

use crate::commands::train::Lines;

/// Prints an event.
pub(super) fn print(event: &StudyEvent) {
    match event {
        StudyEvent::Run { name, id, number, of } => say!("run {number} of {of}: {name} ({id})"),
        StudyEvent::Training(event) => Lines(stdout()).print(event),
        StudyEvent::Measuring { measurement, subject } => {
            say!("measuring {measurement} of {subject}")
        }
        StudyEvent::Measured(row) => {
            let values = row.values.as_object().into_iter().flatten();
            let numbers = values.filter_map(|(name, value)| {
                // a speed of decoding is a table of its rounds
                let value = value.as_f64().or_else(|| value.get("rate")?.as_f64())?;
                Some(if value.abs() < 1e4 {
                    format!("{name} {value:.4}")
                } else {
                    format!("{name} {value:.3e}")
                })
            });
            let numbers = numbers.collect::<Vec<_>>().join(", ");
            say!("{} of {}: {numbers}", row.measurement, row.run);
        }
    }
}
