//! A run that the program wrote before checkpoints had a format number, and a run of a newer
//! format.

use std::path::Path;

use block_transformer_checkpoint::Checkpoint;
use block_transformer_weights::{HostTensors, read_tensors};
use tempfile::TempDir;

use crate::support::{fails, json, succeeds};

/// A copy of the interrupted run of format 1, and of its corpus.
fn old_run() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/run-format-1");
    copy(Path::new(fixture), dir.path());
    dir
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &place),
            false => drop(std::fs::copy(entry.path(), place).unwrap()),
        }
    }
}

/// The exported weights of a run.
fn weights(dir: &Path, run: &str) -> HostTensors {
    succeeds(dir, &format!("export --checkpoint {run} --out {run}.safetensors"));
    read_tensors(&dir.join(format!("{run}.safetensors"))).unwrap()
}

/// The largest allowed difference of a weight. A training step changes weights by up to 1e-3; with
/// other rounding (`--device ndarray`) the weights of the resumed run differ by 1e-6.
const TOLERANCE: f64 = 1e-5;

#[test]
fn a_run_of_format_1_resumes_to_the_weights_that_the_program_of_its_time_reached() {
    let dir = old_run();
    let dir = dir.path();
    succeeds(dir, "train --resume --out run");
    let resumed = weights(dir, "run");
    // the same run from its first step, whose first weights and windows must be those of that time
    let whole = "--preset debug-block --corpus corpus --steps 8 --batch 2 --context 64 \
                 --checkpoint-every 4 --validate-every 4 --validation-windows 4 --out whole";
    succeeds(dir, &format!("train {whole}"));
    let whole = weights(dir, "whole");
    let recorded = json(&dir.join("resumed-weights.json"));
    assert_eq!(resumed.len(), recorded.as_object().unwrap().len());
    for (name, tensor) in &resumed {
        let pairs = tensor.values.iter().zip(&whole[name].values);
        let difference: f32 = pairs.map(|(a, b)| (a - b).abs()).sum();
        let mean = f64::from(difference) / tensor.values.len() as f64;
        assert!(mean < TOLERANCE, "{name}: {mean}");
        let values: Vec<f64> = tensor.values.iter().map(|&value| f64::from(value)).collect();
        let mean =
            |of: fn(f64) -> f64| values.iter().map(|&x| of(x)).sum::<f64>() / values.len() as f64;
        let [first, middle, last] = [0, values.len() / 2, values.len() - 1].map(|i| values[i]);
        let ours = [mean(|x| x), mean(|x| x * x).sqrt(), first, middle, last];
        let theirs = recorded[name].as_array().unwrap();
        for (ours, theirs) in ours.iter().zip(theirs.iter().map(|value| value.as_f64().unwrap())) {
            assert!((ours - theirs).abs() < TOLERANCE, "{name}: {ours} {theirs}");
        }
    }
    let recorded = json(&dir.join("whole-state.json"));
    let state = Checkpoint::open(&dir.join("run")).unwrap().state;
    assert_eq!((state.step, Some(state.tokens)), (8, recorded["tokens"].as_u64()));
    let (ours, theirs) = (state.validation_loss.unwrap(), &recorded["validation_loss"]);
    assert!((ours - theirs.as_f64().unwrap()).abs() < TOLERANCE, "{ours} {theirs}");
    let manifest = json(&dir.join("run/checkpoints/step-000008/manifest.json"));
    assert_eq!(manifest["format"], 2);
    let configuration = std::fs::read_to_string(dir.join("run/train.toml")).unwrap();
    assert!(configuration.starts_with("format = 1\n"), "{configuration}");
}

#[test]
fn a_checkpoint_of_format_1_generates_evaluates_and_exports() {
    let dir = old_run();
    let dir = dir.path();
    let checkpoint = Checkpoint::open(&dir.join("run")).unwrap();
    assert_eq!((checkpoint.state.step, checkpoint.state.trained_context), (4, Some(64)));
    succeeds(dir, "generate --checkpoint run --prompt The --greedy --max-tokens 8");
    std::fs::create_dir(dir.join("books")).unwrap();
    std::fs::write(dir.join("books/1.txt"), "a book of several windows; ".repeat(20)).unwrap();
    let evaluation = "--books books --context 64 --out evaluation";
    succeeds(dir, &format!("eval-pg19 --checkpoint run {evaluation}"));
    succeeds(dir, "export --checkpoint run --out weights.safetensors");
    assert!(dir.join("weights.safetensors").exists());
}

#[test]
fn a_checkpoint_of_a_newer_format_is_refused_and_kept() {
    let dir = old_run();
    let dir = dir.path();
    let path = dir.join("run/checkpoints/step-000004/manifest.json");
    let newer = serde_json::json!({"format": 3, "files": json(&path)});
    std::fs::write(&path, newer.to_string()).unwrap();
    for line in ["generate --checkpoint run --prompt The", "train --resume --out run"] {
        fails(dir, line, &["step-000004", "format 3", "newer"]);
    }
    assert_eq!(json(&path), newer);
}
