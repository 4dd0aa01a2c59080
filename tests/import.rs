//! Models of other programs: in by folder, YAML, shards and PyTorch file, out as a folder that `transformers` loads.

use std::path::Path;

use block_transformer_checkpoint::Checkpoint;
use block_transformer_weights::{FloatFormat, HostTensors, read_tensors, write_tensors};
use block_transformer_zoo::{LanguageModel, ModelConfig};
use burn::tensor::{Device, Int, Tensor};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{fails, golden, succeeds, with_run, with_text};

/// Imports a golden case, with `files` beside its weights, and returns its tensors.
fn tensors(dir: &Path, from: &str, out: &str) -> HostTensors {
    succeeds(dir, &format!("import --from {from} --out {out}"));
    succeeds(dir, &format!("export --checkpoint {out} --out {out}.safetensors"));
    read_tensors(&dir.join(format!("{out}.safetensors"))).unwrap()
}

#[test]
fn an_exported_vanilla_folder_has_the_logits_that_transformers_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let (weights, config) = (golden("vanilla.model.safetensors"), golden("vanilla.json"));
    let line = format!(
        "import --from '{}' --config '{}' --out first",
        weights.display(),
        config.display()
    );
    succeeds(dir.path(), &line);
    succeeds(dir.path(), "export --checkpoint first --out folder");
    assert!(tensors(dir.path(), "folder", "again") == read_tensors(&weights).unwrap());
    let json: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("folder/config.json")).unwrap())
            .unwrap();
    assert_eq!(json["architectures"][0], "GPTNeoXForCausalLM");
    assert_eq!(
        (&json["rotary_pct"], &json["rope_parameters"]["partial_rotary_factor"]),
        (&0.25.into(), &0.25.into())
    );
    let device = Device::flex();
    let model = Checkpoint::open(&dir.path().join("again")).unwrap().load_model(&device).unwrap();
    let LanguageModel::Vanilla(model) = model else { panic!() };
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/transformers");
    for version in ["5.24.0", "4.39.3"] {
        let path = fixtures.join(format!("vanilla-{version}.json"));
        let case: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(case["versions"]["transformers"], version);
        let ids: Vec<i64> = serde_json::from_value(case["ids"].clone()).unwrap();
        let expected: Vec<Vec<f32>> = serde_json::from_value(case["logits"].clone()).unwrap();
        let ids = Tensor::<1, Int>::from_ints(&ids[..], &device).unsqueeze::<2>();
        let logits: Vec<f32> = model.forward(ids).into_data().iter().collect();
        let expected: Vec<f32> = expected.concat();
        assert_eq!(logits.len(), expected.len());
        let largest = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-4, "{version}: {largest}");
    }
}

#[test]
fn a_published_block_folder_is_imported_with_its_training_yaml() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("block_main/checkpoint-1");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(golden("lookup_prefix.model.safetensors"), folder.join("model.safetensors"))
        .unwrap();
    fails(
        dir.path(),
        "import --from block_main/checkpoint-1 --out x",
        &["not exactly one YAML file", "--preset"],
    );
    let yaml = "block_length: 4\nmax_length: 2048\nembedder:\n  cls: lookup\n  n_embedding_tokens: 1\n  projection_method: \
                concat\n  config: {vocab_size: 96, hidden_size: 16}\nblock_decoder:\n  cls: gpt-neo-x\n  config: \
                {num_hidden_layers: 2, hidden_size: 64, num_attention_heads: 4}\ntoken_decoder:\n  cls: gpt-neo-x\n  \
                expansion_ratio: 2\n  decoding_strategy: prefix\n  config: {num_hidden_layers: 2, hidden_size: 64, \
                num_attention_heads: 4}\n";
    std::fs::write(folder.join("block_main.yaml"), yaml).unwrap();
    let read = tensors(dir.path(), "block_main/checkpoint-1", "a");
    assert!(read == read_tensors(&golden("lookup_prefix.model.safetensors")).unwrap());
    // the exported folder of a block model is imported again
    succeeds(dir.path(), "export --checkpoint a --out b");
    assert!(tensors(dir.path(), "b", "c") == read);
    let card = std::fs::read_to_string(dir.path().join("b/README.md")).unwrap();
    assert!(
        card.contains("# b")
            && card.contains("padded at the left")
            && card.contains("`import` from"),
        "{card}"
    );
}

#[test]
fn shards_are_imported_and_the_origin_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("sharded");
    std::fs::create_dir(&folder).unwrap();
    let all = read_tensors(&golden("vanilla.model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    let mut lines = String::new();
    for (i, file) in
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"].iter().enumerate()
    {
        let part: HostTensors = all
            .clone()
            .into_iter()
            .enumerate()
            .filter(|(at, _)| at % 2 == i)
            .map(|(_, t)| t)
            .collect();
        map.extend(part.keys().map(|name| (name.clone(), Value::from(*file))));
        write_tensors(&part, FloatFormat::F32, &folder.join(file)).unwrap();
        let sha = Sha256::digest(std::fs::read(folder.join(file)).unwrap());
        lines += &(sha.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n");
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::copy(golden("vanilla.json"), folder.join("config.json")).unwrap();
    assert!(tensors(dir.path(), "sharded", "c") == all);
    let lineage = Checkpoint::open(&dir.path().join("c")).unwrap().state.lineage.unwrap();
    let sha: String = Sha256::digest(lines).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        (lineage.made_by.as_str(), lineage.source.as_str(), lineage.sha256),
        ("import", "sharded", sha)
    );
}

#[test]
fn a_trained_model_is_exported_with_its_card() {
    let dir = with_run();
    std::fs::write(dir.path().join("results.md"), "| lambada | 0.125 |\n").unwrap();
    succeeds(dir.path(), "export --checkpoint run --out mine --name tiny --evaluation results.md");
    let card = std::fs::read_to_string(dir.path().join("mine/README.md")).unwrap();
    for part in
        ["# tiny", "3 steps", "`text`", "loss.png", "| lambada | 0.125 |", "began with new weights"]
    {
        assert!(card.contains(part), "{part}: {card}");
    }
    assert!(dir.path().join("mine/loss.png").exists());
    let config = std::fs::read_to_string(dir.path().join("mine/config.json")).unwrap();
    ModelConfig::from_json(&config, "exported").unwrap();
    fails(dir.path(), "export --checkpoint run --out mine", &["--out mine", "already exists"]);
    let line = "export --checkpoint run --out w.safetensors --name x";
    fails(dir.path(), line, &["--name", "only a folder has a model card"]);
}

#[test]
fn names_that_are_not_known_are_refused_with_the_remedy() {
    let dir = with_text();
    for (line, says) in [
        ("import pythia-16m --offline", &["--from pythia-16m", "`pythia-160m`", "models"][..]),
        ("import block-170m", &["block_main_b4_85", "github.com/itsnamgyu"]),
        ("import --from text.txt --preset debug-block", &["--from", "text.txt", "which format"]),
        ("import", &["required"]),
        ("import pythia-160m --from text.txt", &["cannot be used with"]),
    ] {
        let output = crate::support::command(dir.path(), line).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && says.iter().all(|part| error.contains(part)),
            "{line}: {error}"
        );
        assert!(!dir.path().join("weights").exists(), "{line}");
    }
    let listed = succeeds(dir.path(), "models");
    assert!(
        listed.contains("pythia-1.4b-deduped") && listed.contains("by hand: block_main_b4_1.2b"),
        "{listed}"
    );
}
