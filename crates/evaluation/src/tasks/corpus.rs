//! Any text as a task: the likelihood of its documents.

use std::f64::consts::LN_2;
use std::path::Path;

use block_transformer_datasets::DocumentSource;
use block_transformer_files::FileError;

use crate::error::EvalError;
use crate::table;
use crate::tasks::evaluate::{Evaluation, TaskMetrics};
use crate::tasks::item::Item;
use crate::tasks::metrics::{ItemScore, Metric};

/// The name of the task.
pub const CORPUS: &str = "corpus";

/// The name and the metrics of a text.
pub fn corpus_metrics() -> TaskMetrics {
    let metrics = vec![
        Metric::Loss,
        Metric::TokenPerplexity,
        Metric::BitsPerByte,
        Metric::BitsPerWord,
        Metric::WordPerplexity,
    ];
    TaskMetrics { name: CORPUS.into(), metrics }
}

/// Reads the first `limit` documents of the text at `path`: a text file, a `.jsonl` file, or a folder of such
/// files ([`DocumentSource::open`]). Words are separated by white space.
///
/// # Errors
/// When a file cannot be read, or there is no document.
pub fn corpus_items(path: &Path, limit: Option<usize>) -> Result<Vec<Item>, EvalError> {
    let source = DocumentSource::open(path)?;
    let document = |text: String| {
        let (words, bytes) = (text.split_whitespace().count(), text.len());
        Item::Document { text, words, bytes }
    };
    let documents = source.documents().take(limit.unwrap_or(usize::MAX));
    let items: Vec<Item> =
        documents.map(|text| Ok(document(text?))).collect::<Result<_, EvalError>>()?;
    match items.is_empty() {
        true => Err(EvalError::content(path, "there is no document with text")),
        false => Ok(items),
    }
}

/// The losses of a document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DocumentScore {
    /// Number of the document, from 1.
    pub document: usize,
    /// Tokens.
    pub tokens: usize,
    /// Words, separated by white space.
    pub words: usize,
    /// Bytes of the text.
    pub bytes: usize,
    /// Loss in nats per token.
    pub loss: f64,
    /// `exp` of the loss.
    pub perplexity: f64,
    /// Bits per byte of the text.
    pub bits_per_byte: f64,
    /// Bits per word.
    pub bits_per_word: f64,
}

/// The documents of `items` with their scores in `evaluation`.
pub fn document_scores(evaluation: &Evaluation, items: &[Item]) -> Vec<DocumentScore> {
    let pairs = items.iter().zip(&evaluation.items).enumerate();
    let one = |(i, (item, found)): (usize, (&Item, &ItemScore))| {
        let ItemScore { log_likelihoods, tokens, .. } = found;
        let &Item::Document { words, bytes, .. } = item else { return None };
        let (nats, tokens) = (-log_likelihoods.iter().sum::<f64>(), tokens.iter().sum::<usize>());
        let loss = nats / tokens as f64;
        Some(DocumentScore {
            document: i + 1,
            tokens,
            words,
            bytes,
            loss,
            perplexity: loss.exp(),
            bits_per_byte: nats / LN_2 / bytes as f64,
            bits_per_word: nats / LN_2 / words as f64,
        })
    };
    pairs.filter_map(one).collect()
}

/// The documents as CSV, with a header.
///
/// # Errors
/// When a row cannot be written, which does not happen in memory.
pub fn documents_csv(documents: &[DocumentScore]) -> Result<Vec<u8>, EvalError> {
    let failed = |error: csv::Error| FileError::write(Path::new("documents.csv"))(error.into());
    let mut rows = csv::Writer::from_writer(Vec::new());
    rows.write_record(HEAD).map_err(failed)?;
    for document in documents {
        rows.write_record(cells(document, f64::to_string)).map_err(failed)?;
    }
    rows.into_inner().map_err(|error| failed(csv::Error::from(error.into_error())).into())
}

/// The first `most` documents as a table.
pub fn documents_table(documents: &[DocumentScore], most: usize) -> String {
    let rounded = |value: &f64| format!("{value:.4}");
    let rows: Vec<Vec<String>> =
        documents.iter().take(most).map(|document| cells(document, rounded).into()).collect();
    table::markdown(&HEAD, 0, &rows)
}

const HEAD: [&str; 8] = [
    "document",
    "tokens",
    "words",
    "bytes",
    "loss",
    "perplexity",
    "bits_per_byte",
    "bits_per_word",
];

fn cells(document: &DocumentScore, number: impl Fn(&f64) -> String) -> [String; 8] {
    let DocumentScore {
        document,
        tokens,
        words,
        bytes,
        loss,
        perplexity,
        bits_per_byte,
        bits_per_word,
    } = document;
    let counts = [document, tokens, words, bytes].map(ToString::to_string);
    let values = [loss, perplexity, bits_per_byte, bits_per_word].map(number);
    let [a, b, c, d] = counts;
    let [e, f, g, h] = values;
    [a, b, c, d, e, f, g, h]
}
