//! A folder with a model for the Python world.

use std::path::Path;

use block_transformer_family::FamilyConfig;
use block_transformer_files::{FileError, NewFolder};
use block_transformer_text::{EOS, PAD, Tokenizer};
use block_transformer_weights::{FloatFormat, HostTensors, export};
use block_transformer_zoo::{LanguageModel, ModelConfig};
use serde_json::{Value, json};

use crate::card::Card;
use crate::error::ExchangeError;
use crate::hugging_face::to_hugging_face;

/// Writes the folder `dir` with weights, configuration, tokenizer and model card. `transformers` loads the folder of
/// a vanilla model; that of a block model has the published names and this project's configuration. The folder
/// appears complete or not at all.
///
/// # Errors
/// When the disk is full or not writable.
pub fn write_folder(
    dir: &Path,
    model: &LanguageModel,
    tokenizer: &Tokenizer,
    unused: &HostTensors,
    format: FloatFormat,
    card: &Card<'_>,
) -> Result<(), ExchangeError> {
    let folder = NewFolder::create(dir)?;
    export(model, card.config, unused, format, &folder.temporary_path("model.safetensors"))?;
    let text = |name: &str, text: &str| {
        let written = std::fs::write(folder.temporary_path(name), text);
        written.map_err(FileError::write(&folder.final_path(name)))
    };
    let json = |name: &str, value: &Value| text(name, &format!("{value:#}\n"));
    match card.config {
        ModelConfig::Vanilla(config) => {
            json("config.json", &to_hugging_face(config, torch_name(format)))?;
            let ids = json!({"bos_token_id": EOS, "eos_token_id": EOS, "pad_token_id": PAD});
            json("generation_config.json", &ids)?;
        }
        config => text("config.json", &(config.to_json() + "\n"))?,
    }
    text("tokenizer.json", &with_merges_as_text(tokenizer.to_json()?))?;
    if let Tokenizer::HuggingFace(_) = tokenizer {
        json("tokenizer_config.json", &tokenizer_config(card.config))?;
        json("special_tokens_map.json", &special_tokens())?;
    }
    if let Some((name, bytes)) = &card.picture {
        let written = std::fs::write(folder.temporary_path(name), bytes);
        written.map_err(FileError::write(&folder.final_path(name)))?;
    }
    text("README.md", &card.to_markdown())?;
    Ok(folder.commit()?)
}

/// A tokenizer whose merges have the form "a b", which older versions of `tokenizers` need (0.15, with
/// `transformers` 4.39.3); newer ones write pairs, and read both. Symbols with blanks must stay pairs.
fn with_merges_as_text(json: String) -> String {
    let Ok(mut tokenizer) = serde_json::from_str::<Value>(&json) else { return json };
    let Some(merges) = tokenizer.pointer_mut("/model/merges").and_then(Value::as_array_mut) else {
        return json;
    };
    let joined = |pair: &Value| {
        let parts = [pair.get(0)?.as_str()?, pair.get(1)?.as_str()?];
        (!parts.iter().any(|part| part.contains(' '))).then(|| Value::from(parts.join(" ")))
    };
    let Some(texts) = merges.iter().map(joined).collect::<Option<Vec<_>>>() else { return json };
    *merges = texts;
    format!("{tokenizer:#}\n")
}

/// The name of a format in `torch`.
fn torch_name(format: FloatFormat) -> &'static str {
    match format {
        FloatFormat::F32 => "float32",
        FloatFormat::F16 => "float16",
        FloatFormat::Bf16 => "bfloat16",
    }
}

fn special_tokens() -> Value {
    json!({
        "bos_token": Tokenizer::EOS_TEXT,
        "eos_token": Tokenizer::EOS_TEXT,
        "unk_token": Tokenizer::EOS_TEXT,
        "pad_token": Tokenizer::PAD_TEXT,
    })
}

/// The class is the general one, because the rules of the tokenizer are all in `tokenizer.json`.
fn tokenizer_config(config: &ModelConfig) -> Value {
    let mut table = special_tokens();
    table["tokenizer_class"] = "PreTrainedTokenizerFast".into();
    table["clean_up_tokenization_spaces"] = false.into();
    table["model_max_length"] = config.max_position_embeddings().into();
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_become_text_and_the_tokenizer_stays_the_same() {
        let text = "Round and round the ragged rock\n  the ragged rascal ran.";
        let tokenizer = Tokenizer::train_bpe([text.repeat(20)].into_iter(), 300).unwrap();
        let json = with_merges_as_text(tokenizer.to_json().unwrap());
        let value: Value = serde_json::from_str(&json).unwrap();
        let merges = value["model"]["merges"].as_array().unwrap();
        assert!(!merges.is_empty() && merges.iter().all(Value::is_string));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, json).unwrap();
        let read = Tokenizer::load(&path).unwrap();
        assert_eq!(read.encode(text).unwrap(), tokenizer.encode(text).unwrap());
        assert_eq!(read.to_json().unwrap(), tokenizer.to_json().unwrap());
        let pairs = r#"{"model": {"merges": [["a b", "c"]]}}"#;
        assert_eq!(with_merges_as_text(pairs.into()), pairs);
    }
}
