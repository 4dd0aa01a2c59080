//! Files of tensors.

use std::io::{Cursor, Write};

use block_transformer_checkpoint::{Checkpoint, Contents, State};
use block_transformer_text::Tokenizer;
use block_transformer_zoo::ModelConfig;
use burn::tensor::Device;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::Seed;

pub(super) fn seeds() -> Vec<Seed> {
    [safetensors(), pytorch(), indices(), packs()].concat()
}

fn safetensors() -> Vec<Seed> {
    let with = |length: u64, header: &str, data: usize| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend((0..data).map(|i| i as u8));
        bytes
    };
    let of = |header: &str, data| with(header.len() as u64, header, data);
    let good = r#"{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"h":{"dtype":"F16","shape":[3],"data_offsets":[16,22]},"e":{"dtype":"BF16","shape":[0,4],"data_offsets":[22,22]}}"#;
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let deep = format!(r#"{{"w":{}{}}}"#, "[".repeat(300), "]".repeat(300));
    let overlap = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    let many = r#"{"w":{"dtype":"U8","shape":[0,18446744073709551615],"data_offsets":[0,0]}}"#;
    vec![
        ("safetensors", "good", of(good, 22)),
        ("safetensors", "any-empty-but-wide", of(many, 0)),
        ("safetensors", "bad-header-of-all-memory", with(u64::MAX, "{}", 0)),
        ("safetensors", "bad-header-beyond-the-file", with(1 << 30, "{}", 64)),
        ("safetensors", "bad-overlap", of(overlap, 12)),
        ("safetensors", "bad-shape", of(&one("F32", "[4611686018427387904,4]", "[0,8]"), 8)),
        ("safetensors", "bad-negative-shape", of(&one("F32", "[-1]", "[0,8]"), 8)),
        ("safetensors", "bad-order", of(&one("F32", "[2]", "[8,0]"), 8)),
        ("safetensors", "bad-offset", of(&one("F32", "[2]", "[18446744073709551608,0]"), 8)),
        ("safetensors", "bad-format", of(&one("C64", "[1]", "[0,8]"), 8)),
        ("safetensors", "bad-depth", of(&deep, 0)),
        ("safetensors", "bad-cut", good.as_bytes()[..6].to_vec()),
    ]
}

/// The pickle of a dictionary with one tensor, as `torch.save` writes it.
fn pickle(shape: [u8; 2], storage: &str) -> Vec<u8> {
    let text = |text: &str| {
        let mut bytes = vec![b'X'];
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes
    };
    [
        b"\x80\x02}".to_vec(),
        text("w"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text(storage),
        text("cpu"),
        b"K\x10tQK\x00".to_vec(),
        vec![b'K', shape[0], b'K', shape[1], 0x86],
        vec![b'K', shape[1], b'K', 1, 0x86],
        b"\x89ccollections\nOrderedDict\n)RtRs.".to_vec(),
    ]
    .concat()
}

fn archive(pickle: &[u8], data: &[u8], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in [
        ("a/data.pkl", pickle),
        ("a/byteorder", b"little"),
        ("a/data/0", data),
        ("a/version", b"3\n"),
    ] {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn pytorch() -> Vec<Seed> {
    let (stored, deflated) = (CompressionMethod::Stored, CompressionMethod::Deflated);
    let good = pickle([4, 4], "0");
    let data: Vec<u8> = (0..64).collect();
    let zip = archive(&good, &data, stored);
    let fixture = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tensor-files/tests/fixtures/");
        std::fs::read(format!("{folder}{name}")).unwrap()
    };
    let system = b"cposix\nsystem\n(S'touch /tmp/x'\ntR.".to_vec();
    let nested = b"(dS'w'\ncbuiltins\neval\n(S'1'\ntRs.".to_vec();
    let build = [&b"\x80\x02"[..], &b"}".repeat(2000), b"."].concat();
    let lists = [&b"\x80\x02"[..], &b"]".repeat(500), &b"a".repeat(499), b"."].concat();
    let memo = b"\x80\x02}r\xff\xff\xff\xffj\xff\xff\xff\xff.".to_vec();
    let long = b"\x80\x02X\xff\xff\xff\x7fw.".to_vec();
    let mut seeds = vec![
        ("pytorch", "good-zip", zip.clone()),
        ("pytorch", "good-deflated", archive(&good, &data, deflated)),
        ("pytorch", "good-legacy", fixture("mixed_legacy.pt")),
        ("pytorch", "bad-system", system.clone()),
        ("pytorch", "bad-cut", zip[..zip.len() - 9].to_vec()),
        // unpacks to 1000 times its size, and the tensor has 64 bytes
        ("pytorch", "any-bomb", archive(&good, &vec![0; 4 << 20], deflated)),
        ("pytorch", "bad-bomb-of-pickle", archive(&vec![b'N'; 4 << 20], &data, deflated)),
        ("pickle", "good", good.clone()),
        ("pickle", "bad-shape", pickle([255, 255], "0")),
        ("pickle", "bad-storage", pickle([4, 4], "../../a")),
        ("pickle", "bad-no-storage", pickle([4, 4], "7")),
    ];
    for (name, bytes) in [
        ("bad-system", system),
        ("bad-eval", nested),
        ("bad-dictionaries", build),
        ("bad-lists", lists),
        ("bad-memo", memo),
        ("bad-length", long),
    ] {
        seeds.push(("pickle", name, bytes));
    }
    seeds
}

fn indices() -> Vec<Seed> {
    let of = |map: &str| format!(r#"{{"metadata":{{"total_size":16}},"weight_map":{map}}}"#);
    let good = r#"{"a":"one.safetensors","b":"two.safetensors"}"#;
    let mut seeds = vec![("shard_index", "good", of(good).into_bytes())];
    for (name, map) in [
        ("bad-parent", r#"{"a":"../one.safetensors"}"#),
        ("bad-root", r#"{"a":"/etc/passwd"}"#),
        ("bad-link", r#"{"c":"link.safetensors"}"#),
        ("bad-itself", r#"{"a":"model.safetensors.index.json"}"#),
        ("bad-folder", r#"{"a":"."}"#),
        ("bad-missing", r#"{"a":"one.safetensors","b":"three.safetensors"}"#),
        ("bad-unlisted", r#"{"b":"one.safetensors"}"#),
        ("bad-zero", "{\"a\":\"one.safetensors\\u0000\"}"),
        ("bad-empty", "{}"),
        ("bad-type", "[1]"),
    ] {
        seeds.push(("shard_index", name, of(map).into_bytes()));
    }
    seeds
}

/// Checkpoints of a very small model, with each file replaced; and its weights alone.
fn packs() -> Vec<Seed> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let config = r#"{"vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8}"#;
    let model = ModelConfig::from_json(config, "seed").unwrap();
    let contents = Contents {
        model: &model.init(1, &Device::flex()),
        config: &model,
        tokenizer: &Tokenizer::Bytes,
        optimizer: None,
        state: &State::default(),
        unused: &Default::default(),
    };
    Checkpoint::write(&path, &contents).unwrap();
    let read = |name: &str| std::fs::read(path.join(name)).unwrap();
    let (pack, manifest) = (read("model.bpk"), String::from_utf8(read("manifest.json")).unwrap());
    let state = String::from_utf8(read("state.json")).unwrap();
    let mut wrong = pack.clone();
    wrong[8..16].fill(0xFF);
    let with = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let of_manifest = |file: &str| {
        with(0, manifest.replacen("\"config.json\"", &format!("\"{file}\""), 1).as_bytes())
    };
    let huge = config.replace("\"hidden_size\": 8", "\"hidden_size\": 9223372036854775806");
    let many = config.replace("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 1000000000");
    let source = format!(
        r#""lora": {{"rank": 2, "parts": ["stacks"]}}, "lineage": {{"made_by": "train", "source": ".", "sha256": "{}"}}, "step""#,
        "0".repeat(64)
    );
    vec![
        ("model_pack", "good", pack.clone()),
        ("model_pack", "bad-header", wrong.clone()),
        ("model_pack", "bad-cut", pack[..pack.len() / 2].to_vec()),
        ("checkpoint", "good-manifest", with(0, manifest.as_bytes())),
        ("checkpoint", "good-config", with(1, config.as_bytes())),
        ("checkpoint", "good-state", with(2, state.as_bytes())),
        ("checkpoint", "good-tokenizer", with(3, &read("tokenizer.json"))),
        ("checkpoint", "good-weights", with(4, &pack)),
        ("checkpoint", "bad-weights", with(4, &wrong)),
        ("checkpoint", "bad-cut-weights", with(4, &pack[..pack.len() / 2])),
        ("checkpoint", "bad-parent", of_manifest("../../../../etc/passwd")),
        ("checkpoint", "bad-device", of_manifest("/dev/zero")),
        ("checkpoint", "bad-format", with(0, br#"{"format": 18446744073709551615}"#)),
        ("checkpoint", "bad-manifest", with(0, br#"{"model.bpk": 3}"#)),
        ("checkpoint", "bad-size", with(1, huge.as_bytes())),
        ("checkpoint", "bad-layers", with(1, many.as_bytes())),
        ("checkpoint", "bad-lineage", with(2, state.replacen("\"step\"", &source, 1).as_bytes())),
    ]
}
