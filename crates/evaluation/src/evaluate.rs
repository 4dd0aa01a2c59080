//! A task from its items to its scores.

use block_transformer_text::Tokenizer;
use block_transformer_zoo::{FamilyConfig, ModelConfig};

use crate::encode::encode;
use crate::metrics::scores;
use crate::tasks::Item;
use crate::{EvalError, ItemScore, Prompt, Request, Score, Scored, Scorer, Task, rolling_windows};

/// A task that was evaluated.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The task.
    pub task: Task,
    /// What was found, item by item.
    pub items: Vec<ItemScore>,
    /// Its scores.
    pub scores: Vec<Score>,
    /// Tokens that were scored.
    pub tokens: usize,
}

/// The requests of a task's items, and how many belong to each item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// What to score, item after item.
    pub requests: Vec<Request>,
    /// Requests of each item.
    pub counts: Vec<usize>,
}

/// # Errors
/// When the tokenizer has ids the model does not know.
pub fn check_tokenizer(tokenizer: &Tokenizer, config: &ModelConfig) -> Result<(), EvalError> {
    match (tokenizer.vocab_size(), config.vocab_size()) {
        (ids, known) if ids > known => Err(EvalError::Vocabulary { tokenizer: ids, model: known }),
        _ => Ok(()),
    }
}

/// What has to be scored for `items`; documents are cut into windows of `context` tokens.
///
/// # Errors
/// When a text cannot be encoded.
pub fn requests(
    items: &[Item],
    tokenizer: &Tokenizer,
    context: usize,
) -> Result<Requests, EvalError> {
    let mut prompts: Vec<Prompt> = Vec::new();
    let mut documents = Vec::new();
    for item in items {
        match item {
            Item::Choice { options, .. } => prompts.extend_from_slice(options),
            Item::Continuation(prompt) => prompts.push(prompt.clone()),
            Item::Document { text, .. } => documents.push(text.clone()),
        }
    }
    let mut prompts = encode(tokenizer, &prompts)?.into_iter();
    let mut documents = tokenizer.encode_batch(&documents)?.into_iter();
    let (mut requests, mut counts) = (Vec::new(), Vec::with_capacity(items.len()));
    for item in items {
        let before = requests.len();
        match item {
            Item::Choice { options, .. } => requests.extend(prompts.by_ref().take(options.len())),
            Item::Continuation(_) => requests.extend(prompts.next()),
            Item::Document { .. } => {
                let ids = documents.next().unwrap_or_default();
                requests.extend(rolling_windows(&ids, context));
            }
        }
        counts.push(requests.len() - before);
    }
    Ok(Requests { requests, counts })
}

/// Puts together what was found for `requests`: an option or continuation each for itself, the
/// windows of a document in one sum.
pub fn conclude(task: Task, items: &[Item], requests: &Requests, scored: &[Scored]) -> Evaluation {
    let mut rest = scored;
    let one = |(item, &count): (&Item, &usize)| {
        let (own, after) = rest.split_at(count);
        rest = after;
        let log_likelihoods: Vec<f64> = own.iter().map(Scored::sum).collect();
        match item {
            Item::Document { .. } => {
                let total = log_likelihoods.iter().sum();
                let greedy = own.iter().all(|scored| scored.greedy);
                ItemScore { log_likelihoods: vec![total], greedy: vec![greedy] }
            }
            _ => {
                let greedy = own.iter().map(|scored| scored.greedy).collect();
                ItemScore { log_likelihoods, greedy }
            }
        }
    };
    let found: Vec<ItemScore> = items.iter().zip(&requests.counts).map(one).collect();
    Evaluation {
        task,
        scores: scores(task, items, &found),
        items: found,
        tokens: scored.iter().map(|scored| scored.log_probs.len()).sum(),
    }
}

/// Evaluates a model on the items of a task; `done` is told how many requests each batch finishes.
///
/// # Errors
/// When a text cannot be encoded, or [`Scorer::score`] fails.
pub fn evaluate(
    task: Task,
    items: &[Item],
    scorer: &Scorer<'_>,
    tokenizer: &Tokenizer,
    done: impl FnMut(usize),
) -> Result<Evaluation, EvalError> {
    let requests = requests(items, tokenizer, scorer.context())?;
    let scored = scorer.score(&requests.requests, done)?;
    Ok(conclude(task, items, &requests, &scored))
}
