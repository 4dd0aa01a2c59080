//! Losses of books against models that run one window at a time.

use block_transformer_datasets::Window;
use block_transformer_evaluation::documents::{BookScorer, Measures, Tally, Windows};
use block_transformer_evaluation::{EvalError, Scorer};
use block_transformer_text::{EOS, PAD};
use block_transformer_training::token_batch;
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, ModelConfig};
use burn::tensor::Device;

const CONTEXT: usize = 16;

fn preset(name: &str) -> (ModelConfig, LanguageModel) {
    let config = block_transformer_zoo::preset(name).unwrap().model.clone().with_vocab_size(50);
    let model = config.init(3, &Device::flex());
    (config, model)
}

fn book(tokens: usize) -> Vec<u32> {
    (0..tokens as u32).map(|i| 2 + (i * i + i / 7) % 48).collect()
}

fn measures(stride: usize, batch: usize) -> Measures {
    let windows = Windows { context: CONTEXT, stride };
    Measures { windows, documents: true, batch }
}

fn book_scorer(
    (_, model): &(ModelConfig, LanguageModel),
    measures: Measures,
) -> BookScorer<LanguageModel> {
    BookScorer::new(Scorer::new(model), measures).unwrap()
}

fn measure(
    subject: &(ModelConfig, LanguageModel),
    measures: Measures,
    ids: &[u32],
    tally: Tally,
) -> Tally {
    let scorer = book_scorer(subject, measures);
    scorer.score(ids, tally, |_, _| Ok::<(), EvalError>(())).unwrap()
}

/// Losses of a window whose first `padding` tokens are padding.
fn plain(config: &ModelConfig, model: &LanguageModel, ids: &[u32], padding: usize) -> Vec<f64> {
    let is_token = (0..ids.len()).map(|i| i >= padding).collect();
    let window = Window { ids: ids.into(), is_token };
    let length = config.block_length();
    let batch = token_batch(&[window], length, &Device::flex());
    model.losses(&batch).losses.into_data().iter::<f64>().collect()
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{a}, {b}");
}

#[test]
fn losses_by_position_are_those_of_windows_run_alone() {
    for name in ["debug-block", "debug-vanilla"] {
        let subject = preset(name);
        let (config, model) = &subject;
        let first = config.block_length();
        // overlapping windows, disjoint ones, and ones with gaps
        for (tokens, stride) in [(5 * CONTEXT, CONTEXT), (61, 6), (70, 20)] {
            let ids = book(tokens);
            let tally = measure(&subject, measures(stride, 2), &ids, Tally::default());
            let mut sums = vec![0.0; CONTEXT];
            let mut windows = 0;
            let mut start = 0;
            while start + CONTEXT <= tokens {
                let losses = plain(config, model, &ids[start..start + CONTEXT], 0);
                assert_eq!(losses.len(), CONTEXT - first);
                sums[first..].iter_mut().zip(losses).for_each(|(sum, loss)| *sum += loss);
                start += stride;
                windows += 1;
            }
            assert_eq!(tally.windows, windows);
            assert!(tally.sums[..first].iter().all(|&sum| sum == 0.0));
            tally.sums.iter().zip(&sums).for_each(|(&a, &b)| close(a, b));
        }
    }
}

#[test]
fn whole_books_count_every_token_once() {
    for name in ["debug-block", "debug-vanilla"] {
        let subject = preset(name);
        let (config, model) = &subject;
        let length = config.block_length();
        for tokens in [1, 2, 15, 16, 17, 32, 41] {
            let ids = book(tokens);
            let tally = measure(&subject, measures(CONTEXT, 2), &ids, Tally::default());
            let mut nats = 0.0;
            let mut done = 0;
            while done < tokens {
                let end = (done + CONTEXT).min(tokens);
                // EOS before the first window; before the others, the largest context that fits
                let context = match done {
                    0 => vec![EOS],
                    _ => ids[end - CONTEXT - 1..done].to_vec(),
                };
                let padding = context.len().next_multiple_of(length) - context.len();
                let mut window = vec![PAD; padding];
                window.extend(&context);
                let known = window.len();
                window.extend(&ids[done..end]);
                window.resize(window.len().next_multiple_of(length), PAD);
                let losses = plain(config, model, &window, padding);
                nats += losses[known - length..][..end - done].iter().sum::<f64>();
                done = end;
            }
            assert_eq!(
                (tally.predicted, tally.rolling_windows),
                (tokens, tokens.div_ceil(CONTEXT))
            );
            close(tally.total_nats, nats);
        }
    }
}

#[test]
fn a_resumed_book_does_not_repeat_work_and_ends_in_the_same_bits() {
    let subject = preset("debug-block");
    let (ids, measures) = (book(200), measures(CONTEXT, 3));
    let whole = measure(&subject, measures, &ids, Tally::default());
    let mut stages = Vec::new();
    book_scorer(&subject, measures)
        .score(&ids, Tally::default(), |tally, _| {
            stages.push(tally.clone());
            Ok::<(), EvalError>(())
        })
        .unwrap();
    assert_eq!(stages.len(), 4 + 5);
    for stage in stages {
        assert_eq!(measure(&subject, measures, &ids, stage), whole);
    }
}

#[test]
fn the_work_is_the_number_of_windows_scored() {
    let subject = preset("debug-vanilla");
    for documents in [true, false] {
        let measures = Measures { documents, ..measures(5, 1) };
        let scorer = book_scorer(&subject, measures);
        for tokens in [0, 1, 16, 40] {
            let mut steps = 0;
            let step = |_: &Tally, _| {
                steps += 1;
                Ok::<(), EvalError>(())
            };
            let tally = scorer.score(&book(tokens), Tally::default(), step).unwrap();
            assert_eq!(steps, scorer.work(tokens));
            assert_eq!(tally.windows + tally.rolling_windows, scorer.work(tokens));
        }
    }
}
