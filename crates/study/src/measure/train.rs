//! The training of a run in its folder.

use std::rc::Rc;

use block_transformer_checkpoint::{Checkpoint, RunFolder};
use block_transformer_cost::training_flops;
use block_transformer_training::{TrainConfig, TrainingRun};
use block_transformer_zoo::{Family, FamilyConfig, ModelConfig};
use serde_json::json;

use crate::error::StudyError;
use crate::execute::{Laboratory, StudyEvent};
use crate::ledger::Row;
use crate::measure::Subject;
use crate::measurement::TRAIN;
use crate::plan::predicted_seconds;

/// Bytes per value of KV caches.
const CACHE_BYTES: usize = 4;

/// Trains a run, or opens it if it is trained. `None` if it was interrupted.
pub(crate) fn train(
    laboratory: &Laboratory,
    subject: &Subject<'_>,
) -> Result<Option<Row>, StudyError> {
    let (run, settings) = (subject.run, &laboratory.settings);
    let mut config = TrainConfig {
        out: settings.out.join(&run.id),
        device: settings.device,
        corpus: settings.corpus.clone().unwrap_or_default(),
        ..run.config.clone()
    };
    if let Some(from) = &run.from {
        let folder = RunFolder::new(&settings.out.join(from));
        let newest = folder.checkpoints().pop().unwrap_or_else(|| settings.out.join(from));
        let source = Checkpoint::open_model(&newest)?;
        config.from = newest.display().to_string();
        config.model = config.model.with_vocab_size(source.config.vocab_size());
    }
    let resume = RunFolder::new(&config.out).is_used();
    let device = &laboratory.device;
    let training = TrainingRun::open(&config, subject.corpus, resume, device)?;
    let observer = Rc::clone(&laboratory.observer);
    let training = training.observe(move |event| {
        (observer.borrow_mut())(&StudyEvent::Training(event.clone()));
    });
    let interrupter = laboratory.interrupter.clone();
    let outcome = training.launch(|training| training.with_interrupter(interrupter))?;
    if outcome.interrupted {
        return Ok(None);
    }
    let last = outcome.metrics.last();
    let tokens = last.map_or(0, |row| row.tokens);
    let seconds = match settings.clock.is_real() {
        true => last.map_or(0.0, |row| row.seconds),
        false => predicted_seconds(&config)?,
    };
    let model: ModelConfig = outcome.model.config();
    let token_flops = training_flops(&model, config.context);
    let values = json!({
        "steps": outcome.step,
        "tokens": tokens,
        "train_loss": outcome.train_loss,
        "held_out_loss": outcome.validation_loss,
        "skipped_steps": outcome.skipped_steps,
        "tokens_per_second": run.tokens() as f64 / seconds,
        "parameters": model.num_params(),
        "non_embedding": model.num_params_non_embedding(),
        "token_flops": token_flops,
        "training_flops": token_flops * run.tokens() as f64,
        "kv_bytes_per_token": model.kv_bytes_per_token(CACHE_BYTES),
    });
    Ok(Some(Row { seconds, ..subject.row(laboratory, TRAIN, values) }))
}
