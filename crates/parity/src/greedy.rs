//! Greedy generation, with and without KV caches.

use block_transformer_generation::{Engine, Event, GenerationError, Limits, Options, Sampling};
use block_transformer_weights::HostTensor;
use block_transformer_zoo::family::CacheFormat;
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, PaddingMask, TokenBatch};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::case::Case;
use crate::error::ParityError;
use crate::quantity::{Quantity, values};
use crate::tolerance::Products;

const PAD: i64 = 1;

/// Compares the recorded continuations with those of `model`.
pub(crate) fn compare(
    case: &Case,
    model: &LanguageModel,
    device: &Device,
    products: Products,
) -> Result<Vec<Quantity>, ParityError> {
    let allowed = Allowed { products, case };
    // the recorded ids come from the published generation code, which uses other rotary positions
    let model = &match model.clone() {
        LanguageModel::Block(model) => LanguageModel::Block(model.with_published_positions()),
        vanilla => vanilla,
    };
    let (mut cached_wrong, mut uncached_wrong, mut cases) = (0, 0, 0);
    for (length, golden) in case.with_prefix("gen.greedy_") {
        let prompt = case.golden(&format!("gen.prompt_{length}"))?;
        let rows = |tensor: &HostTensor| -> Vec<Vec<u32>> {
            let ids = tensor.values.chunks(tensor.shape[1]);
            ids.map(|row| row.iter().map(|&v| v as u32).collect()).collect()
        };
        let (prompts, expected) = (rows(prompt), rows(golden));
        let count = golden.shape[1] - prompt.shape[1];
        let cache = products.precision().cache();
        let cached = greedy_engine(model, &prompts, count, cache, device)
            .and_then(|engine| greedy_ids(engine, &prompts, count))
            .map_err(|source| ParityError::Generation { case: case.name.clone(), source })?;
        for ((prompt, cached), expected) in prompts.iter().zip(&cached).zip(&expected) {
            let expected = &expected[prompt.len()..];
            let steps = uncached(model, case.config.block_length(), prompt, count, device);
            cached_wrong += allowed.differing(cached, expected, &steps);
            let ours: Vec<u32> = steps.iter().map(|step| step.id).collect();
            uncached_wrong += allowed.differing(&ours, expected, &steps);
        }
        cases += 1;
    }
    if cases == 0 {
        return Ok(Vec::new());
    }
    Ok(vec![
        Quantity::new("greedy ids, uncached", uncached_wrong as f64, 0.0),
        Quantity::new("greedy ids, cached", cached_wrong as f64, 0.0),
    ])
}

/// An engine with room for all prompts and `count` more tokens of each, with KV caches in the format `cache`.
///
/// # Errors
/// When there is no room for a sequence.
pub fn greedy_engine(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    count: usize,
    cache: CacheFormat,
    device: &Device,
) -> Result<Engine, GenerationError> {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let limits =
        Limits { max_sequences: prompts.len().max(1), max_tokens: (longest + count).max(2) };
    Engine::with_cache(model, limits, cache, device)
}

/// Continues all prompts together by `count` tokens each, in an [engine](greedy_engine) without sequences.
///
/// # Errors
/// When a prompt does not fit the model. A sequence whose logits are not finite ends early.
pub fn greedy_ids(
    mut engine: Engine,
    prompts: &[Vec<u32>],
    count: usize,
) -> Result<Vec<Vec<u32>>, GenerationError> {
    let options = Options {
        sampling: Sampling::greedy(),
        max_tokens: count,
        eos: None,
        ..Options::default()
    };
    for prompt in prompts {
        engine.submit(prompt, &options)?;
    }
    let mut continuations = vec![Vec::new(); prompts.len()];
    while !engine.is_idle() {
        for event in engine.step()? {
            if let Event::Token { id, token, .. } = event {
                continuations[id.index()].push(token);
            }
        }
    }
    Ok(continuations)
}

/// The differences that are allowed between ids.
struct Allowed<'a> {
    products: Products,
    case: &'a Case,
}

impl Allowed<'_> {
    /// Returns the number of ids that differ. Where the first of them differs because the two logits
    /// are equal within tolerance, the rest continues another text and does not count. `steps` are
    /// the uncached steps; they have the same logits as long as the ids are the expected ones.
    fn differing(&self, ours: &[u32], expected: &[u32], steps: &[Step]) -> usize {
        let first = ours.iter().zip(expected).position(|(a, b)| a != b);
        if let Some(at) = first
            && self.products != Products::F32
            && steps[..at].iter().zip(expected).all(|(step, &id)| step.id == id)
        {
            let logits = &steps[at].logits;
            let gap = logits[ours[at] as usize] - logits[expected[at] as usize];
            let tolerance = 2.0 * self.products.values(&self.case.config, logits);
            if f64::from(gap.abs()) <= tolerance {
                return 0;
            }
        }
        differing(ours, expected)
    }
}

fn differing(ours: &[u32], theirs: &[u32]) -> usize {
    ours.iter().zip(theirs).filter(|(a, b)| a != b).count() + ours.len().abs_diff(theirs.len())
}

/// A generated id, and the logits from which it was chosen.
struct Step {
    id: u32,
    logits: Vec<f32>,
}

/// Continues a prompt, recomputing everything for each token. The rest of an unfinished block is
/// padding, to which no earlier token attends.
fn uncached(
    model: &LanguageModel,
    block_length: usize,
    prompt: &[u32],
    count: usize,
    device: &Device,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let left = prompt.len().next_multiple_of(block_length) - prompt.len();
    let mut ids: Vec<i64> = vec![PAD; left];
    ids.extend(prompt.iter().map(|&id| i64::from(id)));
    let start = ids.len();
    while ids.len() < start + count {
        // one block more than is known, to get the logits of its tokens
        let time = (ids.len() + 1).next_multiple_of(block_length);
        let mut padded = ids.clone();
        padded.resize(time, PAD);
        let is_token = (0..time).map(|i| (left..start.max(ids.len())).contains(&i)).collect();
        let tensor = Tensor::<2, Int>::from_data(TensorData::new(padded, [1, time]), device);
        let is_token = PaddingMask::new(is_token);
        let batch = TokenBatch { ids: tensor, is_token, block_length };
        let (logits, _) = model.predict(&batch);
        let at = ids.len() - block_length;
        let logits = logits.narrow(1, at, 1);
        let next = logits.clone().argmax(2).into_scalar::<i64>();
        steps.push(Step { id: next as u32, logits: values(logits) });
        ids.push(next);
    }
    steps
}
