//! Evaluations of several tasks, from the start or from the point where a process was killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block_transformer_collectives::{Alone, Collective, check_same, of_rank_0};
use block_transformer_family::Family;
use block_transformer_text::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::EvalError;
use crate::folder::ResultFolder;
use crate::score::{Request, Scorer, Sum};
use crate::tasks::evaluate::{ItemRequests, TaskMetrics};
use crate::tasks::item::Item;
use crate::tasks::report::TimedEvaluation;

/// The file that records the input of an evaluation.
const BEGUN: &str = "evaluation.json";
/// The file with the scores of each batch that is done.
const SCORES: &str = "scores.jsonl";
/// Time between syncs of the scores to the disk. A killed process loses the current batch only; a machine that
/// is switched off can lose the batches of this time.
const SYNC_EVERY: Duration = Duration::from_secs(2);

/// A task whose items are encoded.
#[derive(Clone, Debug)]
pub struct EncodedTask {
    /// The name and the metrics.
    pub task: TaskMetrics,
    /// The items.
    pub items: Arc<[Item]>,
    requests: ItemRequests,
    seconds: f64,
}

impl EncodedTask {
    /// Encodes the items of a task for a scorer with `context` tokens of context.
    ///
    /// # Errors
    /// When a text cannot be encoded.
    pub fn new(
        task: impl Into<TaskMetrics>,
        items: impl Into<Arc<[Item]>>,
        tokenizer: &Tokenizer,
        context: usize,
    ) -> Result<Self, EvalError> {
        let (start, items) = (Instant::now(), items.into());
        let requests = ItemRequests::new(&items, tokenizer, context)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Self { task: task.into(), items, requests, seconds })
    }

    /// Checks that no continuation is longer than `context`.
    ///
    /// # Errors
    /// [`EvalError::TooLong`] for the first that is.
    pub fn check(&self, context: usize) -> Result<(), EvalError> {
        let tokens = self.requests.requests.iter().map(|request| request.continuation.len());
        match tokens.max() {
            Some(tokens) if tokens > context => Err(EvalError::TooLong { tokens, context }),
            _ => Ok(()),
        }
    }

    /// Tokens of the longest request, context and continuation together.
    pub fn longest(&self) -> usize {
        let tokens = |request: &Request| request.context.len() + request.continuation.len();
        self.requests.requests.iter().map(tokens).max().unwrap_or(0)
    }

    /// Checks that the tokens of each document decode to its text. The bits per byte of other tokens would
    /// describe another text.
    ///
    /// # Errors
    /// When the tokens of a document decode to another text.
    pub fn check_documents(&self, tokenizer: &Tokenizer) -> Result<(), EvalError> {
        let mut rest = &self.requests.requests[..];
        for (i, (item, &count)) in self.items.iter().zip(&self.requests.counts).enumerate() {
            let (own, after) = rest.split_at(count);
            rest = after;
            let Item::Document { text, .. } = item else { continue };
            let ids: Vec<u32> = own.iter().flat_map(|r| &r.continuation).copied().collect();
            if !tokenizer.decodes_to(&ids, text) {
                return Err(EvalError::Lossy(i + 1));
            }
        }
        Ok(())
    }

    /// SHA-256 of the metrics and of the tokens of all requests.
    fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        self.task.metrics.iter().for_each(|metric| hash.update(metric.name()));
        for request in &self.requests.requests {
            for ids in [&request.context, &request.continuation] {
                hash.update((ids.len() as u64).to_le_bytes());
                ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            }
        }
        format!("{:x}", hash.finalize())
    }
}

/// The input of an evaluation, apart from its tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionInput {
    /// The settings of the caller.
    pub settings: Value,
    /// SHA-256 of the weights file.
    pub weights: String,
    /// Fingerprint of the tokenizer.
    pub tokenizer: u32,
}

impl SessionInput {
    /// Checks that all ranks have this input and these tasks. [`TaskSession::begin_on`] does it as well.
    ///
    /// # Errors
    /// When a rank has other input or has left.
    pub fn check_same(
        &self,
        ranks: &dyn Collective,
        tasks: &[EncodedTask],
    ) -> Result<(), EvalError> {
        if ranks.size() == 1 {
            return Ok(());
        }
        let mut properties = vec![
            ("the version", env!("CARGO_PKG_VERSION").into()),
            ("the checkpoint", self.weights.clone()),
            ("the tokenizer", self.tokenizer.to_string()),
            ("the settings", self.settings.to_string()),
            ("the number of tasks", tasks.len().to_string()),
        ];
        let items =
            |task: &EncodedTask| ("the items", format!("{} {}", task.task.name, task.sha256()));
        properties.extend(tasks.iter().map(items));
        Ok(check_same(ranks, &properties)?)
    }
}

/// The record of an evaluation, which can only be resumed with the same input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Begun {
    #[serde(flatten)]
    input: SessionInput,
    tasks: Vec<(String, String)>,
}

/// The scores of a batch, in the order of scoring.
#[derive(Serialize, Deserialize)]
struct BatchRow {
    task: String,
    /// Seconds of the batch.
    seconds: f64,
    scores: Vec<Sum>,
}

/// The scores of a task that are done, and their seconds.
type Done = (Vec<Sum>, f64);

/// An evaluation of several tasks, whose scores are kept in a folder batch by batch.
pub struct TaskSession {
    ranks: Arc<dyn Collective>,
    /// `None` on ranks that write nothing.
    folder: Option<ResultFolder>,
    done: BTreeMap<String, Done>,
}

impl TaskSession {
    /// An evaluation that is kept in memory only.
    pub fn in_memory() -> Self {
        Self { ranks: Arc::new(Alone), folder: None, done: BTreeMap::new() }
    }

    /// An evaluation of `tasks` in the folder `dir`. With `resume`, the evaluation in the folder goes on, and ends
    /// with the same scores as one that was not stopped.
    ///
    /// # Errors
    /// - Without `resume`, the folder holds an evaluation already.
    /// - With `resume`, the folder does not hold an evaluation of the same input.
    /// - A file cannot be read or written.
    pub fn begin(
        dir: &Path,
        input: SessionInput,
        tasks: &[EncodedTask],
        resume: bool,
    ) -> Result<Self, EvalError> {
        Self::begin_on(Arc::new(Alone), Some(dir), input, tasks, resume)
    }

    /// An evaluation that several ranks share, in a folder ([`begin`](Self::begin)) or in memory. Rank 0 reads and
    /// writes the folder; the number of ranks may change when the evaluation is resumed.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin), and when a rank has another input or has left.
    pub fn begin_on(
        ranks: Arc<dyn Collective>,
        dir: Option<&Path>,
        input: SessionInput,
        tasks: &[EncodedTask],
        resume: bool,
    ) -> Result<Self, EvalError> {
        input.check_same(&*ranks, tasks)?;
        let folder = dir.filter(|_| ranks.rank() == 0).map(ResultFolder::new);
        let begin = || match &folder {
            Some(folder) => begin(folder, input, tasks, resume),
            None => Ok(BTreeMap::new()),
        };
        let done = of_rank_0(&*ranks, begin)?;
        Ok(Self { ranks, folder, done })
    }

    /// The settings with which the evaluation in the folder `dir` was begun.
    ///
    /// # Errors
    /// When there is no evaluation, or its file is damaged.
    pub fn settings(dir: &Path) -> Result<Value, EvalError> {
        Ok(ResultFolder::new(dir).begun::<Begun>(BEGUN)?.input.settings)
    }

    /// Whether the folder `dir` holds an evaluation.
    pub fn is_begun(dir: &Path) -> bool {
        ResultFolder::new(dir).file(BEGUN).exists()
    }

    /// Evaluates a task, from the first batch that is not done. After each batch, `progress` gets the number of
    /// requests that are done and the number of all requests.
    ///
    /// # Errors
    /// When [`Scorer::score`] fails, or the scores cannot be written.
    pub fn evaluate<M: Family>(
        &mut self,
        task: &EncodedTask,
        scorer: &Scorer<M>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<TimedEvaluation, EvalError> {
        let EncodedTask { task: TaskMetrics { name, .. }, items, requests, .. } = task;
        let (mut scores, mut seconds) = self.done.remove(name).unwrap_or_default();
        let all = &requests.requests;
        let order = scorer.order(all)?;
        let (mut begun, mut synced) = (Instant::now(), Instant::now());
        scorer.score_batches_on(&*self.ranks, all, scores.len(), &mut |batch| {
            let batch: Vec<Sum> = batch.iter().map(|(_, scored)| Sum::from(scored)).collect();
            let took = begun.elapsed().as_secs_f64();
            seconds += took;
            scores.extend(&batch);
            if let Some(folder) = &self.folder {
                let sync = synced.elapsed() >= SYNC_EVERY || scores.len() == all.len();
                let row = BatchRow { task: name.clone(), seconds: took, scores: batch };
                folder.append(SCORES, &row, sync)?;
                if sync {
                    synced = Instant::now();
                }
            }
            progress(scores.len() as u64, all.len() as u64);
            begun = Instant::now();
            Ok(())
        })?;
        let mut sums = vec![Sum::default(); all.len()];
        for (i, sum) in order.into_iter().zip(scores) {
            sums[i] = sum;
        }
        let evaluation = requests.evaluation_of_sums(task.task.clone(), items, &sums);
        Ok(TimedEvaluation { evaluation, seconds: seconds + task.seconds })
    }
}

/// Begins or resumes an evaluation in `folder`. Returns the scores that are done, by task.
fn begin(
    folder: &ResultFolder,
    input: SessionInput,
    tasks: &[EncodedTask],
    resume: bool,
) -> Result<BTreeMap<String, Done>, EvalError> {
    let named = tasks.iter().map(|task| (task.task.name.clone(), task.sha256()));
    let begun = Begun { input, tasks: named.collect() };
    let mut done: BTreeMap<String, Done> = BTreeMap::new();
    if !resume {
        folder.start(BEGUN, &begun, &[SCORES])?;
        return Ok(done);
    }
    folder.sweep();
    check(folder, &folder.begun(BEGUN)?, &begun)?;
    for BatchRow { task, seconds, scores } in folder.lines::<BatchRow>(SCORES)? {
        let (all, time) = done.entry(task).or_default();
        all.extend(scores);
        *time += seconds;
    }
    for (name, (scores, _)) in &done {
        let task = tasks.iter().find(|task| task.task.name == *name);
        let most = task.map_or(0, |task| task.requests.requests.len());
        if scores.len() > most {
            let reason = format!("{} scores of the task {name}, which has {most}", scores.len());
            return Err(folder.damaged(SCORES, &reason));
        }
    }
    Ok(done)
}

fn check(folder: &ResultFolder, then: &Begun, now: &Begun) -> Result<(), EvalError> {
    if then.input.weights != now.input.weights {
        return Err(folder.changed("the checkpoint has changed since the evaluation began".into()));
    }
    let mut tasks = then.tasks.iter().zip(&now.tasks);
    if let Some(((name, _), _)) = tasks.find(|(then, now)| then != now) {
        let reason =
            format!("the task {name} or its items have changed since the evaluation began");
        return Err(folder.changed(reason));
    }
    let others = "the settings or the tokenizer have changed since the evaluation began";
    if then == now { Ok(()) } else { Err(folder.changed(others.into())) }
}
