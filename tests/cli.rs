//! The real binary: invalid input, import and export, generation.

use std::path::Path;

use block_transformer_weights::{FloatFormat, HostTensor, read_tensors, write_tensors};

use crate::support::{
    TINY, command, fails, fails_as, golden, succeeds, with_run, with_text, words,
};

#[test]
fn a_missing_or_unreadable_corpus_is_named() {
    let dir = with_text();
    let train = "train --preset debug-block --byte-level --corpus";
    for (corpus, content, says) in [
        ("lost/text.txt", None, &["lost/text.txt"][..]),
        ("dependancies", None, &["dependancies", "did you mean `dependencies`"]),
        ("empty.txt", Some(&b""[..]), &["no text"]),
        ("latin.txt", Some(b"caf\xE9 au lait\n"), &["latin.txt", "invalid UTF-8 at byte 3"]),
        ("bad.jsonl", Some(b"{\"text\": \"a\"}\nnonsense\n"), &["bad.jsonl:2"]),
        ("short.txt", Some(b"a few words\nand more\n"), &["less than one window", "--context"]),
    ] {
        if let Some(content) = content {
            std::fs::write(dir.path().join(corpus), content).unwrap();
        }
        fails(dir.path(), &format!("{train} {corpus}"), says);
    }
}

#[test]
fn the_dependencies_of_another_project_are_not_a_default_corpus() {
    let dir = with_text();
    let manifest = "[package]\nname = \"other\"\nedition = \"2024\"\n";
    std::fs::write(dir.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::create_dir(dir.path().join("src")).unwrap();
    std::fs::write(dir.path().join("src/lib.rs"), "").unwrap();
    for line in ["train --preset debug-block", "prepare"] {
        // cargo sets the variable for this test, but not for an installed binary
        let mut command = command(dir.path(), line);
        fails_as(command.env_remove("CARGO_MANIFEST_DIR"), 1, &["--corpus"]);
    }
    assert!(!dir.path().join("data").exists() && !dir.path().join("runs").exists());
}

/// Root can read every file, so if the test runs as root, the command runs as another user.
#[cfg(unix)]
#[test]
fn a_file_without_read_permission_is_named() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;

    let dir = with_text();
    let allow = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    allow(dir.path(), 0o777);
    allow(&dir.path().join("text.txt"), 0);
    let mut command = command(dir.path(), &format!("{TINY} --steps 3"));
    if dir.path().metadata().unwrap().uid() == 0 {
        command.uid(65534);
    }
    let Ok(output) = command.output() else {
        eprintln!("not tested: the binary is in a folder of root's own");
        return;
    };
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(error.matches("text.txt: Permission denied").count(), 1, "{error}");
    assert_eq!(error.matches("Permission denied").count(), 1, "{error}");
}

/// Writes a Megatron pair of documents, with one token id per byte.
fn write_pair(dir: &Path, documents: &[String]) {
    let lengths = || documents.iter().map(String::len);
    let mut index = b"MMIDIDX\0\0".to_vec();
    index.extend(1_u64.to_le_bytes());
    index.push(8); // u16
    index.extend((documents.len() as u64).to_le_bytes());
    index.extend((documents.len() as u64 + 1).to_le_bytes());
    index.extend(lengths().flat_map(|n| (n as u32).to_le_bytes()));
    let mut at = 0_u64;
    for n in lengths() {
        index.extend(at.to_le_bytes());
        at += 2 * n as u64;
    }
    index.extend((0..=documents.len() as u64).flat_map(u64::to_le_bytes));
    std::fs::write(dir.join("pile.idx"), index).unwrap();
    let ids = documents.iter().flat_map(|text| text.bytes());
    let data: Vec<u8> = ids.flat_map(|byte| (u16::from(byte) + 2).to_le_bytes()).collect();
    std::fs::write(dir.join("pile.bin"), data).unwrap();
}

#[test]
fn a_megatron_pair_is_trained_on_without_a_copy() {
    let dir = with_text();
    // the byte tokenizer as a file
    succeeds(dir.path(), "prepare --corpus text.txt --byte-level --out bytes");
    let documents: Vec<String> = (0..60).map(|i| format!("document {i}, of bytes")).collect();
    write_pair(dir.path(), &documents);
    let train = "train --preset debug-block --corpus pile.idx --context 32 --batch 2 --steps 2";
    fails(dir.path(), train, &["pile.idx", "--tokenizer"]);
    let train = format!("{train} --tokenizer bytes/tokenizer.json");
    let text = succeeds(dir.path(), &train);
    assert!(text.contains("57 + 3 documents"), "{text}");
    std::fs::write(dir.path().join("pile.bin"), [0; 10]).unwrap();
    fails(dir.path(), &format!("{train} --out other"), &["pile.bin", "shorter than its index"]);
}

#[test]
fn invalid_settings_are_named() {
    let dir = with_text();
    std::fs::write(dir.path().join("run.toml"), "\nsteps = 3\nlr = \"fast\"\n").unwrap();
    std::fs::write(dir.path().join("low.toml"), "lr = 0.0\n").unwrap();
    std::fs::write(dir.path().join("tokenizer.toml"), "\n\ntokenizer = 3\n").unwrap();
    let huge = "[model]\nvocab_size = 300\nhidden_size = 65536\nnum_hidden_layers = 64\n\
                num_attention_heads = 64\n";
    std::fs::write(dir.path().join("huge.toml"), huge).unwrap();
    for (flags, says) in [
        ("--preset block-170n", &["block-170n", "`block-170m`"][..]),
        ("--steps 0", &["steps"]),
        ("--batch 0", &["batch"]),
        ("--batch 16000000", &["--batch 16000000", "tokens"]),
        ("--accumulate 16000000", &["--accumulate", "tokens"]),
        ("--context 30", &["context", "4"]),
        ("--corpus text.txt --device cuda", &["cuda", "--features cuda"]),
        ("--config run.toml", &["run.toml:3: lr: ", "\"fast\""]),
        ("--config tokenizer.toml", &["tokenizer.toml:3: tokenizer: 3: must be ", "bpe = N"]),
        ("--config low.toml", &["low.toml: lr = 0: must be above 0"]),
        (
            "--corpus text.txt --config huge.toml",
            &["huge.toml: [model]", "flex has", "smaller model"],
        ),
        ("--lr -1", &["--lr -1: must be above 0"]),
        ("--corpus text.txt --out text.txt", &["--out text.txt", "another folder"]),
        ("--corpus text.txt --data text.txt", &["--data text.txt", "another folder"]),
        ("--corpus text.txt --precision bf16 --device ndarray", &["--precision bf16", "ndarray"]),
        ("--config low.toml --lr=-1", &["--lr -1: must be above 0"]),
    ] {
        fails(dir.path(), &format!("train {flags}"), says);
    }
    // nothing is trained or prepared
    assert!(!dir.path().join("runs").exists() && !dir.path().join("data").exists());
}

#[test]
fn another_run_is_not_overwritten() {
    let dir = with_run();
    let weights =
        || std::fs::read(dir.path().join("run/checkpoints/step-000003/model.bpk")).unwrap();
    let before = weights();
    let again = format!("{TINY} --steps 3 --out run");
    fails(dir.path(), &again, &["run", "--resume"]);
    fails(dir.path(), &format!("{again} --resume --seed 9"), &["seed"]);
    let export = "export --checkpoint run --out run/checkpoints/step-000003/w.safetensors";
    fails(dir.path(), export, &["--out", "checkpoint"]);
    assert!(before == weights());
    std::fs::remove_file(dir.path().join("run/train.toml")).unwrap();
    let says = ["run/train.toml", "missing", "restore", "state.json"];
    fails(dir.path(), "train --resume --out run", &says);
}

#[test]
fn damaged_token_files_are_named() {
    let dir = with_text();
    succeeds(dir.path(), "prepare --corpus text.txt --byte-level --out prepared");
    let path = dir.path().join("prepared/train.tok");
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    let train = "train --preset debug-block --corpus prepared --steps 1";
    for (bad, says) in [(&good[..good.len() / 2], "cut short"), (&flipped[..], "checksums differ")]
    {
        std::fs::write(&path, bad).unwrap();
        fails(dir.path(), train, &["train.tok", says]);
    }
}

#[test]
fn a_checkpoint_of_another_tokenizer_is_refused() {
    let dir = with_run();
    succeeds(dir.path(), "prepare --corpus text.txt --vocab-size 300 --out bpe");
    fails(dir.path(), "train --resume --out run --corpus bpe --steps 6", &["--resume"]);
}

/// Trains on a file system of 6 MB in a mount namespace. It has room for one checkpoint.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_named_and_loses_nothing() {
    const SCRIPT: &str = r#"
        mkdir disk && mount -t tmpfs -o size=6m none disk || exit 77
        "$@" --out disk/run --checkpoint-every 1 --keep 9 --validate-every 50
        echo "train: $?"
        ls -a disk/run/checkpoints
        "$1" generate --checkpoint disk/run --prompt line --max-tokens 4 >/dev/null
        echo "generate: $?"
    "#;
    let dir = with_text();
    let script = ["-rm", "sh", "-c", SCRIPT, "sh", env!("CARGO_BIN_EXE_block-transformer")];
    let mut command = std::process::Command::new("unshare");
    command.current_dir(dir.path()).args(script).args(words(TINY)).args(["--steps", "40"]);
    let output = match command.output() {
        Ok(output) if output.status.code() != Some(77) => output,
        _ => return eprintln!("skipped: no mount namespaces here"),
    };
    let (out, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if error.contains("unshare failed") {
        return eprintln!("skipped: no user namespaces here");
    }
    assert!(error.contains("No space left on device") && error.contains("disk/run"), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    assert!(out.contains("train: 1") && out.contains("generate: 0"), "{out}{error}");
    assert!(out.contains("step-") && !out.contains("partial"), "{out}");
}

#[test]
fn imported_weights_are_exported_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let mut cases = 0;
    for entry in std::fs::read_dir(golden("")).unwrap() {
        let path = entry.unwrap().path();
        let Some(name) = path.to_str().and_then(|p| p.strip_suffix(".model.safetensors")) else {
            continue;
        };
        let out = format!("checkpoint-{cases}");
        let (file, config) = (path.to_str().unwrap(), format!("{name}.json"));
        succeeds(dir.path(), &format!("import --from '{file}' --config '{config}' --out {out}"));
        succeeds(dir.path(), &format!("export --checkpoint {out} --out back.safetensors"));
        let after = read_tensors(&dir.path().join("back.safetensors")).unwrap();
        assert!(read_tensors(&path).unwrap() == after, "{name}");
        cases += 1;
        if cases == 1 {
            half_precision(dir.path(), &out, &config);
        }
    }
    assert_eq!(cases, 10);
}

/// Checks that exported f16 and bf16 files are imported and exported again without a change.
fn half_precision(dir: &Path, checkpoint: &str, config: &str) {
    for dtype in ["f16", "bf16"] {
        let export = |checkpoint: &str, out: &str| {
            let line = format!("export --checkpoint {checkpoint} --dtype {dtype} --out {out}");
            succeeds(dir, &line);
            std::fs::read(dir.join(out)).unwrap()
        };
        let file = format!("{dtype}.safetensors");
        let first = export(checkpoint, &file);
        std::fs::remove_file(dir.join("tokenizer.json")).unwrap();
        succeeds(dir, &format!("import --from {file} --config '{config}' --out again-{dtype}"));
        assert!(first == export(&format!("again-{dtype}"), "second.safetensors"), "{dtype}");
    }
}

#[test]
fn weights_that_do_not_fit_are_listed_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = golden("lookup_prefix.model.safetensors");
    let mut tensors = read_tensors(&path).unwrap();
    let lost = tensors.remove("embedder.embeddings.weight").unwrap();
    tensors.insert("embedder.embedings.weight".into(), lost);
    tensors.get_mut("token_decoder.embed_out.weight").unwrap().shape = vec![64, 96];
    // published files can contain this buffer, so it is not an error
    let buffer = HostTensor { shape: vec![1], values: vec![0.0] };
    tensors.insert("block_decoder.gpt_neox.layers.0.attention.rotary_emb.inv_freq".into(), buffer);
    write_tensors(&tensors, FloatFormat::F32, &dir.path().join("bad.safetensors")).unwrap();
    std::fs::write(dir.path().join("cut.safetensors"), b"\x08\0\0\0\0\0\0\0{}").unwrap();
    let config = golden("lookup_prefix.json");
    let config = format!("--from bad.safetensors --config '{}'", config.display());
    let faults = [
        "missing: embedder.embeddings.weight",
        "left over: embedder.embedings.weight",
        "wrong: token_decoder.embed_out.weight: shape [64, 96]",
    ];
    let cut = "--from cut.safetensors --preset debug-block";
    for (from, says) in [(&config[..], &faults[..]), (cut, &["cut.safetensors", "safetensors"])] {
        fails(dir.path(), &format!("import --out c {from}"), says);
        assert!(!dir.path().join("c").exists());
    }
}

#[test]
fn several_prompts_are_continued_as_each_alone() {
    let dir = with_run();
    let generate = |prompts: &[&str], more: &str| {
        let prompts: String =
            prompts.iter().map(|prompt| format!(" --prompt '{prompt}'")).collect();
        let line = "generate --checkpoint run --greedy --max-tokens 12";
        succeeds(dir.path(), &format!("{line}{prompts} {more}"))
    };
    let prompts = ["line", "", "a longer prompt"];
    let together = generate(&prompts, "");
    for (i, prompt) in prompts.iter().enumerate() {
        let alone = generate(&[prompt], "");
        let header = format!("=== {} of 3: {prompt:?}\n", i + 1);
        assert!(together.contains(&(header + &alone)), "{prompt:?} in {together}");
    }
    // the batch size changes neither the texts nor their order
    assert_eq!(generate(&prompts, "--batch 2"), together);
    assert_eq!(generate(&prompts, "--memory 3MB"), together);
    for speculate in ["off", "1", "9"] {
        let stats = format!("--speculate {speculate} --stats stats.json");
        assert_eq!(generate(&prompts, &stats), together, "{speculate}");
        let stats = std::fs::read_to_string(dir.path().join("stats.json")).unwrap();
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        assert_eq!(stats["speculation"].is_null(), speculate == "off", "{stats}");
        assert_eq!(stats["tokens"], 36, "{stats}");
    }
    succeeds(dir.path(), "prepare --corpus text.txt --byte-level --out prepared");
    let counted = succeeds(dir.path(), "ngrams --corpus prepared --out ngrams.json");
    assert!(counted.contains("n-grams of"), "{counted}");
    assert_eq!(generate(&prompts, "--speculate 9 --ngrams ngrams.json"), together);
    std::fs::write(dir.path().join("other.json"), r#"{"tokenizer":1,"three":[],"two":[]}"#)
        .unwrap();
    fails(dir.path(), "ngrams --corpus run --out other.json", &["--corpus run", "`prepare`"]);
    let bf16 = generate(&["line"], "--weights bf16-weights");
    assert!(!bf16.trim().is_empty() && bf16 == generate(&["line"], "--weights bf16"));
    let int8 =
        ["", "--batch 2"].map(|flags| generate(&prompts, &format!("--weights int8 {flags}")));
    assert!(int8[0] == int8[1] && int8[0].contains("=== 3 of 3"), "{}", int8[0]);
    let cache = ["", "--batch 2"].map(|flags| generate(&prompts, &format!("--cache int8 {flags}")));
    assert!(cache[0] == cache[1] && cache[0].contains("=== 3 of 3"), "{}", cache[0]);
    let large = std::fs::File::create(dir.path().join("large.json")).unwrap();
    large.set_len(8 << 30).unwrap();
    let mut refused = vec![
        ("run --cache int8 --device ndarray", &["--cache int8", "flex"][..]),
        ("run --weights int8 --device ndarray", &["--weights int8", "flex"]),
        ("run --weights bf16 --device ndarray", &["--weights bf16", "flex"][..]),
        ("run --speculate 3 --device ndarray", &["--speculate", "`auto` or `off`"]),
        ("run --stats nowhere/stats.json", &["--stats", "the folder nowhere does not exist"]),
        ("run --ngrams other.json", &["--ngrams other.json", "another tokenizer"]),
        ("run --ngrams run/train.toml", &["--ngrams run/train.toml", "not a file of n-grams"]),
        ("run --ngrams nowhere", &["--ngrams nowhere", "write it with `ngrams`"]),
        (
            "run --ngrams large.json",
            &["--ngrams large.json", "8589934592 bytes", "at most 268435456"],
        ),
        ("run --ngrams ngrams.json --speculate off", &["--ngrams", "nothing is guessed"]),
        ("run --memory 300kB", &["--memory", "300000 bytes", "257 tokens"]),
        ("run --max-tokens 2000000000", &["bytes hold no sequence", "fewer tokens"]),
        ("nowhere", &["nowhere"]),
    ];
    if cfg!(target_os = "linux") {
        refused.push(("run --memory 100PB", &["--memory", "this machine has"]));
    }
    for (flags, says) in refused {
        fails(dir.path(), &format!("generate --prompt x --checkpoint {flags}"), says);
    }
    for number in ["0", "some"] {
        let line = format!("generate --prompt x --checkpoint run --speculate {number}");
        let says = ["--speculate", "`off`, `auto` or a number"];
        fails_as(&mut command(dir.path(), &line), 2, &says);
    }
}
