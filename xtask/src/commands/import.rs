//! `import`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use block_transformer_checkpoint::{Checkpoint, Contents, Lineage, State};
use block_transformer_datasets::TokenizerChoice;
use block_transformer_device::DeviceName;
use block_transformer_exchange::{Hub, Located};
use block_transformer_files::read_text_up_to;
use block_transformer_text::Tokenizer;
use block_transformer_weights::{TensorFiles, load};
use block_transformer_zoo::{FamilyConfig, ModelConfig};

use super::inputs::preset;
use super::prepare::check_tokenizer;
use super::sources::{located, sha256};
use crate::{device, paths};

/// Bytes of the largest configuration.
const MAX_CONFIG: u64 = 4 << 20;

/// Arguments of `import`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of published weights (`models` lists them); the same as --from
    #[arg(value_name = "NAME", conflicts_with = "from", required_unless_present = "from")]
    name: Option<String>,
    /// Weights file (.safetensors, .bin, .pt, .pth, or an index of several), the folder of one, published weights by
    /// name, or a repository on the hub of Hugging Face: OWNER/NAME or OWNER/NAME@REVISION
    #[arg(long, value_name = "FILE|FOLDER|NAME|HUB-ID")]
    from: Option<String>,
    /// Use the cache of the hub only
    #[arg(long)]
    offline: bool,
    /// Preset with the configuration of the model [default: the config.json or the training YAML beside the weights]
    #[arg(long, conflicts_with = "config")]
    preset: Option<String>,
    /// JSON file with the configuration of the model
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Tokenizer of the model [default: tokenizer.json in the folder of the weights, else bytes]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Checkpoint folder to write [default: weights/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Device to load the weights on
    #[arg(long, value_name = "NAME", value_parser = device::parser(), default_value_t)]
    device: DeviceName,
}

/// Imports published weights or a repository of the hub into the folder `out`.
pub(super) fn published(given: &str, out: &Path) -> Result<()> {
    let args = Args {
        name: None,
        from: Some(given.into()),
        offline: false,
        preset: None,
        config: None,
        tokenizer: None,
        out: Some(out.into()),
        device: DeviceName::Flex,
    };
    args.run().map(|_| ())
}

impl Args {
    /// Writes the checkpoint, completely or not at all.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let given = self.from.as_deref().or(self.name.as_deref()).context("--from is needed")?;
        let out = self.out.clone().unwrap_or_else(|| default_out(given));
        let shown = out.display();
        ensure!(!out.exists(), "--out {shown}: already exists; give another folder");
        paths::output_folder("--out", &out)?;
        let choice = self.tokenizer.clone().map(TokenizerChoice::File);
        check_tokenizer("--tokenizer", choice.as_ref())?;
        let chosen = self.chosen()?;
        let source = located("--from", given, &Hub::from_env(self.offline))?;
        let config = match chosen {
            Some(config) => config,
            None => source.config().context("--from")?.ok_or_else(|| without_config(&source))?,
        };
        let tokenizer = match (&self.tokenizer, source.tokenizer()) {
            (Some(path), _) => Tokenizer::load(path).context("--tokenizer")?,
            (None, Some(path)) => Tokenizer::load(&path)?,
            (None, None) => Tokenizer::Bytes,
        };
        let device = device::open(self.device)?;
        let files = TensorFiles::open(&source.weights).context("--from")?;
        let origin = source.weights.display().to_string();
        let (model, unused) =
            load(config.init(0, &device), &config, &files, &origin).context("--from")?;
        let lineage = Lineage {
            made_by: "import".into(),
            source: source.origin.clone(),
            sha256: sha256(files.paths())?,
            step: None,
            tokens: None,
            validation_loss: None,
            parent: None,
        };
        let state = State { lineage: Some(lineage), ..State::default() };
        let contents = Contents {
            model: &model,
            config: &config,
            tokenizer: &tokenizer,
            optimizer: None,
            state: &state,
            unused: &unused,
        };
        Checkpoint::write(&out, &contents)?;
        say!("{} parameters of {} in {shown}", config.num_params(), source.origin);
        if self.tokenizer.is_none() && source.tokenizer().is_none() {
            say!(
                "note: there is no tokenizer.json beside the weights; the checkpoint has bytes as its tokenizer"
            );
        }
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

    /// The configuration that a flag gives.
    fn chosen(&self) -> Result<Option<ModelConfig>> {
        if let Some(name) = &self.preset {
            return Ok(Some(preset(name)?.model.clone()));
        }
        let Some(path) = self.config.as_deref() else { return Ok(None) };
        paths::input_file("--config", path, "give a JSON file with the configuration of a model")?;
        let read = read_text_up_to(path, MAX_CONFIG);
        let json = read.with_context(|| format!("--config {}", path.display()))?;
        Ok(Some(ModelConfig::from_json(&json, &path.display().to_string())?))
    }
}

/// `weights/` and the name of published weights, of a file without its ending, or of a folder; for a repository on
/// the hub, owner, name and revision, so that different weights have different folders.
pub(super) fn default_out(given: &str) -> PathBuf {
    let folder = Path::new("weights");
    let path = Path::new(given.trim_end_matches('/'));
    if path.exists() {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let endings = [".index.json", ".safetensors", ".bin", ".pt", ".pth"];
        let stem = endings.iter().fold(&*name, |name, ending| name.trim_end_matches(ending));
        return folder.join(stem);
    }
    folder.join(given.replacen('/', "--", 1).replace('/', "-"))
}

fn without_config(source: &Located) -> anyhow::Error {
    anyhow!(
        "--from {}: beside the weights, there is no config.json, and not exactly one YAML file; name the configuration of \
         the model with --preset NAME or --config FILE",
        source.origin
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_weights_have_different_default_folders() {
        for (given, expected) in [
            ("pythia-160m", "pythia-160m"),
            ("EleutherAI/pythia-160m", "EleutherAI--pythia-160m"),
            ("EleutherAI/pythia-160m@step1000", "EleutherAI--pythia-160m@step1000"),
            ("other/pythia-160m@refs/pr/1", "other--pythia-160m@refs-pr-1"),
        ] {
            assert_eq!(default_out(given), Path::new("weights").join(expected), "{given}");
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.safetensors", "a.safetensors.index.json", "a.bin", "a.pt"] {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            assert_eq!(default_out(path.to_str().unwrap()), Path::new("weights/a"), "{name}");
        }
    }
}
