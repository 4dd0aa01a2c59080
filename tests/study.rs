//! The toy study from its declaration to its report.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::{RngExt, SeedableRng};

use crate::support::{command, fails, fails_as, one_at_a_time, succeeds, was_killed, with_text};

const KILLS: usize = 10;
const REPORT: [&str; 5] =
    ["report.md", "loss-speed.svg", "loss-speed.png", "loss-place.svg", "loss-place.png"];

/// The toy study in folders of its own, with predicted durations.
fn toy(dir: &Path, folder: &str) -> Command {
    let line = format!(
        "study toy --corpus text.txt --out {folder}/runs --ledger {folder}/ledger.jsonl --report {folder}/reports"
    );
    let mut command = command(dir, &line);
    command.env("BLOCK_TRANSFORMER_STUDY_CLOCK", "predicted");
    // the checkout may get a commit while the test runs
    command.env("BLOCK_TRANSFORMER_COMMIT", "0123456789");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The ledger, the report and the figures.
fn results(dir: &Path, folder: &str) -> Vec<Vec<u8>> {
    let folder = dir.join(folder);
    let files = REPORT.map(|name| folder.join("reports/toy").join(name));
    let all = [folder.join("ledger.jsonl")].into_iter().chain(files);
    all.map(|path| std::fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")))
        .collect()
}

#[test]
fn ten_kills_change_no_byte_of_ledger_and_figures() {
    let _alone = one_at_a_time();
    let dir = with_text();
    let dir = dir.path();
    let begun = std::time::Instant::now();
    assert!(toy(dir, "straight").status().unwrap().success());
    let mut longest = begun.elapsed().as_millis() as u64;
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(10);
    let mut kills = 0;
    while kills < KILLS {
        let mut child = toy(dir, "killed").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(rng.random_range(0..longest)));
        let _ = child.kill();
        let status = child.wait().unwrap();
        if was_killed(status) {
            kills += 1;
        } else {
            assert!(status.success(), "{status}");
            // the study ended before ten kills: start it again, and kill it sooner
            std::fs::remove_dir_all(dir.join("killed")).unwrap();
            (kills, longest) = (0, longest / 2);
            assert!(longest > 20, "the study is too short to be killed {KILLS} times");
        }
    }
    assert!(toy(dir, "killed").status().unwrap().success());
    for (i, (straight, killed)) in
        results(dir, "straight").iter().zip(results(dir, "killed")).enumerate()
    {
        let lines = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).lines().map(String::from).collect::<Vec<_>>()
        };
        let (ours, theirs) = (lines(straight), lines(&killed));
        let other = ours.iter().zip(&theirs).find(|(a, b)| a != b);
        assert!(
            *straight == killed,
            "file {i} differs ({} and {} lines): {other:?}",
            ours.len(),
            theirs.len()
        );
    }
}

#[test]
fn a_study_ends_with_a_report_and_trains_nothing_twice() {
    let _alone = one_at_a_time();
    let dir = with_text();
    let dir = dir.path();
    let study = "study toy --corpus text.txt --validation text.txt";
    let printed = succeeds(dir, &format!("{study} --jobs 2"));
    assert!(printed.contains("8 of 8 runs"), "{printed}");
    let runs = dir.join("runs/studies");
    let read = |name: &str| std::fs::read(runs.join("reports/toy").join(name)).unwrap();
    let report = String::from_utf8(read("report.md")).unwrap();
    assert!(report.contains("| The vanilla models have the lower loss |"), "{report}");
    assert!(
        report.contains("(loss-speed.svg)") && report.contains("Hollow marks are published values"),
        "{report}"
    );
    // every folder of a run can go once everything is measured
    let folders = std::fs::read_dir(&runs).unwrap().flatten().map(|entry| entry.path());
    let folders: Vec<_> = folders.filter(|path| path.join("train.toml").exists()).collect();
    assert_eq!(folders.len(), 8);
    let before: Vec<Vec<u8>> = REPORT.iter().map(|name| read(name)).collect();
    let ledger = std::fs::read(runs.join("ledger.jsonl")).unwrap();
    // 8 runs with two measurements, 4 shapes with two
    assert_eq!(ledger.split_inclusive(|&byte| byte == b'\n').count(), 24);
    let private = dir.display().to_string();
    assert!(!String::from_utf8_lossy(&ledger).contains(&private) && !report.contains(&private));
    folders.iter().for_each(|folder| std::fs::remove_dir_all(folder).unwrap());
    std::fs::remove_dir_all(runs.join("reports")).unwrap();
    for again in ["study toy --figures-only", "study toy"] {
        let printed = succeeds(dir, again);
        assert!(!printed.contains("step") && !printed.contains("measuring"), "{printed}");
        let now: Vec<Vec<u8>> = REPORT.iter().map(|name| read(name)).collect();
        assert!(now == before, "{again}");
        assert!(std::fs::read(runs.join("ledger.jsonl")).unwrap() == ledger);
    }
    // a study with an equal run shares it
    let own = r#"
title = "Own"
question = "?"
corpus = "any text"
[scale.cpu.train]
tokenizer = "bytes"
context = 32
batch = 2
steps = 20
lr = 3e-3
[[grid]]
axes = { family = ["block"], width = [32], layers = [2], seed = [1] }
[scale.cpu.measure]
loss = { tokens = 1000 }
[measure]
loss = {}
"#;
    std::fs::write(dir.join("own.toml"), own).unwrap();
    let printed = succeeds(dir, "study own.toml");
    assert!(printed.contains("1 of 1 runs, without figures\n"), "{printed}");
    assert!(!printed.contains("step"), "{printed}");
    let plan = succeeds(dir, "study own.toml --plan --flops 1e9");
    assert!(plan.contains("block-32x1+1-b4-s1-") && plan.contains("yes"), "{plan}");
    let plan = succeeds(dir, "study toy --plan --flops 1e9 --only 'block, tiny, seed 1'");
    assert!(plan.contains("block-32x1+1-b4-s1-") && !plan.contains("vanilla"), "{plan}");
    // what was measured on other texts or devices is not mixed with new measurements
    let text = std::fs::read_to_string(dir.join("text.txt")).unwrap();
    std::fs::write(dir.join("other.txt"), text.replace("line", "word")).unwrap();
    for texts in ["--corpus other.txt --validation text.txt", "--corpus text.txt"] {
        let says = ["--ledger", "ledger.jsonl", "other texts", "use another ledger"];
        fails(dir, &format!("study toy {texts}"), &says);
    }
    let path = runs.join("ledger.jsonl");
    let rows = String::from_utf8(ledger).unwrap();
    std::fs::write(&path, rows.replace("\"device\":\"flex\"", "\"device\":\"cuda\"")).unwrap();
    let says = ["--ledger", "on the device cuda, and this is flex", "use another ledger"];
    fails(dir, study, &says);
    // reading changes nothing, not even a line without an end
    std::fs::write(&path, rows.trim_end()).unwrap();
    succeeds(dir, "study toy --figures-only");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), rows.trim_end());
    succeeds(dir, "study toy");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), rows);
}

/// A run that begins with the weights of another, whose folder can be deleted as any other.
const UPTRAINED: &str = r#"
title = "Own"
question = "?"
corpus = "any text"
[scale.cpu.train]
tokenizer = "bytes"
context = 32
batch = 2
steps = 5
lr = 3e-3
[values.start]
vanilla = { shape = { family = "vanilla" } }
uptrained = { shape = { family = "block", embedder = "projection" }, from = { start = "vanilla" }, uptrain = "partition" }
[[grid]]
axes = { width = [32], layers = [2], start = ["vanilla", "uptrained"], seed = [0] }
[measure]
"#;

#[test]
fn a_run_that_others_begin_with_is_trained_again_if_its_folder_is_gone() {
    let _alone = one_at_a_time();
    let dir = with_text();
    let dir = dir.path();
    std::fs::write(dir.join("own.toml"), UPTRAINED).unwrap();
    let study = "study own.toml --corpus text.txt";
    let source = "layers 2, vanilla, width 32, seed 0";
    let printed = succeeds(dir, &format!("{study} --only '{source}'"));
    assert!(printed.contains("1 of 2 runs"), "{printed}");
    let runs = dir.join("runs/studies");
    let ledger = || std::fs::read_to_string(runs.join("ledger.jsonl")).unwrap();
    let before = ledger();
    let folders = std::fs::read_dir(&runs).unwrap().flatten().map(|entry| entry.path());
    let folder = folders.into_iter().find(|path| path.join("train.toml").exists()).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let printed = succeeds(dir, study);
    assert!(printed.contains(source) && printed.contains("2 of 2 runs"), "{printed}");
    assert!(folder.exists());
    assert!(ledger().starts_with(&before) && ledger().lines().count() == 2, "{}", ledger());
}

#[test]
fn the_plan_at_the_paper_s_scale_has_every_study() {
    let dir = tempfile::tempdir().unwrap();
    let plan = succeeds(dir.path(), "study --plan --scale paper --flops 1e14");
    let studies = [
        "frontier",
        "budget",
        "block-length",
        "allocation",
        "components",
        "uptrain",
        "context",
        "megabyte",
    ];
    for study in studies {
        assert!(plan.lines().any(|line| line.starts_with(study)), "{study}: {plan}");
    }
    assert!(plan.contains("H100 hours") && !plan.contains("toy"), "{plan}");
}

/// Misspelt names are found before anything is trained, planned or drawn.
#[test]
fn a_misspelt_declaration_is_an_error_of_every_command() {
    let dir = with_text();
    let dir = dir.path();
    let claim = "[[claim]]\nclaim = \"c\"\ntest = \"rises\"\nmetric = \"train.train_loss\"";
    std::fs::write(dir.join("own.toml"), format!("{UPTRAINED}{claim}\naxis = \"height\"")).unwrap();
    std::fs::write(dir.join("ledger.jsonl"), "").unwrap();
    for flags in ["--corpus text.txt", "--plan --flops 1e9", "--figures-only"] {
        let line = format!("study own.toml --ledger ledger.jsonl {flags}");
        fails(dir, &line, &["own.toml: claim \"c\": axis", "height", "layers, start, width"]);
    }
    assert!(!dir.join("runs").exists());
    // nor is anything trained whose measurement lacks a text
    std::fs::write(dir.join("needle.toml"), format!("{UPTRAINED}needle = {{}}")).unwrap();
    let line = "study needle.toml --corpus text.txt --ledger ledger.jsonl";
    fails(dir, line, &["error: --validation: ", "a validation text"]);
    assert_eq!(std::fs::read(dir.join("ledger.jsonl")).unwrap(), b"");
}

#[test]
fn one_study_at_a_time_writes_a_ledger() {
    let dir = with_text();
    let dir = dir.path();
    let lock = std::fs::File::create(dir.join("ledger.jsonl.lock")).unwrap();
    lock.lock().unwrap();
    let says = ["--ledger ledger.jsonl", "another study writes this ledger"];
    fails(dir, "study toy --corpus text.txt --ledger ledger.jsonl", &says);
    assert!(!dir.join("ledger.jsonl").exists());
    // plans and reports read it
    succeeds(dir, "study toy --plan --flops 1e9 --ledger ledger.jsonl");
}

#[test]
fn mistakes_are_named_with_their_remedy() {
    let dir = with_text();
    let dir = dir.path();
    std::fs::write(dir.join("bad.toml"), "title = 3").unwrap();
    let declared = |grid: &str| {
        format!(
            "title = \"t\"\nquestion = \"q\"\ncorpus = \"c\"\n[[grid]]\naxes = {{ seed = [0] }}\n{grid}"
        )
    };
    std::fs::write(dir.join("shape.toml"), declared("")).unwrap();
    let key =
        "set = { shape = { family = \"block\", width = 64, layers = 2 }, lr = 1e-3, stepz = 3 }";
    std::fs::write(dir.join("key.toml"), declared(key)).unwrap();
    std::fs::write(dir.join("ledger.jsonl"), "{}\n").unwrap();
    std::fs::write(dir.join("empty.jsonl"), "").unwrap();
    for (line, says) in [
        ("study", &["NAME", "--list"][..]),
        ("study frontear", &["frontear: there is no such study", "frontier"]),
        ("study toy", &["--corpus", "any text"]),
        ("study toy --scale paper", &["--scale", "no runs at the scale paper", "cpu"]),
        ("study toy --corpus text.txt --only tiny", &["--only", "no run of toy is called tiny"]),
        ("study bad.toml", &["bad.toml", "title"]),
        ("study shape.toml", &["run seed 0: shape: needed"]),
        ("study key.toml", &["study key: run seed 0: stepz: unknown key; did you mean `steps`?"]),
        ("study toy --corpus text.txt --ledger ledger.jsonl", &["--ledger", "ledger.jsonl:1"]),
        (
            "study toy --corpus text.txt --validation no.txt",
            &["--validation no.txt", "give a text file"],
        ),
        ("study toy --corpus no.txt", &["--corpus no.txt", "give a recipe, a text file"]),
        ("study toy --validation text.txt", &["error: --corpus: the study needs"]),
        ("study toy --figures-only", &["--ledger", "no such file"]),
        ("study toy --figures-only --ledger empty.jsonl", &["--ledger empty.jsonl", "toy", "cpu"]),
        ("study --plan --only x", &["NAME", "--only"]),
        ("study toy --plan --flops 1e9 --only tiny", &["--only: no run of toy is called tiny"]),
    ] {
        fails(dir, line, says);
    }
    assert!(!dir.join("runs/studies/reports").exists());
    for (line, says) in [
        ("study toy --skip shouting", &["shouting", "--skip", "loss, position, needle"][..]),
        ("study toy --figures-only --only x", &["--figures-only", "--only"]),
        ("study toy --plan --flops nan", &["--flops", "above 0"]),
        ("study toy --plan --flops 0", &["--flops", "above 0"]),
    ] {
        fails_as(&mut command(dir, line), 2, says);
    }
}
