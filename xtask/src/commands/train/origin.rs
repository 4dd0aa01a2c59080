//! The weights that a run begins with: `--from` of `train` and `uptrain`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use block_transformer_checkpoint::Checkpoint;
use block_transformer_datasets::TokenizerChoice;
use block_transformer_text::Tokenizer;
use block_transformer_training::{Origin, TrainConfig, Uptrain};
use block_transformer_zoo::{FamilyConfig, ModelConfig, presets};

use super::flags::Flags;
use crate::commands::import;
use crate::program;

/// Completes the flags of a run that begins with given weights: the model and the tokenizer are those of the weights.
pub(super) fn settle(flags: &mut Flags, file: Option<&Path>) -> Result<()> {
    let Some(given) = flags.from.clone() else {
        if let Some(method) = flags.uptrain {
            ensure!(
                method == Uptrain::Off,
                "--from: needed; give the checkpoint of a vanilla model"
            );
        }
        return Ok(());
    };
    let folder = checkpoint_of(&given)?;
    let opened = Checkpoint::open_model(&folder).map_err(|error| {
        let program = program::name();
        anyhow!(
            "--from {error:#}; give a checkpoint or the folder of a run; weights of other programs become one with \
             `{program} import --from {given}`"
        )
    })?;
    flags.from = Some(folder.display().to_string());
    let own = opened.tokenizer()?;
    let saved = opened.dir.join("tokenizer.json");
    let choice = match own {
        Tokenizer::Bytes => TokenizerChoice::Bytes,
        Tokenizer::HuggingFace(_) => TokenizerChoice::File(saved),
    };
    if let Some(asked) = flags.tokenizer.take() {
        check_asked(&asked, &own, &given)?;
    }
    flags.tokenizer = Some(choice);
    let method = flags.uptrain.unwrap_or_default();
    let model = Origin::new(opened.clone(), method).model().context("--from")?;
    if flags.preset.is_none() && file.is_none() {
        flags.preset = Some(preset_for(&opened, &model)?);
    }
    if let (Some(preset), true) = (&flags.preset, method != Uptrain::Off) {
        check_preset(preset, &model)?;
    }
    flags.model = Some(model);
    Ok(())
}

/// The folder of a checkpoint that `given` names. Published weights and repositories of the hub are imported into
/// `weights/NAME` first.
fn checkpoint_of(given: &str) -> Result<PathBuf> {
    let path = Path::new(given);
    if path.exists() {
        return Ok(path.into());
    }
    let imported = import::default_out(given);
    if imported.exists() {
        note!("{given} was imported into {} before", imported.display());
    } else {
        note!("importing {given} into {}", imported.display());
        import::published(given, &imported)?;
    }
    Ok(imported)
}

/// Refuses a tokenizer that is not that of the weights.
fn check_asked(asked: &TokenizerChoice, own: &Tokenizer, given: &str) -> Result<()> {
    let same = match asked {
        TokenizerChoice::Bytes => matches!(own, Tokenizer::Bytes),
        TokenizerChoice::File(path) => {
            let asked = Tokenizer::load(path).context("--tokenizer")?;
            asked.fingerprint()? == own.fingerprint()?
        }
        TokenizerChoice::Bpe(_) => false,
    };
    ensure!(
        same,
        "--from {given}: the weights know the ids of their own tokenizer, and another one gives ids other meanings; \
         leave out the flag that chooses a tokenizer"
    );
    Ok(())
}

/// The preset whose hyper-parameters are the defaults: one of the model's shape, or that of the run that made the
/// weights.
fn preset_for(opened: &Checkpoint, model: &ModelConfig) -> Result<String> {
    let same = |preset: &&block_transformer_zoo::Preset| {
        preset.model.clone().with_vocab_size(model.vocab_size()) == *model
    };
    if let Some(preset) = presets().iter().find(same) {
        return Ok(preset.name.clone());
    }
    let trained = opened.state.train.as_ref().and_then(|train| train.get("preset")?.as_str());
    trained.map(String::from).ok_or_else(|| {
        anyhow!(
            "--preset: no preset has the shape of these weights; name one whose learning rate, batch and steps are the \
             defaults (`{} presets` lists them)",
            program::name()
        )
    })
}

fn check_preset(name: &str, model: &ModelConfig) -> Result<()> {
    let preset = crate::commands::inputs::preset(name)?;
    let wanted = preset.model.clone().with_vocab_size(model.vocab_size());
    ensure!(
        !name.contains("uptrain") || wanted == *model,
        "--preset {name}: its shape is not that of a Block Transformer made from these weights; give the weights of \
         the model that its summary names, or another preset"
    );
    Ok(())
}

/// Says where the weights are from.
pub(super) fn announce(origin: &Origin, config: &TrainConfig) {
    let state = &origin.checkpoint().state;
    let loss = state.validation_loss.map_or_else(String::new, |loss| {
        format!("; its last validation loss on its own corpus was {loss:.4}")
    });
    let steps = match state.step {
        0 => String::new(),
        step => format!(" after {step} steps"),
    };
    say!("beginning with the weights of {}{steps}{loss}", config.from);
    if let Some(lora) = &config.lora {
        say!("training adapters {lora}; all other weights are frozen");
    }
}
