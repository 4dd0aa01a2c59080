//! Losses of books against models that run one window at a time.

use block_transformer_datasets::Window;
use block_transformer_evaluation::documents::{BookScorer, Measures, Tally, Windows};
use block_transformer_evaluation::{EvalError, Scorer};
use block_transformer_testing::{model, shape, shapes};
use block_transformer_text::{EOS, PAD};
use block_transformer_training::token_batch;
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel};
use burn::tensor::Device;

const CONTEXT: usize = 16;

fn book(tokens: usize) -> Vec<u32> {
    (0..tokens as u32).map(|i| 2 + (i * i + i / 7) % 48).collect()
}

fn measures(stride: usize, batch: usize) -> Measures {
    let windows = Windows { context: CONTEXT, stride };
    Measures { windows, documents: true, batch }
}

fn book_scorer(model: &LanguageModel, measures: Measures) -> BookScorer<LanguageModel> {
    BookScorer::new(Scorer::new(model), measures).unwrap()
}

fn measure(model: &LanguageModel, measures: Measures, ids: &[u32], tally: Tally) -> Tally {
    book_scorer(model, measures).score(ids, tally, |_, _| Ok(())).unwrap()
}

/// Losses of a window whose first `padding` tokens are padding.
fn plain(model: &LanguageModel, ids: &[u32], padding: usize) -> Vec<f64> {
    let is_token = (0..ids.len()).map(|i| i >= padding).collect();
    let window = Window { ids: ids.into(), is_token };
    let batch = token_batch(&[window], model.config().block_length(), &Device::flex());
    model.losses(&batch).losses.into_data().iter::<f64>().collect()
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{a}, {b}");
}

#[test]
fn losses_by_position_are_those_of_windows_run_alone() {
    for (_, config) in shapes() {
        let (model, first) = (model(&config, &Device::flex()), config.block_length());
        // overlapping windows, disjoint ones, and ones with gaps
        for (tokens, stride) in [(5 * CONTEXT, CONTEXT), (61, 6), (70, 20)] {
            let ids = book(tokens);
            let tally = measure(&model, measures(stride, 2), &ids, Tally::default());
            let windows: Vec<&[u32]> = ids.windows(CONTEXT).step_by(stride).collect();
            let mut sums = vec![0.0; CONTEXT];
            for window in &windows {
                let losses = plain(&model, window, 0);
                assert_eq!(losses.len(), CONTEXT - first);
                sums[first..].iter_mut().zip(losses).for_each(|(sum, loss)| *sum += loss);
            }
            assert_eq!(tally.windows, windows.len());
            assert!(tally.sums[..first].iter().all(|&sum| sum == 0.0));
            tally.sums.iter().zip(&sums).for_each(|(&a, &b)| close(a, b));
        }
    }
}

#[test]
fn whole_books_count_every_token_once() {
    for (_, config) in shapes() {
        let (model, length) = (model(&config, &Device::flex()), config.block_length());
        for tokens in [1, 2, 15, 16, 17, 32, 41] {
            let ids = book(tokens);
            let tally = measure(&model, measures(CONTEXT, 2), &ids, Tally::default());
            let (mut nats, mut done) = (0.0, 0);
            while done < tokens {
                let end = (done + CONTEXT).min(tokens);
                // EOS before the first window; before the others, the largest context that fits
                let context = match done {
                    0 => vec![EOS],
                    _ => ids[end - CONTEXT - 1..done].to_vec(),
                };
                let padding = context.len().next_multiple_of(length) - context.len();
                let mut window = [vec![PAD; padding], context].concat();
                let known = window.len();
                window.extend(&ids[done..end]);
                window.resize(window.len().next_multiple_of(length), PAD);
                let losses = plain(&model, &window, padding);
                nats += losses[known - length..][..end - done].iter().sum::<f64>();
                done = end;
            }
            let windows = tokens.div_ceil(CONTEXT);
            assert_eq!((tally.predicted, tally.rolling_windows), (tokens, windows));
            close(tally.total_nats, nats);
        }
    }
}

#[test]
fn a_resumed_book_does_not_repeat_work_and_ends_in_the_same_bits() {
    let model = model(&shape("prefix"), &Device::flex());
    let (ids, measures) = (book(200), measures(CONTEXT, 3));
    let whole = measure(&model, measures, &ids, Tally::default());
    let mut stages = Vec::new();
    let step = |tally: &Tally, _| {
        stages.push(tally.clone());
        Ok(())
    };
    book_scorer(&model, measures).score(&ids, Tally::default(), step).unwrap();
    assert_eq!(stages.len(), 4 + 5);
    for stage in stages {
        assert_eq!(measure(&model, measures, &ids, stage), whole);
    }
}

#[test]
fn the_work_is_the_number_of_windows_scored() {
    let model = model(&shape("vanilla"), &Device::flex());
    for documents in [true, false] {
        let scorer = book_scorer(&model, Measures { documents, ..measures(5, 1) });
        for tokens in [0, 1, 16, 40] {
            let tally = scorer.score(&book(tokens), Tally::default(), |_, _| Ok(())).unwrap();
            assert_eq!(tally.windows + tally.rolling_windows, scorer.work(tokens));
        }
    }
}

#[test]
fn a_stride_or_batch_of_zero_is_named() {
    let model = model(&shape("vanilla"), &Device::flex());
    let error = |stride, batch| BookScorer::new(Scorer::new(&model), measures(stride, batch)).err();
    assert!(matches!(error(0, 1), Some(EvalError::Zero("stride"))));
    assert!(matches!(error(1, 0), Some(EvalError::Zero("batch"))));
}
