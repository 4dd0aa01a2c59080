//! `import`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use block_transformer_checkpoint::{Checkpoint, Contents, State};
use block_transformer_datasets::TokenizerChoice;
use block_transformer_device::DeviceName;
use block_transformer_text::Tokenizer;
use block_transformer_weights::import;
use block_transformer_zoo::{FamilyConfig, ModelConfig};

use super::inputs::preset;
use super::prepare::check_tokenizer;
use crate::{device, paths};

/// Arguments of `import`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Published safetensors file (f32, f16 or bf16)
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Preset with the configuration of the model
    #[arg(long, conflicts_with = "config", required_unless_present = "config")]
    preset: Option<String>,
    /// JSON file with the configuration of the model
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Tokenizer of the model [default: tokenizer.json in the folder of --from, else bytes]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Checkpoint folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Device to load the weights on
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

impl Args {
    /// Writes the checkpoint, completely or not at all.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let out = self.out.display();
        ensure!(!self.out.exists(), "--out {out}: already exists; give another folder");
        paths::output_folder("--out", &self.out)?;
        paths::input_file("--from", &self.from, "give a safetensors file")?;
        let choice = self.tokenizer.clone().map(TokenizerChoice::File);
        check_tokenizer("--tokenizer", choice.as_ref())?;
        let config = self.model()?;
        let beside = self.from.parent().unwrap_or(Path::new(".")).join("tokenizer.json");
        let tokenizer = match &self.tokenizer {
            Some(path) => Tokenizer::load(path).context("--tokenizer")?,
            None if beside.exists() => Tokenizer::load(&beside)?,
            None => Tokenizer::Bytes,
        };
        let device = device::open(self.device)?;
        let imported = import(config.init(0, &device), &config, &self.from);
        let (model, unused) = imported.context("--from")?;
        let contents = Contents {
            model: &model,
            config: &config,
            tokenizer: &tokenizer,
            optimizer: None,
            state: &State::default(),
            unused: &unused,
        };
        Checkpoint::write(&self.out, &contents)?;
        say!("{} parameters in {}", config.num_params(), self.out.display());
        if tokenizer.vocab_size() > config.vocab_size() {
            say!(
                "note: the model has {} token ids and the tokenizer {}; give the tokenizer of the model with \
                 --tokenizer to generate text",
                config.vocab_size(),
                tokenizer.vocab_size()
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    fn model(&self) -> Result<ModelConfig> {
        if let Some(name) = &self.preset {
            return Ok(preset(name)?.model.clone());
        }
        let path = self.config.as_deref().context("--config FILE or --preset NAME is needed")?;
        paths::input_file("--config", path, "give a JSON file with the configuration of a model")?;
        let read = std::fs::read_to_string(path);
        let json = read.with_context(|| format!("--config {}", path.display()))?;
        Ok(ModelConfig::from_json(&json, &path.display().to_string())?)
    }
}
