//! Tasks: their items, prompts and metrics, as in the EleutherAI evaluation harness 0.4.13, and tasks of users.

mod arc;
mod choice;
mod corpus;
mod encode;
mod evaluate;
mod hellaswag;
mod item;
mod lambada;
mod lines;
mod metrics;
mod own;
mod piqa;
mod python;
mod record;
mod report;
mod sciq;
mod scores;
mod session;
mod shots;
mod task;
mod template;
mod wikitext;
mod winogrande;

pub use choice::{Shots, TaskChoice};
pub use corpus::{
    CORPUS, DocumentScore, corpus_items, corpus_metrics, document_scores, documents_csv,
    documents_table,
};
pub use encode::{check_tokenizer, encode};
pub use evaluate::{Evaluation, ItemRequests, TaskMetrics, evaluate};
pub use item::{Item, Prompt};
pub(crate) use metrics::chosen;
pub use metrics::{ItemScore, Metric, Score};
pub use own::OwnTask;
pub use report::{TaskReport, TimedEvaluation};
pub use scores::task_scores;
pub use session::{EncodedTask, SessionInput, TaskSession};
pub use task::Task;
