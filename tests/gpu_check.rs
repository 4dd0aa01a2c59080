//! `doctor` and `gpu-check`, on the processor.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{command, fails, fails_as, golden, json, one_at_a_time, succeeds};

/// The arguments of a check that takes seconds.
const TINY: &str = "gpu-check --quick --device flex --presets debug-block,debug-vanilla \
                    --curve-preset debug-block --steps 6 --lengths 16:16 --batch 2 --context 32";

/// The lines of a table by the words before their state.
fn state<'a>(table: &'a str, subject: &str) -> &'a str {
    let line = table.lines().find(|line| line.starts_with(&format!("{subject}  ")));
    let line = line.unwrap_or_else(|| panic!("no {subject}: {table}"));
    line[subject.len()..].split_whitespace().next().unwrap_or_default()
}

#[test]
fn doctor_finds_the_devices_of_this_machine_and_the_remedies_of_the_others() {
    let _guard = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let table = succeeds(dir.path(), "doctor");
    for subject in ["device flex", "peaks of flex", "libdevice", "CubeCL's cache"] {
        assert_eq!(state(&table, subject), "ok", "{table}");
    }
    assert!(table.contains("GFLOP/s") && table.contains("computes in f32"), "{table}");
    for subject in
        ["NVIDIA driver", "NVRTC", "CUDA headers", "Vulkan loader", "NCCL (several GPUs)"]
    {
        assert!(["ok", "missing"].contains(&state(&table, subject)), "{table}");
    }
    assert!(table.ends_with("the device flex can be used\n"), "{table}");
}

#[test]
fn doctor_fails_without_a_panic_if_the_device_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    // no machine has ten GPUs here; a build without CUDA has no such device at all
    let output = command(dir.path(), "doctor --device cuda:9").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(state(&table, "device cuda:9"), "missing", "{table}");
    assert_eq!(state(&table, "peaks of cuda:9"), "unknown", "{table}");
    assert!(!table.contains("panicked"), "{table}");
    assert!(String::from_utf8_lossy(&output.stderr).is_empty());
}

#[test]
fn a_check_of_flex_passes_and_writes_a_report() {
    let _guard = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let line = format!("{TINY} --out out --golden '{}'", golden("").display());
    let said = succeeds(dir.path(), &line);
    let out = dir.path().join("out");
    let parts =
        ["doctor", "goldens", "goldens-bf16", "cached", "curve", "soak", "decode-1", "train"];
    for part in parts {
        let result = json(&out.join(format!("{part}.json")));
        assert_eq!(result["state"], "passed", "{result:#}");
        assert!(result["seconds"].as_f64().unwrap() > 0.0);
        assert!(said.contains(&format!("{part:<12} passed")), "{said}");
    }
    let data = |part: &str| json(&out.join(format!("{part}.json")))["data"].clone();
    let cases: Vec<Value> = serde_json::from_value(data("goldens")).unwrap();
    assert!(cases.len() > 50, "{}", cases.len());
    let cases: Vec<Value> = serde_json::from_value(data("goldens-bf16")).unwrap();
    let cases: BTreeSet<&str> = cases.iter().filter_map(|row| row["case"].as_str()).collect();
    assert_eq!(cases, BTreeSet::from(["lookup_prefix", "vanilla"]));
    // caches in bf16 change the logits by less than the tolerance of bf16, and more than that of f32
    let cached: Vec<Value> = serde_json::from_value(data("cached")).unwrap();
    assert_eq!(cached.len(), 2 * 2 * 3);
    for row in cached {
        let logits = row["logits"].as_f64().unwrap();
        assert_eq!(logits > 1e-4, row["precision"] == "bf16", "{row}");
    }
    // the same arithmetic twice: the curves are equal
    let curve = data("curve");
    assert_eq!(curve["device"], curve["flex"]);
    assert_eq!(curve["device"].as_array().unwrap().len(), 6);
    assert_eq!(curve["bf16"].as_array().unwrap().len(), 6);
    assert_ne!(curve["device"], curve["bf16"]);
    assert!(data("decode-1")["rows"][0]["rate"]["median"].as_f64().unwrap() > 0.0);
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    for part in ["flex is not a GPU", "Not checked", "## Decoding 16:16: passed", "debug-vanilla"] {
        assert!(report.contains(part), "{part}: {report}");
    }

    // a finished check is not begun anew, and resuming it runs nothing
    fails(dir.path(), &line, &["--out", "--resume"]);
    let log = out.join("train.log");
    let written = || std::fs::metadata(&log).unwrap().modified().unwrap();
    let before = written();
    succeeds(dir.path(), &format!("{line} --resume"));
    assert_eq!(before, written());
    let other = line.replace("--steps 6", "--steps 7");
    fails(dir.path(), &format!("{other} --resume"), &["--resume", "other settings"]);
}

#[test]
fn a_part_that_cannot_run_is_reported_and_the_others_go_on() {
    let _guard = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let line = format!("{TINY} --out out --golden empty");
    let output = command(dir.path(), &line).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report = std::fs::read_to_string(dir.path().join("out/report.md")).unwrap();
    assert!(report.contains("| goldens | BROKEN |"), "{report}");
    assert!(report.contains("The last lines of `goldens.log`"), "{report}");
    assert!(report.contains("NAME.golden.safetensors"), "{report}");
    assert!(report.contains("| train | passed |"), "{report}");
}

#[test]
fn a_check_of_a_device_that_cannot_be_opened_begins_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let golden = golden("");
    let line = format!("gpu-check --device cuda:9 --out out --golden '{}'", golden.display());
    fails(dir.path(), &line, &["--device cuda"]);
    assert!(!dir.path().join("out").exists());
    let mut without = command(dir.path(), "gpu-check --device flex");
    fails_as(without.env_remove("CARGO_MANIFEST_DIR"), 1, &["--golden"]);
    fails(dir.path(), "gpu-check --device flex --golden no", &["--golden no"]);
    let line =
        format!("gpu-check --presets blok-170m --device flex --golden '{}'", golden.display());
    fails(dir.path(), &line, &["blok-170m", "block-170m"]);
}

#[test]
fn gpu_tests_say_what_they_lack() {
    let dir = tempfile::tempdir().unwrap();
    let run = |command: &mut std::process::Command| {
        let output = command.env_remove("CARGO_MANIFEST_DIR").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = run(&mut command(dir.path(), "gpu-tests"));
    assert!(said.contains(".ci/gpu") && said.contains("checkout"), "{said}");
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let said = run(command(checkout, "gpu-tests").env("PATH", dir.path()));
    for program in ["bash", "cargo", "cc", "python3", "apt-get"] {
        assert!(said.contains(&format!("`{program}` (install ")), "{program}: {said}");
    }
}

/// Copies the libraries that a program needs from the system, as a machine without Rust has them.
#[cfg(target_os = "linux")]
fn copy_system_libraries(program: &Path, root: &Path) {
    let output = std::process::Command::new("ldd").arg(program).output().unwrap();
    for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
        if word.starts_with('/') && Path::new(word).exists() {
            let copy = root.join(word.trim_start_matches('/'));
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::copy(word, copy).unwrap();
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_bundle_runs_where_there_is_nothing_else() {
    use std::process::Command;

    let _guard = one_at_a_time();
    let root = tempfile::tempdir().unwrap();
    let cases = root.path().join("cases");
    std::fs::create_dir(&cases).unwrap();
    for kind in ["json", "model.safetensors", "golden.safetensors"] {
        // one case keeps the archive small
        let file = format!("vanilla.{kind}");
        std::fs::copy(golden(&file), cases.join(&file)).unwrap();
    }
    let said = succeeds(root.path(), "gpu-check --bundle bundle --golden cases");
    assert!(said.contains("run.sh gpu-check --quick"), "{said}");
    let bundle = root.path().join("bundle");
    let size = |path: PathBuf| std::fs::metadata(path).unwrap().len();
    let built = PathBuf::from(env!("CARGO_BIN_EXE_block-transformer"));
    if Command::new("strip").arg("--version").output().is_ok() {
        assert!(size(bundle.join("block-transformer")) < size(built.clone()));
    }
    fails(root.path(), "gpu-check --bundle bundle --golden cases", &["--bundle", "exists"]);

    let run = |command: &mut Command, arguments: &[&str]| {
        let output = command.args(arguments).env_clear().output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    };
    let presets = run(&mut Command::new(bundle.join("run.sh")), &["presets"]);
    assert!(presets.contains("block-170m"), "{presets}");
    // a folder tree with nothing but a shell, the system's libraries and the bundle
    copy_system_libraries(&built, root.path());
    copy_system_libraries(Path::new("/bin/sh"), root.path());
    std::fs::create_dir_all(root.path().join("bin")).unwrap();
    std::fs::copy("/bin/sh", root.path().join("bin/sh")).unwrap();
    let program = ["/usr/sbin/chroot", "/usr/bin/chroot", "/sbin/chroot"].map(Path::new);
    let program = program.into_iter().find(|path| path.exists());
    let chroot = || {
        let mut command = Command::new(program.unwrap_or(Path::new("chroot")));
        command.arg(root.path());
        command
    };
    if !chroot().args(["/bin/sh", "-c", "exit 0"]).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user cannot use `chroot`");
        return;
    }
    let presets = run(&mut chroot(), &["/bundle/run.sh", "presets"]);
    assert!(presets.contains("block-170m"), "{presets}");
    // the cases beside the program are found, and its own processes find its libraries
    std::fs::create_dir(root.path().join("tmp")).unwrap();
    std::fs::create_dir(root.path().join("dev")).unwrap();
    std::fs::write(root.path().join("dev/null"), "").unwrap();
    let check: Vec<&str> = TINY.split_whitespace().chain(["--out", "/tmp/out"]).collect();
    let said = run(&mut chroot(), &[&["/bundle/run.sh"], &check[..]].concat());
    assert!(said.contains("goldens      passed") && said.contains("1 of 1 cases"), "{said}");
}
