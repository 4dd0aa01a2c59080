//! Checkpoints of hostile authors.

use std::path::Path;

use block_transformer_checkpoint::{Checkpoint, CheckpointError, Contents, Lineage, State};
use block_transformer_files::digest;
use block_transformer_text::Tokenizer;
use block_transformer_weights::HostTensors;
use block_transformer_zoo::family::Lora;
use block_transformer_zoo::preset;
use burn::tensor::Device;
use serde_json::{Value, json};

fn written(dir: &Path) {
    let config = &preset("debug-block").unwrap().model;
    let contents = Contents {
        model: &config.init(1, &Device::flex()),
        config,
        tokenizer: &Tokenizer::Bytes,
        optimizer: None,
        state: &State::default(),
        unused: &HostTensors::new(),
    };
    Checkpoint::write(dir, &contents).unwrap();
}

fn said(error: &CheckpointError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn refused(dir: &Path) -> String {
    said(&Checkpoint::open(dir).unwrap_err())
}

fn manifest(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("manifest.json")).unwrap()).unwrap()
}

fn write(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}

/// Writes the digests of the files in `dir` to its manifest.
fn sign(dir: &Path) {
    let mut manifest = manifest(dir);
    for (name, listed) in manifest["files"].as_object_mut().unwrap() {
        let (size, sha256) = digest(&dir.join(name)).unwrap();
        *listed = json!({"size": size, "sha256": sha256});
    }
    write(&dir.join("manifest.json"), &manifest);
}

#[test]
fn a_manifest_names_files_of_its_own_folder_only() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("checkpoint");
    written(&dir);
    std::fs::write(temporary.path().join("secret"), "secret").unwrap();
    let good = manifest(&dir);
    for name in ["../secret", "/dev/zero", "./config.json", "a/../config.json", "..", ".", ""] {
        let mut bad = good.clone();
        bad["files"][name] = json!({"size": 6, "sha256": "0"});
        write(&dir.join("manifest.json"), &bad);
        let error = refused(&dir);
        assert!(
            error.contains("manifest.json") && error.contains("not a plain file name"),
            "{error}"
        );
    }
    let mut many = good.clone();
    for i in 0..100_000 {
        many["files"][format!("file-{i}")] = json!({"size": 0, "sha256": "0"});
    }
    write(&dir.join("manifest.json"), &many);
    let error = refused(&dir);
    assert!(error.contains("lists 100005 files") || error.contains("at most 64"), "{error}");
    write(&dir.join("manifest.json"), &good);
    Checkpoint::open(&dir).unwrap();
    #[cfg(unix)]
    {
        std::fs::remove_file(dir.join("model.bpk")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.join("model.bpk")).unwrap();
        let error = refused(&dir);
        assert!(error.contains("model.bpk: not a regular file"), "{error}");
    }
}

#[test]
fn gigabytes_of_json_are_refused_before_they_are_read() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("checkpoint");
    for (name, limit) in
        [("manifest.json", 64 << 20), ("state.json", 64 << 20), ("config.json", 4 << 20)]
    {
        written(&dir);
        let file = std::fs::File::options().write(true).open(dir.join(name)).unwrap();
        // as a sparse file, without 0s on the disk
        file.set_len(limit + 1).unwrap();
        if name != "manifest.json" {
            sign(&dir);
        }
        let error = refused(&dir);
        let expected = format!("{name}: it has {} bytes; at most {limit} are read", limit + 1);
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_checkpoint_that_is_its_own_origin_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("checkpoint");
    written(&dir);
    std::fs::rename(dir.join("model.bpk"), dir.join("adapters.safetensors")).unwrap();
    let (size, sha256) = digest(&dir.join("adapters.safetensors")).unwrap();
    let lineage = Lineage {
        made_by: "train".into(),
        source: dir.to_str().unwrap().into(),
        sha256: sha256.clone(),
        step: None,
        tokens: None,
        validation_loss: None,
        parent: None,
    };
    let lora: Lora = "2".parse().unwrap();
    let state = State { lineage: Some(lineage), lora: Some(lora), ..State::default() };
    std::fs::write(dir.join("state.json"), serde_json::to_vec(&state).unwrap()).unwrap();
    let mut manifest = manifest(&dir);
    let files = manifest["files"].as_object_mut().unwrap();
    files.remove("model.bpk");
    files.insert("adapters.safetensors".into(), json!({"size": size, "sha256": sha256}));
    write(&dir.join("manifest.json"), &manifest);
    sign(&dir);
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let error = said(&checkpoint.load_model(&Device::flex()).unwrap_err());
    assert!(error.contains("checkpoints of adapters belong to each other"), "{error}");
}
