//! Errors of the real binary about values, paths, checkpoints and stdout: each names the flag and a
//! remedy.

use block_transformer_checkpoint::{Checkpoint, Contents, State};
use block_transformer_text::Tokenizer;
use block_transformer_weights::HostTensors;
use block_transformer_zoo::{FamilyConfig, preset};
use burn::tensor::Device;

use crate::support::{TINY, command, fails, fails_as, succeeds, with_run, with_text};

#[test]
fn a_value_that_is_not_possible_names_its_flag() {
    let dir = with_text();
    for (line, flag) in [
        ("train --steps -1", "--steps"),
        ("train --seed -1", "--seed"),
        ("generate --checkpoint x --prompt x --memory -1", "--memory"),
    ] {
        fails_as(&mut command(dir.path(), line), 2, &["invalid value '-1'", flag]);
    }
    for (line, says) in [
        ("--min-p 1.5", ["--min-p", "min_p 1.5: must be from 0 to 1"]),
        ("--presence-penalty -3", ["--presence-penalty", "-3: must be from -2 to 2"]),
        ("--frequency-penalty 2.5", ["--frequency-penalty", "2.5: must be from -2 to 2"]),
    ] {
        let line = format!("generate --checkpoint x --prompt x {line}");
        fails(dir.path(), &line, &says);
    }
    for (line, says) in [
        ("bench decode --lengths -1:5", ["invalid value '-1:5'", "--lengths", "2048:128"]),
        ("plan --memory -5GB", ["invalid value '-5GB'", "--memory", "16GiB"]),
        ("train --windows blocks", ["invalid value 'blocks'", "--windows", "contiguous"]),
        ("train --optimizer sgd", ["invalid value 'sgd'", "--optimizer", "adamw or muon"]),
        ("train --lr -inf", ["--lr", "-inf", "above 0"]),
        ("train --peak-tflops 1e-300", ["--peak-tflops", "1e-300", "`measure`"]),
    ] {
        let code = if line.contains("--lr") { 1 } else { 2 };
        fails_as(&mut command(dir.path(), line), code, &says);
    }
}

#[test]
fn an_instruction_set_that_the_machine_does_not_have_is_an_error() {
    const VARIABLE: &str = "BLOCK_TRANSFORMER_SIMD";
    let dir = tempfile::tempdir().unwrap();
    let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    for (value, says) in [("sse", "unknown"), (foreign, "this machine does not have")] {
        let mut command = command(dir.path(), "plan --preset debug-block");
        let assignment = format!("{VARIABLE}={value}");
        fails_as(command.env(VARIABLE, value), 1, &[&assignment, says, "plain"]);
    }
}

#[test]
fn a_temperature_close_to_0_is_greedy() {
    let dir = with_run();
    let text = |flags: &str| {
        let line = format!("generate --checkpoint run --prompt line --max-tokens 12 {flags}");
        succeeds(dir.path(), &line)
    };
    let greedy = text("--greedy");
    assert_eq!(text("--temperature 1e-300"), greedy);
    // every token but the most likely one is too unlikely
    assert_eq!(text("--temperature 1 --min-p 1"), greedy);
    assert_ne!(text("--greedy --presence-penalty 2 --frequency-penalty 2"), greedy);
}

#[test]
fn a_path_that_cannot_be_used_is_named_with_its_flag_and_a_remedy() {
    let dir = with_run();
    let path = dir.path();
    let checkpoint = path.join("run/checkpoints/step-000003");
    std::fs::create_dir(path.join("books")).unwrap();
    std::fs::copy(path.join("text.txt"), path.join("books/1.txt")).unwrap();
    std::fs::create_dir_all(path.join("beside/config.json")).unwrap();
    #[cfg(unix)]
    {
        let _socket = std::os::unix::net::UnixListener::bind(path.join("socket.bin")).unwrap();
        fails(
            path,
            "export --checkpoint run --out socket.bin",
            &["--out socket.bin", "not a regular file"],
        );
    }
    std::fs::create_dir(path.join("empty")).unwrap();
    std::fs::write(path.join("tokenizer.toml"), "\ntokenizer = { file = \"empty\" }\n").unwrap();
    #[cfg(unix)]
    {
        let made = std::process::Command::new("mkfifo").arg(path.join("pipe")).status();
        assert!(made.unwrap().success());
        for line in ["prepare", "train --preset debug-block"] {
            let line = format!("{line} --corpus pipe");
            fails(path, &line, &["pipe is neither a regular file", "give --corpus"]);
        }
    }
    for (line, says) in [
        ("train --corpus empty", &["empty contains no file", "give --corpus"][..]),
        ("train --config empty/none", &["--config empty/none", "--print-config"]),
        ("train --config empty", &["--config empty: is a folder", "--print-config"]),
        ("train --corpus text.txt --tokenizer empty", &["--tokenizer empty: is a folder"]),
        ("train --corpus text.txt --tokenizer text.txt", &["text.txt", "give --tokenizer"]),
        ("train --corpus text.txt --config tokenizer.toml", &["tokenizer.toml: tokenizer = empty"]),
        ("import --preset debug-block --from empty --out i", &["--from", "empty has no weights"]),
        ("import --preset debug-block --from text.txt --out i", &["--from", ".safetensors"]),
        ("import --config empty --from text.txt --out i", &["--config empty: is a folder"]),
        ("eval-pg19 --checkpoint run --books empty", &["--books empty: ", "folder of .txt files"]),
        ("parity text.txt", &["parity text.txt: is not a folder", "tests/golden"]),
        ("parity empty", &["parity empty: no NAME.json", "tests/golden"]),
        (
            "generate --prompt x --checkpoint text.txt",
            &["--checkpoint text.txt: is a file", "a run"],
        ),
        ("bench eval --preset ,", &["--preset: the list has an empty name"]),
        ("plan --preset debug-block,", &["--preset: the list has an empty name"]),
        ("prepare --corpus text.txt --out text.txt", &["--out text.txt", "another folder"]),
        ("eval-pg19 --checkpoint run --books text.txt --out text.txt", &["--out text.txt"]),
        ("eval-pg19 --checkpoint run --books none", &["--books none", "a folder of .txt files"]),
        ("eval-pg19 --checkpoint none --books books", &["--checkpoint none", "a run"]),
        ("export --checkpoint run --out run", &["--out run", "already exists"]),
        ("export --checkpoint run --out beside/w.bin", &["beside/config.json", "is a folder"]),
        ("export --checkpoint run --out none/w.bin", &["--out none/w.bin", "does not exist"]),
        ("export --checkpoint run --out config.json", &["--out config.json", "another name"]),
        ("export --checkpoint run --out Tokenizer.json", &["--out Tokenizer.json"]),
        ("generate --prompt x --checkpoint none", &["--checkpoint none", "folder of a run"]),
        ("parity none", &["parity none", "tests/golden"]),
        ("presets --show debug-blok", &["--show debug-blok", "`debug-block`"]),
        ("bench train --preset debug-block --context 32 --out text.txt", &["--out text.txt"]),
    ] {
        fails(path, line, says);
    }
    assert!(!path.join("config.json").exists() && !path.join("tokenizer.json").exists());
    if cfg!(target_os = "linux") {
        fails(path, &format!("{TINY} --out /proc/x"), &["--out /proc/x", "another folder"]);
    }
    std::fs::remove_file(checkpoint.join("config.json")).unwrap();
    let says = ["--checkpoint", "config.json: the file is missing", "use another one"];
    fails(path, "generate --prompt x --checkpoint run/checkpoints/step-000003", &says);
}

#[test]
fn weights_that_do_not_fit_their_checkpoint_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = &preset("debug-block").unwrap().model;
    let contents = Contents {
        model: &config.clone().with_vocab_size(320).init(0, &Device::flex()),
        config: &config.clone().with_vocab_size(384),
        tokenizer: &Tokenizer::Bytes,
        optimizer: None,
        state: &State::default(),
        unused: &HostTensors::new(),
    };
    Checkpoint::write(&dir.path().join("c"), &contents).unwrap();
    let written = fails(dir.path(), "generate --checkpoint c --prompt x", &[]);
    for part in [
        "--checkpoint: c/model.bpk does not fit the model",
        "use another one",
        "token_decoder.tokens.NeoX.embed_in.weight: shape [320, 64], the model has [384, 64]\n",
    ] {
        assert!(written.contains(part), "{written}");
    }
}

#[test]
fn a_run_that_diverges_says_so() {
    let dir = with_text();
    let refused = format!("{TINY} --lr 1e308 --out none");
    fails(dir.path(), &refused, &["--lr 1e308: must be above 0 and at most 1e30"]);
    assert!(!dir.path().join("none").exists());
    let line = format!("{TINY} --steps 3 --lr 1e30 --warmup 0 --out far");
    fails(dir.path(), &line, &["far: the training diverged", "--lr"]);
}

#[test]
fn what_does_not_fit_into_memory_is_refused_with_what_does() {
    let dir = with_text();
    let large = "--preset vanilla-410m --context 2048 --batch 8000";
    for (line, says) in [
        (format!("train --corpus text.txt {large}"), "a larger --accumulate, or --recompute"),
        (format!("train --corpus text.txt {large} --recompute"), "a larger --accumulate)"),
        (format!("bench eval {large}"), "the largest batch that fits is "),
        (format!("bench train {large}"), "vanilla-410m takes "),
    ] {
        fails(dir.path(), &line, &["8000", "flex has", says]);
    }
    assert!(!dir.path().join("runs").exists() && !dir.path().join("data").exists());
}

/// Every write to `/dev/full` fails.
#[test]
#[cfg(target_os = "linux")]
fn a_full_output_fails_and_a_closed_one_does_not() {
    let dir = with_text();
    let printed = ["presets", "--help", "--version", "train --help"].map(String::from);
    for line in printed.into_iter().chain([format!("{TINY} --steps 1")]) {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = command(dir.path(), &line);
        let output = command.stdout(full).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {error}");
        assert!(error.contains("cannot write to stdout"), "{line}: {error}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(dir.path(), "presets").stdout(writer).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{error}");
}
