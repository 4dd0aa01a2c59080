//! The evaluation of one checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use block_transformer_checkpoint::Checkpoint;
use block_transformer_collectives::Collective;
use block_transformer_evaluation::documents::free_label;
use block_transformer_evaluation::needle::{
    Haystack, NEEDLE, NeedleGrid, NeedleSettings, needle_metrics,
};
use block_transformer_evaluation::tasks::{
    CORPUS, EncodedTask, SessionInput, TaskReport, TaskSession, TimedEvaluation, check_tokenizer,
    document_scores, documents_csv, documents_table,
};
use block_transformer_evaluation::{BATCH_TOKENS, Scorer};
use block_transformer_files::write;
use block_transformer_text::Tokenizer;
use block_transformer_zoo::family::CacheFormat;
use block_transformer_zoo::{Family, FamilyConfig};
use burn::tensor::Device;

use super::settings::Settings;
use super::{JSON, LoadedTask, with_flag};
use crate::commands::inputs::{of_checkpoint, open_checkpoint};
use crate::progress::progress;

pub(super) const MARKDOWN: &str = "results.md";
const DOCUMENTS: &str = "documents.csv";
/// Documents in the printed table.
const SHOWN: usize = 20;

/// A checkpoint of --checkpoint.
pub(super) struct OpenedCheckpoint {
    /// The name in results, which no other checkpoint has.
    pub label: String,
    given: PathBuf,
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    context: usize,
}

/// The text and the samples of the task `needle`.
pub(super) struct Needles {
    pub haystack: Haystack,
    pub settings: NeedleSettings,
}

/// The results of a checkpoint.
pub(super) struct Outcome {
    pub report: TaskReport,
    /// The documents of --corpus as a table.
    pub documents: Option<String>,
    pub grid: Option<NeedleGrid>,
}

impl OpenedCheckpoint {
    /// Opens the checkpoints of --checkpoint.
    pub(super) fn all(settings: &Settings) -> Result<Vec<Self>> {
        let mut all: Vec<Self> = Vec::new();
        for given in &settings.checkpoint {
            let checkpoint = open_checkpoint(given)?;
            let tokenizer = checkpoint.tokenizer()?;
            check_tokenizer(&tokenizer, checkpoint.config.vocab_size())
                .with_context(|| format!("--checkpoint {}", given.display()))?;
            let label =
                free_label(&checkpoint.dir, |label| all.iter().any(|one| one.label == label));
            // a run may have trained on longer windows than its preset names
            let trained = checkpoint.state.trained_context;
            let of_model = trained.unwrap_or(checkpoint.config.max_position_embeddings());
            let context = settings.context.unwrap_or(of_model);
            all.push(Self { label, given: given.clone(), checkpoint, tokenizer, context });
        }
        let has_blocks = all.iter().any(|one| one.checkpoint.config.block_length() > 1);
        if let (Some(alignment), false) = (settings.alignment, has_blocks) {
            anyhow::bail!("--alignment {alignment}: the model has no blocks; leave the flag out");
        }
        Ok(all)
    }

    /// Tokens of context.
    pub(super) fn context(&self) -> usize {
        self.context
    }

    /// The folder of the results.
    pub(super) fn folder(&self, out: &Path, several: bool) -> PathBuf {
        if several { out.join(&self.label) } else { out.into() }
    }

    fn flag(&self) -> String {
        format!("--checkpoint {}", self.given.display())
    }

    /// Encodes the items of all tasks.
    pub(super) fn encode(
        &self,
        loaded: &[LoadedTask],
        needles: Option<&Needles>,
    ) -> Result<Vec<EncodedTask>> {
        let mut tasks = Vec::new();
        for LoadedTask { task, items } in loaded {
            let name = &task.name;
            let flag = || format!("{}, {name}", self.flag());
            let encoded =
                EncodedTask::new(task.clone(), items.clone(), &self.tokenizer, self.context);
            let encoded = encoded.map_err(with_flag).with_context(flag)?;
            encoded.check(self.context).map_err(with_flag).with_context(flag)?;
            if name == CORPUS {
                encoded.check_documents(&self.tokenizer).map_err(with_flag).with_context(flag)?;
            }
            tasks.push(encoded);
        }
        if let Some(Needles { haystack, settings }) = needles {
            let flag = || format!("{}, {NEEDLE}", self.flag());
            let items = haystack.items(settings, &self.tokenizer);
            let items = items.map_err(with_flag).with_context(flag)?;
            let encoded = EncodedTask::new(needle_metrics(), items, &self.tokenizer, self.context);
            let encoded = encoded.map_err(with_flag).with_context(flag)?;
            let (longest, most) = (encoded.longest(), self.context + 1);
            ensure!(
                longest <= most,
                "{}: a text of {} tokens makes a prompt of {longest}, and the context has {most}; give smaller \
                 --needle-lengths, or a larger --context",
                flag(),
                settings.lengths.iter().max().unwrap_or(&0)
            );
            tasks.push(encoded);
        }
        Ok(tasks)
    }

    /// The input of the evaluation, apart from its tasks.
    pub(super) fn input(&self, settings: &Settings) -> Result<SessionInput> {
        Ok(SessionInput {
            settings: settings.of_scores()?,
            weights: self.checkpoint.weights_sha256.clone(),
            tokenizer: self.tokenizer.fingerprint()?,
        })
    }

    /// Evaluates the tasks on all ranks and writes the report to the folder `out` after each of them. `save` gets the
    /// items of all tasks that are done, one line of JSON each.
    pub(super) fn evaluate(
        &self,
        settings: &Settings,
        tasks: &[EncodedTask],
        needles: Option<&Needles>,
        (out, resume): (Option<&Path>, bool),
        (ranks, device): (&Arc<dyn Collective>, &Device),
        save: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Outcome> {
        let input = self.input(settings)?;
        let resume = resume && out.is_some_and(TaskSession::is_begun);
        let session = TaskSession::begin_on(ranks.clone(), out, input, tasks, resume);
        let mut session = session.map_err(with_flag)?;
        let precision = settings.precision();
        let checkpoint = &self.checkpoint;
        let model = checkpoint.load_model(device).map_err(of_checkpoint)?;
        let model = model.with_precision(precision).prepared();
        let batch_tokens = settings.batch_tokens.unwrap_or(BATCH_TOKENS);
        let mut scorer = Scorer::new(&model)
            .with_batch_tokens(batch_tokens)?
            .with_context(self.context)?
            .with_alignment(settings.alignment.unwrap_or_default());
        if precision.cache() != CacheFormat::F32 {
            scorer = scorer.with_cache(precision.cache()).context("--cache")?;
        }
        let mut report = TaskReport {
            checkpoint: checkpoint.dir.display().to_string(),
            family: checkpoint.config.family().into(),
            non_embedding_parameters: checkpoint.config.num_params_non_embedding(),
            step: checkpoint.state.step,
            context: scorer.context(),
            precision,
            limit: settings.limit,
            shots: settings.shots.unwrap_or(0),
            alignment: settings.alignment.unwrap_or_default(),
            tasks: Vec::new(),
        };
        let (mut records, mut documents, mut grid) = (String::new(), None, None);
        for task in tasks {
            let name = &task.task.name;
            let timed = session.evaluate(task, &scorer, &mut progress(name));
            let timed = timed.map_err(with_flag);
            let timed = timed.with_context(|| format!("{}, {name}", self.flag()))?;
            let TimedEvaluation { evaluation, seconds } = &timed;
            let (items, tokens) = (evaluation.items.len(), evaluation.tokens);
            note!("{name}: {items} items, {tokens} tokens scored in {seconds:.1} s");
            if settings.items.is_some() {
                records += &evaluation.records(&task.items, &self.label)?;
                save(&records)?;
            }
            if name == CORPUS {
                let scores = document_scores(evaluation, &task.items);
                if let Some(out) = out {
                    write(&out.join(DOCUMENTS), &documents_csv(&scores)?)?;
                }
                let more = scores.len().saturating_sub(SHOWN);
                let more = match (more, out) {
                    (0, _) => String::new(),
                    (more, Some(out)) => {
                        format!("{more} more documents in {}\n", out.join(DOCUMENTS).display())
                    }
                    (more, None) => format!("{more} more documents; --out writes them to a file\n"),
                };
                documents = Some(documents_table(&scores, SHOWN) + &more);
            }
            if let Some(needles) = needles.filter(|_| name == NEEDLE) {
                grid =
                    Some(NeedleGrid::new(&self.label, &needles.settings, &task.items, evaluation));
            }
            report.tasks.push(timed);
            if let Some(out) = out {
                write(&out.join(MARKDOWN), report.to_markdown().as_bytes())?;
                write(&out.join(JSON), report.to_json().as_bytes())?;
            }
        }
        Ok(Outcome { report, documents, grid })
    }
}
