//! Bytes and time of a step over a network of a known speed, beside what `plan` predicts. It needs root and a
//! quiet machine: `cargo test --workspace --features block-transformer-cli/mpi --test ranks --release -- --ignored network`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::link::{Link, SPACES};
use crate::support::{self, words};

/// Two ranks, one in each namespace.
fn job(dir: &Path, line: &str) -> Command {
    let agent = dir.join("agent.sh");
    let of = |(space, address): (&str, &str)| {
        format!("{address}) exec ip netns exec {space} sh -c \"$*\" ;;\n")
    };
    let cases: String = SPACES.map(of).concat();
    // the launcher calls the agent like ssh: host, then the command
    let text = format!("#!/bin/sh\nhost=$1; shift\ncase $host in\n{cases}esac\n");
    std::fs::write(&agent, text).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&agent, executable).unwrap();
    let mut command = Command::new("ip");
    let (first, hosts) = (SPACES[0].0, SPACES.map(|(_, address)| address).join(","));
    command.current_dir(dir).args(["netns", "exec", first, "mpirun", "-n", "2", "--host", &hosts]);
    for (key, value) in [
        ("plm_rsh_agent", agent.to_str().unwrap()),
        // the ranks are on one machine, and must not use its memory
        ("btl", "tcp,self"),
        ("btl_tcp_if_include", "10.99.7.0/24"),
        ("oob_tcp_if_include", "10.99.7.0/24"),
        ("orte_keep_fqdn_hostnames", "1"),
    ] {
        command.args(["--mca", key, value]);
    }
    command.args([
        "--bind-to",
        "none",
        "-x",
        "RAYON_NUM_THREADS=1",
        "--wdir",
        dir.to_str().unwrap(),
    ]);
    command.arg(env!("CARGO_BIN_EXE_block-transformer")).args(words(line));
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command
}

/// The median time of the last steps of a run, in seconds.
fn step_time(dir: &Path, run: &str) -> f64 {
    let rows = std::fs::read_to_string(dir.join(run).join("metrics.jsonl")).unwrap();
    let rows = rows.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap());
    let ends: Vec<f64> = rows.map(|row| row["seconds"].as_f64().unwrap()).collect();
    let mut steps: Vec<f64> = ends.windows(2).map(|pair| pair[1] - pair[0]).skip(1).collect();
    steps.sort_by(f64::total_cmp);
    steps[steps.len() / 2]
}

#[test]
#[ignore = "a measurement of minutes, which needs root"]
fn network_of_known_speed() {
    let dir = support::with_text();
    let dir = dir.path();
    let mut table = String::from(
        "preset, Gbit/s, overlap, MB sent per step and rank, seconds per step, predicted\n",
    );
    let steps = 8;
    for (preset, tokens) in
        [("block-33m", "--batch 8 --context 256"), ("block-170m", "--batch 4 --context 128")]
    {
        let train = |out: &str, more: &str| {
            format!(
                "train --preset {preset} --corpus text.txt --byte-level {tokens} --steps {steps} --validate-every 1000 \
                 --validation-windows 1 --checkpoint-every 1000 --compare-every 0 --out {out} {more}"
            )
        };
        for rate in [1.0, 10.0] {
            let link = Link::new(rate * 1e9, Duration::from_micros(200));
            for overlap in [false, true] {
                let out = format!("{preset}-{rate}-{overlap}");
                let before = link.bytes();
                let line = train(&out, &format!("--overlap={overlap}"));
                let output = job(dir, &line).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                let sent = (link.bytes() - before) as f64 / f64::from(steps) / 1e6;
                let seconds = step_time(dir, &out);
                let _ = writeln!(table, "{preset}, {rate}, {overlap}, {sent:.1}, {seconds:.3}");
                print!("{table}");
            }
        }
    }
}
