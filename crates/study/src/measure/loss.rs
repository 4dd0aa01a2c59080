//! The loss on the validation text, by place in a block and by position.

use std::path::Path;

use block_transformer_checkpoint::Checkpoint;
use block_transformer_datasets::Split;
use block_transformer_evaluation::Scorer;
use block_transformer_evaluation::documents::{Book, BookScorer, Measures, Tally, Windows};
use block_transformer_zoo::{Family, FamilyConfig};
use serde_json::{Value, json};

use crate::error::StudyError;
use crate::execute::Laboratory;
use crate::measure::Subject;
use crate::measurement::LossSettings;

/// Tokens per batch.
const BATCH_TOKENS: usize = 4096;
/// Points of the loss by position per doubling of the position.
const PER_OCTAVE: f64 = 4.0;

/// Measures the loss in windows by place and position, and with `documents` the loss of the whole text with every
/// token predicted once.
pub(super) fn loss(
    laboratory: &Laboratory,
    subject: &Subject<'_>,
    keys: &LossSettings,
    documents: bool,
) -> Result<Value, StudyError> {
    let checkpoint = subject.checkpoint(laboratory)?;
    let context = if keys.context == 0 { subject.run.config.context } else { keys.context };
    let texts = texts(laboratory, subject, &checkpoint, keys.tokens)?;
    let model = checkpoint.load_model(&laboratory.device)?.prepared();
    let length = checkpoint.config.block_length();
    let windows = Windows { context, stride: context };
    let measures = Measures { windows, documents, batch: (BATCH_TOKENS / context).max(1) };
    let scorer = BookScorer::new(Scorer::new(&model), measures)?;
    let mut all = Tally { sums: vec![0.0; context], ..Tally::default() };
    for ids in &texts {
        let tally = scorer.score(ids, Tally::default(), |_, _| Ok(()))?;
        all.windows += tally.windows;
        all.predicted += tally.predicted;
        all.total_nats += tally.total_nats;
        all.sums.iter_mut().zip(&tally.sums).for_each(|(sum, own)| *sum += own);
    }
    let count = all.windows as f64;
    let by_place: Vec<f64> = (0..length)
        .map(|place| {
            // the first block is not predicted
            let sums: Vec<f64> =
                all.sums.iter().skip(length + place).step_by(length).copied().collect();
            sums.iter().sum::<f64>() / (sums.len() as f64 * count)
        })
        .collect();
    let by_position: Vec<(usize, usize, f64)> = bins(length, context)
        .map(|(first, end)| {
            let sum: f64 = all.sums[first..end].iter().sum();
            (first, end - 1, sum / ((end - first) as f64 * count))
        })
        .collect();
    let trained = subject.run.config.context;
    let between = |first: usize, end: usize| {
        let sum: f64 = all.sums[first.min(end)..end].iter().sum();
        (first < end).then(|| sum / ((end - first) as f64 * count))
    };
    let nats = documents.then(|| all.total_nats / all.predicted as f64);
    Ok(json!({
        "nats": nats,
        "tokens": all.predicted,
        "windows": all.windows,
        "window_nats": all.sums[length..].iter().sum::<f64>() / ((context - length) as f64 * count),
        "within_nats": between(length, trained.min(context)),
        "beyond_nats": between(trained, context),
        "by_place": by_place,
        "by_position": by_position,
    }))
}

/// Ranges of positions from the second block on, each a whole number of blocks, several per doubling.
fn bins(length: usize, context: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut first = length;
    std::iter::from_fn(move || {
        if first >= context {
            return None;
        }
        let wide = first as f64 * ((1.0 / PER_OCTAVE).exp2() - 1.0);
        let end = first + (wide.round() as usize).next_multiple_of(length).max(length);
        let end = if context - end.min(context) < length { context } else { end };
        let bin = (first, end.min(context));
        first = bin.1;
        Some(bin)
    })
}

/// The token ids of the validation text, at most `limit` of them unless it is 0.
fn texts(
    laboratory: &Laboratory,
    subject: &Subject<'_>,
    checkpoint: &Checkpoint,
    limit: usize,
) -> Result<Vec<Vec<u32>>, StudyError> {
    let mut texts = match &laboratory.settings.validation {
        Some(path) => {
            let tokenizer = checkpoint.tokenizer()?;
            let books = books(path)?;
            books
                .iter()
                .map(|book| book.read()?.tokens(&tokenizer))
                .collect::<Result<Vec<_>, _>>()?
        }
        None => {
            let documents = subject.corpus.split(Split::Validation)?;
            let read = |index: usize| {
                let mut ids = Vec::new();
                documents.read(index, 0..documents.document_len(index), &mut ids);
                ids
            };
            (0..documents.len()).map(read).collect()
        }
    };
    let mut left = if limit == 0 { usize::MAX } else { limit };
    for text in &mut texts {
        text.truncate(left);
        left -= text.len();
    }
    texts.retain(|text| !text.is_empty());
    Ok(texts)
}

/// The texts at a path: a file is one text.
fn books(path: &Path) -> Result<Vec<Book>, StudyError> {
    if path.is_dir() {
        return Ok(Book::list(path)?);
    }
    Ok(Book::of_files(&[path.to_path_buf()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_cover_the_window_in_whole_blocks() {
        for (length, context) in [(1, 64), (4, 256), (16, 512), (3, 24)] {
            let all: Vec<(usize, usize)> = bins(length, context).collect();
            assert_eq!((all[0].0, all[all.len() - 1].1), (length, context));
            assert!(all.windows(2).all(|pair| pair[0].1 == pair[1].0), "{all:?}");
            assert!(all.iter().all(|(first, end)| (end - first).is_multiple_of(length)), "{all:?}");
        }
    }
}
