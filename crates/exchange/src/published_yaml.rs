//! The training configuration (YAML) of the published Block Transformer, which stands beside its weights.

use std::path::Path;

use block_transformer_zoo::{ModelConfig, published_weights};
use serde_json::{Map, Value, json};

use crate::error::ExchangeError;
use crate::hugging_face::rope_scaling;

/// Rows of the position table of `roberta-base`, the base of the published RoBERTa embedders.
const ROBERTA_POSITIONS: usize = 514;

/// Reads the shape of a model from a training configuration of the published implementation; `path` names it in
/// errors. Heads and widths that the file leaves out follow the published rules.
///
/// # Errors
/// When the text is not YAML, a key is missing, or a model of another kind is described.
pub fn from_training_yaml(text: &str, path: &Path) -> Result<ModelConfig, ExchangeError> {
    let yaml: Value = serde_saphyr::from_str(text).map_err(|error| ExchangeError::Unreadable {
        path: path.into(),
        reason: error.to_string().lines().next().unwrap_or_default().to_string(),
    })?;
    let reader = Reader { path, yaml: &yaml };
    let table =
        if yaml.get("block_decoder").is_some() { reader.block()? } else { reader.vanilla()? };
    let path = path.display().to_string();
    Ok(ModelConfig::from_json(&table.to_string(), &path)?)
}

struct Reader<'a> {
    path: &'a Path,
    yaml: &'a Value,
}

impl Reader<'_> {
    fn unsupported(&self, key: &str, reason: impl Into<String>) -> ExchangeError {
        ExchangeError::Unsupported {
            path: self.path.into(),
            key: key.into(),
            reason: reason.into(),
        }
    }

    /// The value of a dotted key; `null` is no value.
    fn get(&self, key: &str) -> Option<&Value> {
        let pointer = format!("/{}", key.replace('.', "/"));
        self.yaml.pointer(&pointer).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<&str, ExchangeError> {
        let text = self.get(key).and_then(Value::as_str);
        text.ok_or_else(|| self.unsupported(key, "is missing, or is not text"))
    }

    fn size(&self, key: &str) -> Result<usize, ExchangeError> {
        let size =
            self.get(key).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
        size.ok_or_else(|| self.unsupported(key, "is missing, or is not a whole number"))
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize, ExchangeError> {
        if self.get(key).is_some() { self.size(key) } else { Ok(default) }
    }

    /// The table of a stack whose sizes are under `key`, with the published rule for its heads.
    fn stack(&self, key: &str) -> Result<Map<String, Value>, ExchangeError> {
        let hidden = self.size(&format!("{key}.hidden_size"))?;
        let head = match hidden {
            ..=256 => 32,
            257..=1536 => 64,
            _ => 128,
        };
        let mut table = Map::new();
        table.insert("hidden_size".into(), hidden.into());
        let layers = self.size(&format!("{key}.num_hidden_layers"))?;
        table.insert("num_hidden_layers".into(), layers.into());
        let heads = self.size_or(&format!("{key}.num_attention_heads"), hidden / head)?;
        table.insert("num_attention_heads".into(), heads.into());
        if let Some(width) = self.get(&format!("{key}.intermediate_size")) {
            table.insert("intermediate_size".into(), width.clone());
        }
        if let Some(scaling) = self.get(&format!("{key}.rope_scaling")).filter(|it| !it.is_null()) {
            let scaling = rope_scaling(scaling)
                .map_err(|reason| self.unsupported(&format!("{key}.rope_scaling"), &reason))?;
            if let Some(scaling) = scaling {
                table.insert("rope_scaling".into(), json!(scaling));
            }
        }
        for name in ["rotary_pct", "rotary_emb_base", "layer_norm_eps", "use_parallel_residual"] {
            if let Some(value) = self.get(&format!("{key}.{name}")) {
                table.insert(name.into(), value.clone());
            }
        }
        Ok(table)
    }

    fn block(&self) -> Result<Value, ExchangeError> {
        let split = self.get("block_split.distribution").and_then(Value::as_str);
        if let Some(split) = split.filter(|split| *split != "fixed") {
            let reason = format!("`{split}` is not supported; only `fixed` is");
            return Err(self.unsupported("block_split.distribution", reason));
        }
        if self.text("block_decoder.cls")? != "gpt-neo-x" {
            return Err(self.unsupported("block_decoder.cls", "only `gpt-neo-x` is supported"));
        }
        Ok(json!({
            "vocab_size": self.size_or("embedder.config.vocab_size", 50304)?,
            "block_length": self.size("block_length")?,
            "max_position_embeddings": self.size_or("max_length", 2048)?,
            "embedder": self.embedder()?,
            "block_decoder": self.stack("block_decoder.config")?,
            "token_decoder": self.token_decoder()?,
        }))
    }

    fn embedder(&self) -> Result<Value, ExchangeError> {
        let cls = self.text("embedder.cls")?;
        let default = if cls == "lookup" { "concat" } else { "projection_layer" };
        let method =
            self.get("embedder.projection_method").and_then(Value::as_str).unwrap_or(default);
        let mut table = match cls {
            "lookup" => {
                let hidden = self.size("embedder.config.hidden_size")?;
                Map::from_iter([("hidden_size".into(), hidden.into())])
            }
            "roberta" | "roberta_cls" => {
                let mut table = self.stack("embedder.config")?;
                let key = "embedder.config.max_position_embeddings";
                let rows = self.size_or(key, ROBERTA_POSITIONS)?;
                table.insert("max_position_embeddings".into(), rows.into());
                if cls == "roberta_cls" {
                    let tokens = self.size_or("embedder.n_cls_tokens", 1)?;
                    table.insert("n_cls_tokens".into(), tokens.into());
                }
                table
            }
            other => {
                return Err(self.unsupported("embedder.cls", format!("`{other}` is not supported")));
            }
        };
        table.insert("cls".into(), cls.into());
        table.insert("projection_method".into(), method.into());
        let vectors = self.size_or("embedder.n_embedding_tokens", 1)?;
        table.insert("n_embedding_tokens".into(), vectors.into());
        Ok(table.into())
    }

    fn token_decoder(&self) -> Result<Value, ExchangeError> {
        let (cls, strategy) =
            (self.text("token_decoder.cls")?, self.text("token_decoder.decoding_strategy")?);
        let mut table = match cls {
            "gpt-neo-x" => self.stack("token_decoder.config")?,
            "t5" => {
                let size = |key: &str| self.size(&format!("token_decoder.config.{key}"));
                // the layers of the decoder alone count
                let layers = size("num_decoder_layers").or_else(|_| size("num_layers"))?;
                Map::from_iter([
                    ("hidden_size".into(), size("d_model")?.into()),
                    ("num_hidden_layers".into(), layers.into()),
                    ("num_attention_heads".into(), size("num_heads")?.into()),
                    // that of `t5-small`
                    ("d_kv".into(), self.size_or("token_decoder.config.d_kv", 64)?.into()),
                    ("d_ff".into(), size("d_ff")?.into()),
                ])
            }
            other => {
                return Err(
                    self.unsupported("token_decoder.cls", format!("`{other}` is not supported"))
                );
            }
        };
        table.insert("cls".into(), cls.into());
        table.insert("decoding_strategy".into(), strategy.into());
        if strategy == "prefix" {
            let ratio = self.size("token_decoder.expansion_ratio")?;
            table.insert("expansion_ratio".into(), ratio.into());
        }
        Ok(table.into())
    }

    /// A vanilla model: the shape of a published one, with the changes of `model_config`.
    fn vanilla(&self) -> Result<Value, ExchangeError> {
        if self.text("model")? != "gpt-neo-x" {
            return Err(self.unsupported("model", "only `gpt-neo-x` is supported"));
        }
        let base = self.text("model_name_or_path")?;
        let row = published_weights().iter().find(|row| row.hub.as_deref() == Some(base));
        let row = row.ok_or_else(|| {
            self.unsupported(
                "model_name_or_path",
                format!("the shape of `{base}` is not known here"),
            )
        })?;
        let ModelConfig::Vanilla(config) = row.model() else {
            return Err(self.unsupported("model_name_or_path", "is not a vanilla model"));
        };
        let mut table = serde_json::to_value(config).unwrap_or_default();
        let changes = self.get("model_config").and_then(Value::as_object);
        for (key, value) in changes.into_iter().flatten() {
            table[key] = value.clone();
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ModelConfig, ExchangeError> {
        from_training_yaml(text, Path::new("trainer.yaml"))
    }

    fn main_model(width: usize, layers: usize) -> String {
        let table = width / 4;
        format!(
            "block_length: 4\nmax_length: 2048\nblock_split:\n  distribution: fixed\n\
             embedder:\n  cls: lookup\n  n_embedding_tokens: 1\n  projection_method: concat\n  config:\n    \
             vocab_size: 50304\n    hidden_size: {table}\n\
             block_decoder:\n  cls: gpt-neo-x\n  loss_name: null\n  config:\n    num_hidden_layers: {layers}\n    \
             hidden_size: {width}\n\
             token_decoder:\n  cls: gpt-neo-x\n  expansion_ratio: 2\n  decoding_strategy: prefix\n  config:\n    \
             num_hidden_layers: {layers}\n    hidden_size: {width}\n"
        )
    }

    #[test]
    fn the_six_main_models_are_their_presets() {
        for (preset, width, layers) in [
            ("block-33m", 256, 3),
            ("block-77m", 512, 3),
            ("block-170m", 768, 6),
            ("block-420m", 1024, 12),
            ("block-1.0b", 2048, 8),
            ("block-1.4b", 2048, 12),
        ] {
            let expected = &block_transformer_zoo::preset(preset).unwrap().model;
            assert_eq!(&read(&main_model(width, layers)).unwrap(), expected, "{preset}");
        }
    }

    #[test]
    fn ablations_and_vanilla_models_are_read() {
        let cross = "block_length: 4\nembedder:\n  cls: roberta_cls\n  n_cls_tokens: 3\n  projection_method: null\n  \
                     config:\n    num_hidden_layers: 3\n    hidden_size: 256\n    vocab_size: 50304\n\
                     block_decoder:\n  cls: gpt-neo-x\n  config: {num_hidden_layers: 6, hidden_size: 768}\n\
                     token_decoder:\n  cls: t5\n  decoding_strategy: cross_attention\n  config:\n    d_model: 768\n    \
                     d_ff: 3072\n    num_layers: 6\n    num_decoder_layers: 6\n    num_heads: 12\n";
        let ModelConfig::Block(mut config) = read(cross).unwrap() else { panic!() };
        let expected = &block_transformer_zoo::preset("block-170m-cls-cross").unwrap().model;
        // the preset has a smaller table of positions
        let block_transformer_zoo::block::EmbedderConfig::RobertaCls(embedder) =
            &mut config.embedder
        else {
            panic!()
        };
        assert_eq!(embedder.encoder.max_position_embeddings, ROBERTA_POSITIONS);
        embedder.encoder.max_position_embeddings = 64;
        assert_eq!(&ModelConfig::Block(config), expected);
        let vanilla =
            read("model: gpt-neo-x\nmodel_name_or_path: EleutherAI/pythia-160m-deduped\n").unwrap();
        assert_eq!(vanilla, block_transformer_zoo::preset("vanilla-160m").unwrap().model);
        let changed = "model: gpt-neo-x\nmodel_name_or_path: EleutherAI/pythia-70m-deduped\nmodel_config:\n  \
                       hidden_size: 256\n";
        let ModelConfig::Vanilla(changed) = read(changed).unwrap() else { panic!() };
        assert_eq!((changed.stack.hidden_size, changed.stack.num_attention_heads), (256, 8));
    }

    #[test]
    fn mistakes_name_the_file_and_the_key() {
        let valid = main_model(256, 3);
        for (from, to, expected) in [
            ("cls: lookup", "cls: bert", "embedder.cls"),
            ("block_length: 4", "block_length: four", "block_length"),
            ("distribution: fixed", "distribution: uniform", "block_split.distribution"),
            ("expansion_ratio: 2", "expansion_ratio: null", "token_decoder.expansion_ratio"),
            ("hidden_size: 64", "hidden_size: 63", "hidden_size"),
            ("embedder:", "embedder: [", "not a readable configuration"),
        ] {
            let error = read(&valid.replacen(from, to, 1)).unwrap_err();
            let text =
                format!("{error} {:?}", std::error::Error::source(&error).map(ToString::to_string));
            assert!(text.contains("trainer.yaml") && text.contains(expected), "{to}: {text}");
        }
        // an alias that expands to many values
        let bomb = "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n\
                    c: &c [*b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c]\n\
                    e: &e [*d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e]\n\
                    g: &g [*f, *f, *f, *f, *f, *f, *f, *f]\nh: [*g, *g, *g, *g, *g, *g, *g, *g]\n";
        assert!(matches!(read(bomb), Err(ExchangeError::Unreadable { .. })));
    }
}
