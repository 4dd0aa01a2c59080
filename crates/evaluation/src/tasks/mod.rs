//! Zero-shot tasks: their items, prompts and metrics, as in the EleutherAI evaluation harness 0.4.

mod arc;
mod encode;
mod evaluate;
mod hellaswag;
mod item;
mod lambada;
mod lines;
mod metrics;
mod piqa;
mod python;
mod report;
mod task;
mod wikitext;
mod winogrande;

pub use encode::{check_tokenizer, encode};
pub use evaluate::{Evaluation, ItemRequests, evaluate};
pub use item::{Item, Prompt};
pub use metrics::{ItemScore, Metric, Score};
pub use report::{TaskReport, TimedEvaluation};
pub use task::Task;
