//! Errors of the real binary about values, paths, checkpoints and stdout: each names the flag and a
//! remedy.

use block_transformer_checkpoint::{Checkpoint, Contents, State};
use block_transformer_text::Tokenizer;
use block_transformer_weights::HostTensors;
use block_transformer_zoo::{FamilyConfig, preset};
use burn::tensor::Device;

use crate::support::{TINY, command, fails, fails_as, with_run, with_text};

#[test]
fn a_negative_number_names_its_flag() {
    let dir = with_text();
    for (line, flag) in [
        ("train --steps -1", "--steps"),
        ("train --seed -1", "--seed"),
        ("generate --checkpoint x --prompt x --memory -1", "--memory"),
    ] {
        fails_as(&mut command(dir.path(), line), 2, &["invalid value '-1'", flag]);
    }
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
        let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
        fails(
            path,
            "export --checkpoint run --out socket",
            &["--out socket", "not a regular file"],
        );
    }
    for (line, says) in [
        ("prepare --corpus text.txt --out text.txt", &["--out text.txt", "another folder"][..]),
        ("eval-pg19 --checkpoint run --books text.txt --out text.txt", &["--out text.txt"]),
        ("eval-pg19 --checkpoint run --books none", &["--books none", "a folder of .txt files"]),
        ("eval-pg19 --checkpoint none --books books", &["--checkpoint none", "a run"]),
        ("export --checkpoint run --out run", &["--out run", "is a folder"]),
        ("export --checkpoint run --out beside/w", &["beside/config.json", "is a folder"]),
        ("export --checkpoint run --out none/w", &["--out none/w", "does not exist"]),
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
    for part in ["--checkpoint", "c/model.bpk", "does not fit the model", "use another one"] {
        assert!(written.contains(part), "{written}");
    }
}

#[test]
fn a_run_that_diverges_says_so() {
    let dir = with_text();
    let line = format!("{TINY} --steps 3 --lr 1e308 --out far");
    fails(dir.path(), &line, &["far: the training diverged", "--lr"]);
}

/// Every write to `/dev/full` fails.
#[test]
#[cfg(target_os = "linux")]
fn a_full_output_fails_and_a_closed_one_does_not() {
    let dir = with_text();
    for line in ["presets".to_string(), format!("{TINY} --steps 1")] {
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
