//! Checkpoints.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use block_transformer_checkpoint::{Checkpoint, Contents, State};
use block_transformer_text::Tokenizer;
use block_transformer_zoo::{FamilyConfig, ModelConfig};
use burn::tensor::Device;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::scratch::{Scratch, said};

/// The files of a checkpoint; the first byte of the input selects the one that its other bytes replace.
const NAMES: [&str; 5] =
    ["manifest.json", "config.json", "state.json", "tokenizer.json", "model.bpk"];

/// The smallest model.
const CONFIG: &str = r#"{"vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 1, "max_position_embeddings": 8}"#;

/// The largest model that the body loads, in parameters.
const MOST_PARAMETERS: usize = 1 << 24;

/// The files of a checkpoint of the smallest model.
static FILES: LazyLock<BTreeMap<&str, Vec<u8>>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let config = ModelConfig::from_json(CONFIG, "the smallest model").unwrap();
    let contents = Contents {
        model: &config.init(1, &Device::flex()),
        config: &config,
        tokenizer: &Tokenizer::Bytes,
        optimizer: None,
        state: &State::default(),
        unused: &Default::default(),
    };
    Checkpoint::write(&path, &contents).unwrap();
    NAMES.map(|name| (name, std::fs::read(path.join(name)).unwrap())).into()
});

/// A checkpoint with one replaced file. Its manifest has the right checksums unless it is the replaced file.
pub(crate) fn checkpoint(bytes: &[u8]) -> bool {
    let Some((kind, content)) = bytes.split_first() else { return false };
    let replaced = NAMES[usize::from(*kind) % NAMES.len()];
    let mut scratch = Scratch::new(&[]);
    let mut listed = serde_json::Map::new();
    for (name, file) in &*FILES {
        let file = if *name == replaced { content } else { file };
        scratch.put(name, file);
        if *name != "manifest.json" {
            let sha256: String = Sha256::digest(file).iter().map(|b| format!("{b:02x}")).collect();
            listed.insert((*name).into(), json!({"size": file.len(), "sha256": sha256}));
        }
    }
    if replaced != "manifest.json" {
        let manifest = json!({"format": 2, "files": listed}).to_string();
        scratch.put("manifest.json", manifest.as_bytes());
    }
    let accepted = read(&scratch);
    scratch.unchanged();
    accepted
}

fn read(scratch: &Scratch) -> bool {
    let Some(checkpoint) = scratch.named(Checkpoint::open(scratch.dir())) else { return false };
    let tokenizer = scratch.named(checkpoint.tokenizer());
    let unused = checkpoint.unused().map_err(|error| said(&error));
    // a model of any size is described correctly by its configuration, but does not fit the memory here
    if checkpoint.config.num_params() > MOST_PARAMETERS {
        return false;
    }
    let model = scratch.named(checkpoint.load_model(&Device::flex()));
    tokenizer.is_some() && unused.is_ok() && model.is_some()
}
