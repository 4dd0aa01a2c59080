//! Ranks that are killed, stopped or told to stop, and a disk without room.

use std::time::Duration;

use rand::{RngExt, SeedableRng};

use crate::job::{
    ends_promptly, fails, job, one_error, ranks_of, scripted, signal, start, succeeds, text,
    wait_for,
};
use crate::support::{self, TINY, one_at_a_time, with_text};
use crate::training::{losses, weights};

/// SIGKILLs in a test; `RANK_KILLS` asks for more.
fn kills() -> usize {
    std::env::var("RANK_KILLS").map_or(4, |kills| kills.parse().unwrap())
}

fn line(out: &str) -> String {
    format!("{TINY} --steps 400 --checkpoint-every 5 --validate-every 100 --out {out}")
}

#[test]
fn a_killed_rank_ends_the_job_and_the_resumed_run_is_the_uninterrupted_one() {
    let _alone = one_at_a_time();
    let dir = with_text();
    let dir = dir.path();
    succeeds(job(dir, 2, &line("straight")));
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut killed = 0;
    while killed < kills() {
        let child = start(job(dir, 2, &format!("{} --resume-or-start", line("killed"))));
        std::thread::sleep(Duration::from_millis(rng.random_range(300..1500)));
        let ranks = ranks_of(&child);
        // a job that has ended has no ranks
        if let Some(&victim) = ranks.get(rng.random_range(0..2)) {
            signal(victim, "-KILL");
        }
        let output = ends_promptly(child);
        if !output.status.success() {
            killed += 1;
            assert!(text(&output.stderr).contains("signal 9"), "{}", text(&output.stderr));
            assert!(ranks.iter().all(|rank| !is_running(*rank)), "a rank goes on");
        } else {
            // it had ended before
            std::fs::remove_dir_all(dir.join("killed")).unwrap();
        }
    }
    succeeds(job(dir, 2, "train --resume --out killed"));
    assert_eq!(losses(dir, "straight"), losses(dir, "killed"));
    assert!(weights(dir, "straight") == weights(dir, "killed"));
}

fn is_running(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn signals_of_a_queue_write_a_checkpoint_and_ask_for_another_start() {
    let _alone = one_at_a_time();
    let dir = with_text();
    let dir = dir.path();
    succeeds(job(dir, 2, &line("straight")));
    for (i, name) in ["-USR1", "-TERM"].into_iter().enumerate() {
        let out = format!("queue{i}");
        let child = start(job(dir, 2, &line(&out)));
        wait_for(&dir.join(&out).join("checkpoints/step-000005"));
        // one rank gets the signal, and all end at the same step
        signal(ranks_of(&child)[i], name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(75), "{name}: {}", text(&output.stderr));
        let done = losses(dir, &out).len();
        let newest = format!("{out}/checkpoints/step-{done:06}");
        assert!(dir.join(&newest).exists(), "{newest}");
        succeeds(job(dir, 2, &format!("train --resume --out {out}")));
        assert!(weights(dir, "straight") == weights(dir, &out));
    }
}

#[test]
fn a_rank_that_is_stopped_for_a_while_delays_the_others() {
    let _alone = one_at_a_time();
    let dir = with_text();
    let dir = dir.path();
    succeeds(job(dir, 2, &line("straight")));
    let child = start(job(dir, 2, &line("paused")));
    wait_for(&dir.join("paused/checkpoints/step-000005"));
    let rank = ranks_of(&child)[1];
    signal(rank, "-STOP");
    std::thread::sleep(Duration::from_secs(3));
    let before = losses(dir, "paused").len();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(losses(dir, "paused").len(), before, "no step is done without the rank");
    signal(rank, "-CONT");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(weights(dir, "straight") == weights(dir, "paused"));
}

/// The size limit of files stands for a full disk: writes fail, and the signal that comes with it is ignored.
#[test]
fn a_full_disk_of_rank_0_ends_all_ranks_and_the_run_goes_on_with_room() {
    let _alone = one_at_a_time();
    let dir = with_text();
    let dir = dir.path();
    succeeds(job(dir, 2, &line("straight")));
    let child = start(job(dir, 2, &line("full")));
    wait_for(&dir.join("full/checkpoints/step-000005"));
    signal(ranks_of(&child)[0], "-KILL");
    let _ = ends_promptly(child);
    let limited =
        "if [ $OMPI_COMM_WORLD_RANK = 0 ]; then trap '' XFSZ; ulimit -f 40; fi; exec \"$@\"";
    let output = fails(scripted(dir, 2, limited, "train --resume --out full"), &["rank 0", "full"]);
    assert!(output.contains("checkpoints") || output.contains("metrics"), "{output}");
    succeeds(job(dir, 2, "train --resume --out full"));
    assert!(weights(dir, "straight") == weights(dir, "full"));
}

#[test]
fn an_error_of_one_rank_names_it() {
    let dir = with_text();
    let dir = dir.path();
    // the second rank does not find the corpus
    support::succeeds(dir, "prepare --corpus text.txt --byte-level --out a");
    let script = "if [ $OMPI_COMM_WORLD_RANK = 1 ]; then cd ..; fi; exec \"$@\"";
    let train = "train --preset debug-block --corpus a --context 32 --batch 2 --steps 5 --out run";
    let output = scripted(dir, 2, script, train).output().unwrap();
    one_error(&output, &["rank 1", "--corpus"]);
}
