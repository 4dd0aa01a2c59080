//! Checks before a run begins, and the shape of its model.

use block_transformer_checkpoint::RunFolder;
use block_transformer_text::Tokenizer;
use block_transformer_zoo::family::InvalidConfig;
use block_transformer_zoo::{FamilyConfig, ModelConfig, Precision};
use burn::tensor::Device;

use crate::config::TrainConfig;
use crate::error::TrainError;

/// Vocabularies are rounded up to a multiple of this value, with which matrix products are faster.
const VOCAB_MULTIPLE: usize = 64;

/// The configuration of `model` over the ids of `tokenizer`.
///
/// # Errors
/// When the sizes do not fit together.
pub fn model_config(model: &ModelConfig, tokenizer: &Tokenizer) -> Result<ModelConfig, TrainError> {
    let vocab = tokenizer.vocab_size().next_multiple_of(VOCAB_MULTIPLE);
    let config = model.clone().with_vocab_size(vocab);
    config.check()?;
    Ok(config)
}

/// The configuration of the model that a run trains: that of the weights that it begins with, or that of its
/// configuration over the ids of `tokenizer`.
///
/// # Errors
/// When the sizes do not fit together, or the model has fewer ids than the tokenizer.
pub fn run_model(config: &TrainConfig, tokenizer: &Tokenizer) -> Result<ModelConfig, TrainError> {
    if config.from.is_empty() {
        return model_config(&config.model, tokenizer);
    }
    config.model.check()?;
    let (ids, needed) = (config.model.vocab_size(), tokenizer.vocab_size());
    if needed <= ids {
        return Ok(config.model.clone());
    }
    let reason = format!("{ids} is below the {needed} ids of the tokenizer");
    Err(InvalidConfig::new("vocab_size", reason).into())
}

/// Checks that a run can begin, or be resumed, in `config.out`. This is cheap: call it before a
/// corpus is prepared.
///
/// # Errors
/// When a new run finds a run in the folder, or a resumed run finds none, one without its
/// configuration or one that began with another configuration.
pub fn check_folder(config: &TrainConfig, resume: bool) -> Result<(), TrainError> {
    let folder = RunFolder::new(&config.out);
    let begun = folder.config_path();
    match (resume, folder.is_used()) {
        (false, true) => Err(TrainError::FolderInUse(config.out.clone())),
        (true, false) => Err(TrainError::NothingToResume(config.out.clone())),
        (true, true) if !begun.exists() => Err(TrainError::NoConfiguration(begun)),
        (true, true) => TrainConfig::read(&begun)?.check_resumes(config),
        (false, false) => Ok(()),
    }
}

/// Checks that `devices`, those of `config`, have the format of its precision. This is cheap: call it before
/// a corpus is prepared.
///
/// # Errors
/// When a device lacks it.
pub fn check_formats<'a>(
    config: &TrainConfig,
    devices: impl Iterator<Item = &'a Device>,
) -> Result<(), TrainError> {
    let mut named = config.all_devices().iter().zip(devices);
    let lacks_bf16 = named.find(|(name, device)| !name.multiplies_bf16(device));
    let (Precision::Bf16, Some((name, _))) = (config.precision, lacks_bf16) else { return Ok(()) };
    let range = format!("f32 on the device {name}, which has no products in bf16");
    Err(TrainError::OutOfRange { key: "precision", value: "bf16".into(), range })
}
