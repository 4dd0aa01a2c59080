//! The models of `serve`.

use anyhow::{Context, Result, ensure};
use block_transformer_server::{EngineOptions, ServedModel};
use block_transformer_text::Tokenizer;
use block_transformer_zoo::{Family, FamilyConfig, ModelConfig};
use burn::tensor::Device;

use super::Args;
use crate::commands::inputs::{open_checkpoint, presets};
use crate::{device, paths};

/// The most bytes for the caches of prefixes if `--prefix-memory` is not given.
const PREFIXES: u64 = 256 << 20;

/// Digits of the SHA-256 of the weights that answers contain.
const FINGERPRINT: usize = 16;

impl Args {
    /// The models of `--checkpoint` and `--preset`.
    pub(super) fn models(&self, device: &Device) -> Result<Vec<ServedModel>> {
        let count = self.checkpoint.len() + self.preset.len();
        ensure!(
            self.name.is_empty() || self.name.len() == count,
            "--name: the number of names is {}, and that of models {count}; give one for each",
            self.name.len()
        );
        let memory = device::memory(self.memory, self.device)?.map(|bytes| bytes / count as u64);
        let mut models = Vec::new();
        let name = |models: &[ServedModel], default: String| {
            self.name.get(models.len()).cloned().unwrap_or(default)
        };
        for folder in &self.checkpoint {
            let checkpoint = open_checkpoint(folder)?;
            let tokenizer = checkpoint.tokenizer()?;
            let fingerprint =
                checkpoint.weights_sha256.chars().take(FINGERPRINT).collect::<String>();
            let (config, precision) = (checkpoint.config.clone(), self.storage.precision());
            let options = self.options(&config, memory, device);
            let target = device.clone();
            let load = move || {
                let model = checkpoint.load_model(&target)?;
                Ok(model.with_precision(precision).prepared())
            };
            let name = name(&models, paths::folder_name(folder));
            let model = ServedModel::new(name, &config, tokenizer, options, load);
            models.push(model.with_fingerprint(format!("fp_{fingerprint}")));
        }
        for preset in presets(&self.preset)? {
            let config = preset.model.clone();
            let tokenizer = match &self.tokenizer {
                Some(path) => {
                    paths::input_file("--tokenizer", path, "give a tokenizer.json")?;
                    Tokenizer::load(path).context("--tokenizer")?
                }
                None => Tokenizer::byte_pairs(config.vocab_size())
                    .with_context(|| format!("--preset {}: give a --tokenizer", preset.name))?,
            };
            let options = self.options(&config, memory, device);
            let (precision, target) = (self.storage.precision(), device.clone());
            let random = config.clone();
            let load = move || Ok(random.init(0, &target).with_precision(precision).prepared());
            let name = name(&models, preset.name.clone());
            models.push(ServedModel::new(name, &config, tokenizer, options, load));
        }
        Ok(models)
    }

    /// The options of the engine of a model with `memory` bytes.
    fn options(&self, config: &ModelConfig, memory: Option<u64>, device: &Device) -> EngineOptions {
        let context = config.max_position_embeddings();
        let max_tokens = self.max_tokens.unwrap_or(context);
        if max_tokens > context {
            note!(
                "warning: --max-tokens {max_tokens}: the model was trained with a context of {context}"
            );
        }
        let prefixes = memory.map_or(PREFIXES, |memory| (memory / 8).min(PREFIXES));
        EngineOptions {
            cache: self.storage.precision().cache(),
            sequences: self.sequences,
            memory,
            prefix_bytes: self.prefix_memory.map_or(prefixes, |size| size.as_u64()),
            speculate: self.speculate,
            graphs: self.no_graph.then_some(false),
            ..EngineOptions::new(device, max_tokens)
        }
    }
}
