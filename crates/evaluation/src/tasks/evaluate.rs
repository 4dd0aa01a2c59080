//! Evaluation of a model on a task.

use block_transformer_family::Family;
use block_transformer_text::Tokenizer;

use crate::error::EvalError;
use crate::score::{Request, Scored, Scorer, rolling_windows};
use crate::tasks::encode::encode;
use crate::tasks::item::{Item, Prompt};
use crate::tasks::metrics::{ItemScore, Score, scores};
use crate::tasks::task::Task;

/// The result of evaluating a model on a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The task.
    pub task: Task,
    /// Scores of each item's continuations.
    pub items: Vec<ItemScore>,
    /// Metrics over all items.
    pub scores: Vec<Score>,
    /// Tokens that were scored.
    pub tokens: usize,
}

/// Evaluates a model on items of a task. After each batch, `progress` gets the number of requests
/// that are done and the number of all requests.
///
/// # Errors
/// When a text cannot be encoded, or [`Scorer::score`] fails.
pub fn evaluate<M: Family>(
    task: Task,
    items: &[Item],
    scorer: &Scorer<M>,
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Evaluation, EvalError> {
    let requests = ItemRequests::new(items, tokenizer, scorer.context())?;
    let scored = scorer.score(&requests.requests, progress)?;
    Ok(requests.evaluation(task, items, &scored))
}

/// The requests with which the items of a task are scored. [`evaluate`] makes the requests, scores
/// them and computes metrics; each of these steps can also be called alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemRequests {
    /// The requests of all items, item after item.
    pub requests: Vec<Request>,
    /// Number of requests of each item.
    pub counts: Vec<usize>,
}

impl ItemRequests {
    /// Encodes items. Documents are split into windows of `context` tokens.
    ///
    /// # Errors
    /// When a text cannot be encoded.
    pub fn new(items: &[Item], tokenizer: &Tokenizer, context: usize) -> Result<Self, EvalError> {
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
                Item::Choice { options, .. } => {
                    requests.extend(prompts.by_ref().take(options.len()));
                }
                Item::Continuation(_) => requests.extend(prompts.next()),
                Item::Document { .. } => {
                    let ids = documents.next().unwrap_or_default();
                    requests.extend(rolling_windows(&ids, context));
                }
            }
            counts.push(requests.len() - before);
        }
        Ok(Self { requests, counts })
    }

    /// Computes the metrics of `task` from the scores of all requests. The windows of a document
    /// are summed.
    ///
    /// # Panics
    /// When there are fewer scores than requests.
    pub fn evaluation(&self, task: Task, items: &[Item], scored: &[Scored]) -> Evaluation {
        let mut rest = scored;
        let one = |(item, &count): (&Item, &usize)| {
            let (own, after) = rest.split_at(count);
            rest = after;
            let mut log_likelihoods: Vec<f64> = own.iter().map(Scored::sum).collect();
            let mut greedy: Vec<bool> = own.iter().map(|scored| scored.greedy).collect();
            if matches!(item, Item::Document { .. }) {
                log_likelihoods = vec![log_likelihoods.iter().sum()];
                greedy = vec![!greedy.contains(&false)];
            }
            ItemScore { log_likelihoods, greedy }
        };
        let found: Vec<ItemScore> = items.iter().zip(&self.counts).map(one).collect();
        Evaluation {
            task,
            scores: scores(task.metrics(), items, &found),
            items: found,
            tokens: scored.iter().map(|scored| scored.log_probs.len()).sum(),
        }
    }
}
