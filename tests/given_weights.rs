//! Runs that begin with given weights: fine-tuning, adapters, uptraining.

use std::path::Path;

use block_transformer_checkpoint::{Checkpoint, State};
use block_transformer_weights::{Source, published_tensors, read_tensors};
use block_transformer_zoo::family::{Lora, lora_factors};
use block_transformer_zoo::{Family, FamilyConfig, TokenBatch, preset};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use crate::support::{TINY, fails, succeeds, with_text};

const VANILLA: &str =
    "train --preset debug-vanilla --corpus text.txt --byte-level --context 32 --batch 2";

fn state(dir: &Path, run: &str) -> State {
    Checkpoint::open(&dir.join(run)).unwrap().state
}

#[test]
fn a_run_from_given_weights_begins_with_their_loss_and_records_their_origin() {
    let dir = with_text();
    let path = dir.path();
    succeeds(path, &format!("{TINY} --steps 6 --validate-every 3 --out first"));
    let line = "train --from first --corpus text.txt --context 32 --batch 2 --validate-every 2 --steps 4 --out second";
    let out = succeeds(path, line);
    assert!(out.contains("beginning with the weights of first after 6 steps"), "{out}");
    let (first, second) = (state(path, "first"), state(path, "second"));
    let (recorded, begun) =
        (first.validation_loss.unwrap(), second.initial_validation_loss.unwrap());
    assert!((recorded - begun).abs() < 1e-6, "{recorded} {begun}");
    let lineage = second.lineage.clone().unwrap();
    let weights = Checkpoint::open(&path.join("first")).unwrap().weights_sha256;
    assert_eq!(
        (lineage.made_by.as_str(), lineage.step, lineage.sha256),
        ("train", Some(6), weights)
    );
    assert_eq!((second.step, lineage.source.as_str()), (4, "first"));
    // the origin of the origin, and the card
    succeeds(
        path,
        "train --from second --corpus text.txt --context 32 --batch 2 --steps 2 --out third",
    );
    assert_eq!(state(path, "third").lineage.unwrap().chain().count(), 2);
    succeeds(path, "export --checkpoint third --out folder");
    let card = std::fs::read_to_string(path.join("folder/README.md")).unwrap();
    assert!(
        card.contains("`train` from `second` after 4 steps") && card.contains("from `first`"),
        "{card}"
    );
    // the run is resumed without its origin, also when the tokenizer is a file
    std::fs::remove_dir_all(path.join("second")).unwrap();
    let out = succeeds(path, "train --resume --out third");
    assert!(out.contains("resuming after step 2"), "{out}");
    let line = "train --preset debug-block --corpus text.txt --vocab-size 300 --context 32 --batch 2 --steps 2 --out bpe";
    succeeds(path, line);
    let line = "train --from bpe --corpus text.txt --context 32 --batch 2 --checkpoint-every 2 --steps 4 --out tuned";
    succeeds(path, line);
    std::fs::rename(path.join("bpe"), path.join("moved")).unwrap();
    std::fs::remove_dir_all(path.join("tuned/checkpoints/step-000004")).unwrap();
    let out = succeeds(path, "train --resume --out tuned");
    assert!(out.contains("resuming after step 2"), "{out}");
}

#[test]
fn another_tokenizer_or_no_weights_are_refused_before_anything_is_written() {
    let dir = with_text();
    let path = dir.path();
    succeeds(path, &format!("{TINY} --steps 2 --out first"));
    succeeds(path, "prepare --corpus text.txt --vocab-size 300 --out other");
    std::fs::write(path.join("mine.toml"), "preset = \"debug-block\"\n").unwrap();
    for (line, says) in [
        (
            "train --from first --corpus text.txt --vocab-size 300",
            &["--from first", "other meanings"][..],
        ),
        ("train --from first --corpus other", &["first", "another one of", "--corpus"]),
        ("train --from nothing/here/x --corpus text.txt", &["nothing/here/x"]),
        ("train --from other --corpus text.txt", &["--from other", "not a checkpoint"]),
        ("uptrain --from first --corpus text.txt", &["--from", "only a vanilla model"]),
        ("uptrain --corpus text.txt", &["--from: needed"]),
        ("train --corpus text.txt --lora 4 --byte-level", &["--lora", "empty unless"]),
        ("uptrain --from first --distill -1", &["--distill -1"]),
    ] {
        fails(path, &format!("{line} --out new"), says);
        assert!(!path.join("new").exists(), "{line}");
    }
    let output =
        crate::support::command(path, "train --from first --lora 0 --out new").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("RANK"), "{output:?}");
}

#[test]
fn adapters_are_saved_alone_resumed_exactly_and_merged_for_everything_else() {
    let dir = with_text();
    let path = dir.path();
    succeeds(path, &format!("{VANILLA} --steps 4 --out base"));
    let line = "train --from base --lora 4 --corpus text.txt --context 32 --batch 2 --validate-every 3 --checkpoint-every 3";
    succeeds(path, &format!("{line} --steps 6 --out whole"));
    // a run that stops after three steps, and goes on
    succeeds(path, &format!("{line} --steps 6 --out parts"));
    std::fs::remove_dir_all(path.join("parts/checkpoints/step-000006")).unwrap();
    let out = succeeds(path, "train --resume --out parts");
    assert!(out.contains("resuming after step 3"), "{out}");
    let read = |run: &str| {
        std::fs::read(path.join(run).join("checkpoints/step-000006/adapters.safetensors")).unwrap()
    };
    assert!(read("whole") == read("parts"));
    assert!(!path.join("whole/checkpoints/step-000006/model.bpk").exists());
    // only adapters changed, and they did
    let whole = Checkpoint::open(&path.join("whole")).unwrap();
    let device = Device::flex();
    let unmerged = whole.load_unmerged(&device).unwrap();
    let merged = whole.load_model(&device).unwrap();
    let base = Checkpoint::open(&path.join("base")).unwrap().load_model(&device).unwrap();
    assert!(lora_factors(&merged).is_empty() && !lora_factors(&unmerged).is_empty());
    let ids = Tensor::<2, Int>::from_data([[5, 9, 40, 7, 61, 80, 3, 12]], &device);
    let logits = |model: &block_transformer_zoo::LanguageModel| -> Vec<f32> {
        let batch = TokenBatch { ids: ids.clone(), is_token: Default::default(), block_length: 1 };
        model.predict(&batch).0.into_data().iter().collect()
    };
    let (ours, theirs, before) = (logits(&merged), logits(&unmerged), logits(&base));
    let most =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most(&ours, &theirs) < 1e-5, "{}", most(&ours, &theirs));
    assert!(most(&ours, &before) > 1e-4, "{}", most(&ours, &before));
    let tables = published_tensors(&merged, &whole.config, Source::Values);
    let was = published_tensors(&base, &whole.config, Source::Values);
    assert!(tables["gpt_neox.embed_in.weight"] == was["gpt_neox.embed_in.weight"]);
    assert!(
        tables["gpt_neox.layers.0.attention.dense.weight"]
            != was["gpt_neox.layers.0.attention.dense.weight"]
    );
    // commands see the merged model
    succeeds(path, "export --checkpoint whole --out merged.safetensors");
    assert!(read_tensors(&path.join("merged.safetensors")).unwrap() == tables);
    succeeds(path, "generate --checkpoint whole --prompt line --max-tokens 4");
    // a run that begins with the merged model trains all weights
    succeeds(
        path,
        "train --from whole --corpus text.txt --context 32 --batch 2 --steps 2 --out after",
    );
    assert!(path.join("after/checkpoints/step-000002/model.bpk").exists());
    assert_eq!(state(path, "after").lineage.unwrap().chain().count(), 2);
    // the weights that the adapters belong to must stay the same
    succeeds(path, &format!("{VANILLA} --steps 5 --seed 1 --out other"));
    std::fs::rename(path.join("base"), path.join("moved")).unwrap();
    fails(
        path,
        "generate --checkpoint whole --prompt line",
        &["adapters.safetensors", "put the folder back"],
    );
    std::fs::create_dir_all(path.join("base/checkpoints")).unwrap();
    std::fs::rename(
        path.join("other/checkpoints/step-000005"),
        path.join("base/checkpoints/step-000004"),
    )
    .unwrap();
    fails(path, "generate --checkpoint whole --prompt line", &["SHA-256"]);
}

/// By burn's own visitor: the factors of block-33m at rank 8, without its tables.
#[test]
fn adapters_of_block_33m_at_rank_8_are_smaller_than_a_megabyte() {
    let device = Device::flex();
    let model = preset("block-33m").unwrap().model.init(0, &device);
    let lora: Lora = "8".parse().unwrap();
    let factors = |seed| lora_factors(&lora.attach(model.clone(), seed, &device));
    let first = factors(1);
    // 6 layers of 4 matrices, two factors each
    assert_eq!(first.len(), 48);
    let bytes: usize = first.values().map(|(_, values)| 4 * values.len()).sum();
    assert!((700_000..1_000_000).contains(&bytes), "{bytes}");
    assert!(first == factors(1) && first != factors(2));
    let zeros = first.iter().filter(|(path, _)| path.ends_with(".b"));
    assert!(zeros.flat_map(|(_, (_, values))| values).all(|&value| value == 0.0));
    assert_eq!(Module::num_params(&model), preset("block-33m").unwrap().model.num_params());
}

#[test]
fn a_vanilla_model_becomes_a_block_transformer_that_is_trained_resumed_and_exported() {
    let dir = with_text();
    let path = dir.path();
    succeeds(path, &format!("{VANILLA} --steps 4 --out vanilla"));
    let more = "--corpus text.txt --context 32 --batch 2 --checkpoint-every 2 --validate-every 2";
    let out = succeeds(
        path,
        &format!("uptrain --from vanilla --distill 0.5 {more} --steps 4 --out whole"),
    );
    assert!(out.contains("beginning with the weights of vanilla"), "{out}");
    succeeds(path, &format!("uptrain --from vanilla --distill 0.5 {more} --steps 4 --out parts"));
    std::fs::remove_dir_all(path.join("parts/checkpoints/step-000004")).unwrap();
    succeeds(path, "uptrain --from vanilla --resume --out parts");
    let read = |run: &str| {
        std::fs::read(path.join(run).join("checkpoints/step-000004/model.bpk")).unwrap()
    };
    assert!(read("whole") == read("parts"));
    let lineage = state(path, "whole").lineage.unwrap();
    assert_eq!((lineage.made_by.as_str(), lineage.step), ("uptrain", Some(4)));
    let config = Checkpoint::open(&path.join("whole")).unwrap().config;
    let shape = serde_json::to_value(&config).unwrap();
    assert_eq!(
        (&shape["block_decoder"]["num_hidden_layers"], &shape["embedder"]["hidden_size"]),
        (&2.into(), &64.into())
    );
    for method in ["skip", "duplicate"] {
        succeeds(
            path,
            &format!("uptrain --from vanilla --method {method} {more} --steps 2 --out {method}"),
        );
    }
    // without distillation the same steps end elsewhere
    succeeds(path, &format!("uptrain --from vanilla {more} --steps 4 --out plain"));
    assert!(read("whole") != read("plain"));
    fails(
        path,
        &format!("uptrain --from vanilla --preset block-uptrain-85m {more} --out x"),
        &["--preset", "shape"],
    );
}
