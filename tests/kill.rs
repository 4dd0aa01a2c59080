//! SIGKILL at random moments: the resumed run ends with the same result as a run that was never
//! interrupted.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use block_transformer_checkpoint::RunFolder;
use rand::{RngExt, SeedableRng};

use crate::support::{TINY, command, fails, one_at_a_time, succeeds, was_killed, with_text};

const KILLS: usize = 20;
const STEPS: &str = "600";

fn train(dir: &Path, out: &str, resume: bool) -> Child {
    let begin = format!("{TINY} --steps {STEPS} --checkpoint-every 5 --validate-every 50");
    let line = if resume { "train --resume" } else { &begin };
    let mut command = command(dir, &format!("{line} --out {out}"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn twenty_kills_change_nothing() {
    let _alone = one_at_a_time();
    let dir = with_text();
    let dir = dir.path();
    assert!(train(dir, "straight", false).wait().unwrap().success());

    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(20);
    let (mut kills, mut longest) = (0, 300);
    while kills < KILLS {
        // a run that was killed before it wrote its configuration is started again
        let resume = dir.join("killed/train.toml").exists();
        let mut child = train(dir, "killed", resume);
        std::thread::sleep(Duration::from_millis(rng.random_range(0..longest)));
        let _ = child.kill();
        let status = child.wait().unwrap();
        if was_killed(status) {
            kills += 1;
        } else {
            assert!(status.success(), "{status}");
            // the run ended before twenty kills: start it again, and kill it sooner
            std::fs::remove_dir_all(dir.join("killed")).unwrap();
            (kills, longest) = (0, longest / 2);
            assert!(longest > 10, "the run is too short to be killed {KILLS} times");
        }
    }
    assert!(train(dir, "killed", true).wait().unwrap().success());
    // the optimizer's file holds its entries in no fixed order
    let model = |run: &str| {
        let checkpoint = dir.join(run).join(format!("checkpoints/step-000{STEPS}"));
        std::fs::read(checkpoint.join("model.bpk")).unwrap()
    };
    assert!(model("straight") == model("killed"));
    // the metrics are the same too, and contain no step twice
    let losses = |run: &str| -> Vec<(u64, u64)> {
        let rows = std::fs::read_to_string(dir.join(run).join("metrics.jsonl")).unwrap();
        let rows = rows.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap());
        rows.filter_map(|row| Some((row["step"].as_u64()?, row["loss"].as_f64()?.to_bits())))
            .collect()
    };
    assert_eq!(losses("straight"), losses("killed"));
}

/// The command line of a job that a queue starts again is always the same.
#[test]
fn a_requeued_job_begins_continues_and_finishes_with_one_command() {
    let _alone = one_at_a_time();
    let dir = with_text();
    let dir = dir.path();
    let job = |out: &str| {
        format!("{TINY} --steps 40 --checkpoint-every 5 --validate-every 20 --out {out}")
    };
    succeeds(dir, &job("straight"));
    let again = format!("{} --resume-or-start", job("killed"));
    let start = || {
        let mut command = command(dir, &again);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    // kills while the corpus is prepared, the folder is made and the first step runs
    for milliseconds in [0, 10, 20, 40, 80, 120, 160, 240, 320, 400] {
        let mut child = start();
        std::thread::sleep(Duration::from_millis(milliseconds));
        let _ = child.kill();
        let status = child.wait().unwrap();
        assert!(was_killed(status) || status.success(), "{milliseconds}: {status}");
    }
    // the folders that kills between two system calls leave: without a configuration, with half a
    // one, and with half a checkpoint
    for (run, half) in
        [("a", ""), ("b", ".train.toml.partial-1"), ("c", "checkpoints/.step.partial-1/x")]
    {
        let half = dir.join(run).join(half);
        std::fs::create_dir_all(half.parent().unwrap()).unwrap();
        std::fs::create_dir_all(dir.join(run)).unwrap();
        if half.file_name().is_some_and(|name| name != run) {
            std::fs::write(half, "format = ").unwrap();
        }
        succeeds(dir, &format!("{} --resume-or-start", job(run)));
    }
    let continued = succeeds(dir, &again);
    assert!(continued.contains("training loss"), "{continued}");
    // a run that has ended stays as it is
    let ended = succeeds(dir, &again);
    assert!(ended.contains("resuming after step 40 of 40"), "{ended}");
    let model =
        |run: &str| std::fs::read(dir.join(run).join("checkpoints/step-000040/model.bpk")).unwrap();
    for run in ["killed", "a", "b", "c"] {
        assert!(model("straight") == model(run), "{run}");
    }
    let other = format!("{again} --lr 1");
    fails(dir, &other, &["--lr 1", "began with"]);
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_with_a_checkpoint_and_130() {
    let dir = with_text();
    let dir = dir.path();
    let mut child = train(dir, "run", false);
    // the run has started when its first checkpoint exists
    for _ in 0..600 {
        if dir.join("run/checkpoints/step-000005").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let newest = RunFolder::new(&dir.join("run")).checkpoints().pop().unwrap();
    let metrics = std::fs::read_to_string(dir.join("run/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert!(newest.ends_with(format!("step-{:06}", last["step"].as_u64().unwrap())));
}
