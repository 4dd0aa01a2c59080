//! Loss by position on documents whose best possible loss is known: a vanilla and a block model
//! learn to repeat tokens from 16 and 64 positions back. They cannot learn to repeat tokens from
//! 1024 positions back, because a window is shorter. Takes about ten minutes on two cores.
//!
//! Usage: `known_answer OUT [STEPS]`

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::path::PathBuf;

use anyhow::Result;
use block_transformer_evaluation::documents::{
    BookRow, BookScorer, CheckpointInfo, Measures, PositionReport, Tally, Windows,
};
use block_transformer_evaluation::{EvalError, Scorer};
use block_transformer_plot::{Line, Style};
use block_transformer_testing::repeat_training::{Training, small, train};
use block_transformer_testing::repeats::Repeats;
use block_transformer_zoo::{FamilyConfig, ModelConfig};
use burn::tensor::Device;

const CONTEXT: usize = 256;
const DISTANCES: [usize; 3] = [16, 64, 1024];
/// Documents per kind, and windows per document.
const DOCUMENTS: usize = 8;
const WINDOWS: usize = 24;
const STEPS: u64 = 3000;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let out = PathBuf::from(args.next().unwrap_or_else(|| "known-answer".into()));
    let steps = args.next().and_then(|steps| steps.parse().ok()).unwrap_or(STEPS);
    std::fs::create_dir_all(&out)?;
    let source = Repeats::new(4, &DISTANCES, 0.9);
    let windows = Windows { context: CONTEXT, stride: CONTEXT };
    let measures = Measures { windows, documents: true, batch: 8 };
    let (mut checkpoints, mut rows) = (Vec::new(), Vec::new());
    for block_length in [1, 4] {
        let config = small(&source, block_length, 64, 2);
        checkpoints.push(info(&config, steps));
        rows.push(measured(&config, &source, &measures, steps)?);
    }
    let report = PositionReport::new(&checkpoints, &measures, &rows)?;
    print!("{}\n| positions | best possible |\n| --- | ---: |\n", report.markdown());
    for octave in &report.octaves {
        let (from, to) = (octave.positions.start, octave.positions.end);
        let best = (from..to).map(|position| best(&source, position)).sum::<f64>();
        println!("| {from}-{} | {:.4} |", to - 1, best / (to - from) as f64);
    }
    let mut plot = report.plot();
    plot.title = "Tokens that repeat from 16, 64 and 1024 positions back".into();
    plot.lines.push(Line {
        label: "best possible".into(),
        points: (1..CONTEXT).map(|i| (i as f64, best(&source, i))).collect(),
        style: Style::Solid,
    });
    for name in ["known-answer.svg", "known-answer.png"] {
        plot.write(&out.join(name))?;
    }
    println!("\nplot in {}", out.display());
    Ok(())
}

/// The best possible loss at a position, averaged over documents of all kinds.
fn best(source: &Repeats, position: usize) -> f64 {
    let kinds = 0..DISTANCES.len();
    kinds.map(|kind| source.best_loss(kind, position)).sum::<f64>() / DISTANCES.len() as f64
}

/// Trains a model, and measures it on documents that are not part of the training data.
fn measured(
    config: &ModelConfig,
    source: &Repeats,
    measures: &Measures,
    steps: u64,
) -> Result<Vec<BookRow>, EvalError> {
    let device = Device::flex();
    let training = Training { context: CONTEXT, batch: 2 * DISTANCES.len(), steps, lr: 4e-3 };
    let model = train(config, source, &training, &device, |step, loss| {
        if step.is_multiple_of(100) {
            eprintln!("{} step {step}/{steps}: loss {loss:.3}", config.family());
        }
    });
    let scorer = BookScorer::new(Scorer::new(&model), *measures)?;
    let documents = (0..DOCUMENTS).flat_map(|i| (0..DISTANCES.len()).map(move |kind| (i, kind)));
    let row = |(i, kind): (usize, usize)| {
        let ids = source.document(kind, WINDOWS * CONTEXT, i as u64);
        let tally = scorer.score(&ids, Tally::default(), |_, _| Ok::<(), EvalError>(()))?;
        Ok(BookRow {
            checkpoint: config.family().into(),
            book: format!("{i}, from {} back", DISTANCES[kind]),
            tokens: ids.len(),
            // every token of this language is a byte and a word
            bytes: ids.len() as u64,
            words: ids.len() as u64,
            tally,
        })
    };
    documents.map(row).collect()
}

fn info(config: &ModelConfig, step: u64) -> CheckpointInfo {
    CheckpointInfo {
        label: config.family().into(),
        folder: PathBuf::new(),
        weights: String::new(),
        family: config.family().into(),
        block_length: config.block_length(),
        parameters: config.num_params(),
        step,
        trained_context: CONTEXT,
    }
}
