//! Evaluation of a model on a task.

use block_transformer_family::Family;
use block_transformer_text::Tokenizer;

use crate::error::EvalError;
use crate::score::{Request, Scored, Scorer, Sum, rolling_windows};
use crate::tasks::encode::encode;
use crate::tasks::item::{Item, Prompt};
use crate::tasks::metrics::{ItemScore, Metric, Score, scores};
use crate::tasks::task::Task;

/// The name of a task, and the metrics that are reported for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskMetrics {
    /// The name.
    pub name: String,
    /// The metrics.
    pub metrics: Vec<Metric>,
}

impl From<Task> for TaskMetrics {
    fn from(task: Task) -> Self {
        Self { name: task.name().into(), metrics: task.metrics().into() }
    }
}

/// The result of evaluating a model on a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The task.
    pub task: TaskMetrics,
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
    task: impl Into<TaskMetrics>,
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
    pub fn evaluation(
        &self,
        task: impl Into<TaskMetrics>,
        items: &[Item],
        scored: &[Scored],
    ) -> Evaluation {
        let sums: Vec<Sum> = scored.iter().map(Sum::from).collect();
        self.evaluation_of_sums(task.into(), items, &sums)
    }

    /// [`evaluation`](Self::evaluation) from the sums of the scores.
    pub(crate) fn evaluation_of_sums(
        &self,
        task: TaskMetrics,
        items: &[Item],
        sums: &[Sum],
    ) -> Evaluation {
        let mut rest = sums;
        let one = |(item, &count): (&Item, &usize)| {
            let (own, after) = rest.split_at(count);
            rest = after;
            let mut log_likelihoods: Vec<f64> = own.iter().map(|sum| sum.log_likelihood).collect();
            let mut greedy: Vec<bool> = own.iter().map(|sum| sum.greedy).collect();
            let mut tokens: Vec<usize> = own.iter().map(|sum| sum.tokens).collect();
            if matches!(item, Item::Document { .. }) {
                log_likelihoods = vec![log_likelihoods.iter().sum()];
                greedy = vec![!greedy.contains(&false)];
                tokens = vec![tokens.iter().sum()];
            }
            ItemScore { log_likelihoods, greedy, tokens }
        };
        let found: Vec<ItemScore> = items.iter().zip(&self.counts).map(one).collect();
        Evaluation {
            scores: scores(&task.metrics, items, &found),
            task,
            items: found,
            tokens: sums.iter().map(|sum| sum.tokens).sum(),
        }
    }
}
