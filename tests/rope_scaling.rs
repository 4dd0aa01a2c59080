//! Scaled rotary positions: against outputs that `transformers` and the published code recorded
//! (`tests/transformers/rope.py`), through KV caches, and through files.

use std::path::Path;

use block_transformer_checkpoint::Checkpoint;
use block_transformer_layers::Positions;
use block_transformer_layers::neox::{RopeKind, RopeScaling};
use block_transformer_weights::{load, read_tensors};
use block_transformer_zoo::family::{CacheFormat, CacheRoom, PaddingMask, TokenBatch};
use block_transformer_zoo::{Family, FamilyConfig, LanguageModel, ModelConfig};
use burn::tensor::{Device, Int, Tensor};
use serde_json::{Value, json};

use crate::support::{fails, golden, succeeds};

const LINEAR: RopeScaling = RopeScaling { rope_type: RopeKind::Linear, factor: 4.0 };
const NTK: RopeScaling = RopeScaling { rope_type: RopeKind::Ntk, factor: 2.0 };

/// Recorded values have six decimals; those of f32 differ in the sixth.
const TOLERANCE: f32 = 2e-5;

/// A golden model with scaled positions.
fn scaled(case: &str, scaling: Option<RopeScaling>, device: &Device) -> LanguageModel {
    let json = std::fs::read_to_string(golden(&format!("{case}.json"))).unwrap();
    let config = ModelConfig::from_json(&json, case).unwrap().with_rope_scaling(scaling);
    config.check().unwrap();
    let tensors = read_tensors(&golden(&format!("{case}.model.safetensors"))).unwrap();
    load(config.init(0, device), &config, &tensors, case).unwrap().0
}

fn recorded() -> Value {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/transformers");
    serde_json::from_slice(&std::fs::read(fixtures.join("rope-4.39.3.json")).unwrap()).unwrap()
}

fn ids(case: &Value) -> Vec<i32> {
    serde_json::from_value(case["ids"].clone()).unwrap()
}

/// The largest difference between recorded rows and those of `values`, `[1, time, width]`.
fn difference(values: &Tensor<3>, positions: &[usize], expected: &Value) -> f32 {
    let expected: Vec<Vec<f32>> = serde_json::from_value(expected.clone()).unwrap();
    let rows = positions.iter().zip(expected).map(|(&at, row)| {
        let found: Vec<f32> = values.clone().narrow(1, at, 1).into_data().iter().collect();
        assert_eq!(found.len(), row.len());
        found.iter().zip(&row).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    });
    rows.fold(0.0, f32::max)
}

#[test]
fn logits_and_context_embeddings_are_those_that_transformers_and_the_published_code_recorded() {
    let (case, device) = (recorded(), Device::flex());
    let positions: Vec<usize> = serde_json::from_value(case["positions"].clone()).unwrap();
    let tokens = Tensor::<1, Int>::from_ints(&ids(&case)[..], &device);
    for (name, scaling) in [("none", None), ("linear", Some(LINEAR)), ("ntk", Some(NTK))] {
        let LanguageModel::Vanilla(vanilla) = scaled("vanilla", scaling, &device) else { panic!() };
        let logits = vanilla.forward(tokens.clone().unsqueeze());
        let LanguageModel::Block(block) = scaled("lookup_prefix", scaling, &device) else {
            panic!()
        };
        let full = PaddingMask::full();
        let contexts =
            block.contexts(block.embed(tokens.clone().reshape([1, 24, 4]), &full), &full);
        let blocks: Vec<usize> = positions.iter().map(|at| at / 4).collect();
        for other in ["none", "linear", "ntk"] {
            let found = [
                difference(&logits, &positions, &case[other]["logits"]),
                difference(&contexts, &blocks, &case[other]["contexts"]),
            ];
            // other scalings differ by more than 5e-4
            let same = |difference: &f32| *difference < TOLERANCE;
            assert!(found.iter().all(|it| same(it) == (name == other)), "{name} {other} {found:?}");
        }
    }
}

#[test]
fn decoding_through_caches_gives_the_logits_of_the_parallel_pass() {
    let (case, device) = (recorded(), Device::flex());
    let ids = ids(&case);
    for (name, length) in [("vanilla", 1), ("lookup_prefix", 4)] {
        for scaling in [LINEAR, NTK] {
            let model = scaled(name, Some(scaling), &device);
            let blocks = ids.len() / length;
            let batch = TokenBatch {
                ids: Tensor::<1, Int>::from_ints(&ids[..], &device).unsqueeze(),
                is_token: PaddingMask::full(),
                block_length: length,
            };
            let hidden = model.hidden(&batch); // [tokens - length, width]
            let parallel: Vec<f32> = hidden.matmul(model.head()).into_data().iter().collect();
            let vocab = parallel.len() / (ids.len() - length);
            let room = CacheRoom { slots: 1, blocks, format: CacheFormat::F32 };
            let mut decoder = model.decoder(room, &device);
            let mut largest = 0.0_f32;
            for block in 0..blocks - 1 {
                let part = &ids[block * length..(block + 1) * length];
                let part =
                    Tensor::<1, Int>::from_ints(part, &device).reshape([1, 1, length as i32]);
                let states = decoder.append(part, &PaddingMask::full(), &Positions::Same(block));
                let mut logits = decoder.start(states);
                for place in 0..length {
                    let token = (block + 1) * length + place;
                    let expected = &parallel[(token - length) * vocab..][..vocab];
                    let found: Vec<f32> = logits.clone().into_data().iter().collect();
                    largest = found
                        .iter()
                        .zip(expected)
                        .map(|(a, b)| (a - b).abs())
                        .fold(largest, f32::max);
                    if place + 1 < length {
                        logits = decoder.decode(&[0], Tensor::from_ints([ids[token]], &device));
                    }
                }
            }
            assert!(largest < TOLERANCE, "{name} {scaling:?}: {largest}");
        }
    }
}

#[test]
fn scaled_models_are_imported_and_exported() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let write = |case: &str, scaling: Value| {
        let mut config: Value =
            serde_json::from_slice(&std::fs::read(golden(&format!("{case}.json"))).unwrap())
                .unwrap();
        let table = if case == "vanilla" { &mut config } else { &mut config["block_decoder"] };
        table["rope_scaling"] = scaling;
        let path = dir.join(format!("{case}.json"));
        std::fs::write(&path, config.to_string()).unwrap();
        format!(
            "import --from '{}' --config '{}' --out",
            golden(&format!("{case}.model.safetensors")).display(),
            path.display()
        )
    };
    let of = |checkpoint: &str| Checkpoint::open(&dir.join(checkpoint)).unwrap().config;
    for (case, scaling) in [
        ("vanilla", json!({"rope_type": "linear", "factor": 4.0})),
        ("lookup_prefix", json!({"rope_type": "ntk", "factor": 2.0})),
    ] {
        let import = write(case, scaling);
        succeeds(dir, &format!("{import} {case}"));
        succeeds(dir, &format!("export --checkpoint {case} --out {case}-folder"));
        succeeds(dir, &format!("import --from {case}-folder --out {case}-again"));
        assert_eq!(of(&format!("{case}-again")), of(case));
        assert_ne!(of(case), of(case).with_rope_scaling(None));
    }
    let import = write("vanilla", json!({"rope_type": "ntk", "factor": 2.0}));
    succeeds(dir, &format!("{import} ntk"));
    succeeds(dir, "export --checkpoint ntk --out ntk-folder");
    let json = std::fs::read(dir.join("ntk-folder/config.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    // 4 rotated dimensions: 10000 * 2^(4 / 2)
    assert_eq!(json["rotary_emb_base"], 40_000.0);

    for (scaling, says) in [
        (json!({"rope_type": "yarn", "factor": 2.0}), ["rope_scaling", "yarn"]),
        (json!({"rope_type": "linear", "factor": 0.5}), ["rope_scaling.factor", "from 1"]),
        (json!({"rope_type": "linear"}), ["vanilla.json", "missing field `factor`"]),
    ] {
        let import = write("vanilla", scaling);
        fails(dir, &format!("{import} x"), &says);
    }
}
