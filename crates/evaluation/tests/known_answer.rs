//! The measurement on documents whose best possible loss by position has a closed form.

use block_transformer_datasets::Window;
use block_transformer_evaluation::Scorer;
use block_transformer_evaluation::documents::{BookScorer, Measures, Tally, Windows};
use block_transformer_testing::repeat_training::{Training, small, train};
use block_transformer_testing::repeats::Repeats;
use block_transformer_training::token_batch;
use block_transformer_zoo::{Family, LanguageModel};
use burn::tensor::Device;
use burn::tensor::activation::log_softmax;

const CONTEXT: usize = 32;
/// The first distance is inside a window, the second is not.
const DISTANCES: [usize; 2] = [8, 64];
/// Windows of each kind.
const WINDOWS: usize = 320;

fn source() -> Repeats {
    Repeats::new(4, &DISTANCES, 0.9)
}

/// A document that is not part of the training data, of a whole number of windows.
fn document(kind: usize) -> Vec<u32> {
    source().document(kind, WINDOWS * CONTEXT, 7)
}

fn measured(model: &LanguageModel, ids: &[u32]) -> Tally {
    let windows = Windows { context: CONTEXT, stride: CONTEXT };
    let measures = Measures { windows, documents: true, batch: 64 };
    let scorer = BookScorer::new(Scorer::new(model), measures).unwrap();
    scorer.score(ids, Tally::default(), |_, _| Ok(())).unwrap()
}

/// Checks a measurement of documents of kind `kind` against the best possible loss.
fn judge(tally: &Tally, kind: usize, first: usize) -> Result<(), String> {
    let source = source();
    if tally.windows != WINDOWS || tally.predicted != WINDOWS * CONTEXT {
        return Err(format!("{} windows, {} tokens", tally.windows, tally.predicted));
    }
    if tally.sums[..first].iter().any(|&sum| sum != 0.0) {
        return Err("the first block is predicted".into());
    }
    let mean = |range: std::ops::Range<usize>| {
        let n = (range.len() * WINDOWS) as f64;
        tally.sums[range].iter().sum::<f64>() / n
    };
    let distance = DISTANCES[kind].min(CONTEXT);
    let before = mean(first..distance);
    // no model is better than the best possible; sampling moves the mean by less than 0.01
    if before < source.unknown() - 0.03 {
        return Err(format!("{before} before position {distance}: better than possible"));
    }
    for position in distance..CONTEXT {
        let loss = mean(position..position + 1);
        let over = loss - source.best_loss(kind, position);
        if !(-0.25..0.4).contains(&over) {
            return Err(format!("{loss} at position {position}"));
        }
    }
    if distance < CONTEXT {
        let after = mean(distance..CONTEXT);
        if !(-0.05..0.2).contains(&(after - source.known())) {
            return Err(format!("{after} from position {distance} on"));
        }
    }
    Ok(())
}

fn learn(block_length: usize, steps: u64, batch: usize) -> LanguageModel {
    let source = source();
    let config = small(&source, block_length, 32, 2);
    let training = Training { context: CONTEXT, batch, steps, lr: 6e-3 };
    train(&config, &source, &training, &Device::flex())
}

#[test]
fn a_vanilla_model_reaches_the_best_loss_where_its_context_allows() {
    let model = learn(1, 250, 16);
    for kind in [0, 1] {
        judge(&measured(&model, &document(kind)), kind, 1).unwrap();
    }
    mistakes_are_noticed(&model);
}

#[test]
fn a_block_model_reaches_the_best_loss_where_its_context_allows() {
    let model = learn(2, 650, 8);
    for kind in [0, 1] {
        judge(&measured(&model, &document(kind)), kind, 2).unwrap();
    }
}

/// The check detects the mistakes that are likely in such code.
fn mistakes_are_noticed(model: &LanguageModel) {
    let ids = document(0);
    let good = measured(model, &ids);
    judge(&good, 0, 1).unwrap();

    // the last window is dropped (the published script drops the whole book)
    let dropped = measured(model, &ids[..ids.len() - CONTEXT]);
    assert!(judge(&dropped, 0, 1).unwrap_err().contains("windows"));

    // losses are recorded one position early, or late
    for by in [1, CONTEXT - 2] {
        let mut moved = good.clone();
        moved.sums[1..].rotate_left(by);
        assert!(judge(&moved, 0, 1).is_err());
    }

    // every prediction is compared with the token after its target
    let windows: Vec<Window> = ids
        .chunks(CONTEXT)
        .map(|ids| Window { ids: ids.into(), is_token: vec![true; CONTEXT] })
        .collect();
    let (logits, targets) = model.predict(&token_batch(&windows, 1, &Device::flex()));
    let log_p = log_softmax(logits, 2).narrow(1, 0, CONTEXT - 2); // [windows, context - 2, vocab]
    let after = targets.narrow(1, 1, CONTEXT - 2).reshape([WINDOWS, CONTEXT - 2, 1]);
    let sums = log_p.gather(2, after).sum_dim(0).neg().into_data();
    let mut shifted = good.clone();
    shifted.sums[1..CONTEXT - 1].iter_mut().zip(sums.iter::<f64>()).for_each(|(a, b)| *a = b);
    assert!(judge(&shifted, 0, 1).unwrap_err().contains("at position 8"));
}
