//! Bytes and time of a step over a network of a known speed, beside what `plan` predicts. It needs root and a
//! quiet machine: `cargo test --workspace --features block-transformer-cli/mpi --test ranks -- --ignored network --nocapture`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use block_transformer_cost::{AllReduce, Network, RankStep, bucket_bytes, late_params};
use block_transformer_zoo::FamilyConfig;

use crate::link::{Link, SPACES};
use crate::support::{self, words};

/// The time from one rank to the other.
const DELAY: Duration = Duration::from_micros(200);

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
        // with one connection, Open MPI does not send and receive at the same time
        ("btl_tcp_links", "4"),
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

/// Steps of a measured run.
const STEPS: usize = 7;
/// Sequences and tokens of a rank and step.
const SHARES: [(&str, usize, usize); 2] = [("block-33m", 8, 256), ("block-170m", 4, 128)];

/// A run of `ranks` ranks, each with its share.
fn train(preset: &str, ranks: usize, out: &str, overlap: bool) -> String {
    let (_, batch, context) = SHARES.into_iter().find(|(name, ..)| *name == preset).unwrap();
    format!(
        "train --preset {preset} --corpus text.txt --byte-level --batch {} --context {context} --steps {STEPS} \
         --validate-every 1000 --validation-windows 1 --checkpoint-every 1000 --compare-every 0 --out {out} \
         --overlap={overlap}",
        batch * ranks
    )
}

/// The time of a step of one rank without communication, while another one computes beside it.
fn compute(dir: &Path, preset: &str) -> f64 {
    let runs = ["a", "b"].map(|name| {
        let out = format!("{preset}-alone-{name}");
        let line = train(preset, 1, &out, false);
        let mut command = support::command(dir, &line);
        let command = command.env("RAYON_NUM_THREADS", "1").stdout(Stdio::null());
        (command.spawn().unwrap(), out)
    });
    let times = runs.map(|(mut run, out)| {
        assert!(run.wait().unwrap().success());
        step_time(dir, &out)
    });
    times[0].max(times[1])
}

/// The time of a step of two ranks over a link, and the bytes that a rank sends per step.
fn measured(dir: &Path, preset: &str, rate: f64, overlap: bool) -> (f64, f64) {
    let link = Link::new(rate, DELAY);
    let out = format!("{preset}-{rate}-{overlap}");
    let output = job(dir, &train(preset, 2, &out, overlap)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (step_time(dir, &out), link.bytes() as f64 / STEPS as f64)
}

/// What is predicted beside what was measured. Computation is measured without communication, and the work of the
/// processors for communication over the link without a limit. The packets pass through this process, so that this is
/// more work than a network card makes. The rest follows from the formula.
#[test]
#[ignore = "a measurement of minutes, which needs root and a quiet machine"]
fn network_of_known_speed() {
    let dir = support::with_text();
    let dir = dir.path();
    support::succeeds(dir, "prepare --corpus text.txt --byte-level");
    println!(
        "| preset | Gbit/s | overlap | MB sent | seconds | predicted | measured / predicted |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (preset, ..) in SHARES {
        let model =
            block_transformer_zoo::preset(preset).unwrap().model.clone().with_vocab_size(320);
        let bytes = 4.0 * model.num_params() as f64;
        let alone = compute(dir, preset);
        let (free, _) = measured(dir, preset, 1e12, false);
        println!(
            "<!-- {preset}: {bytes:.3e} bytes, {alone:.3} s without communication, {free:.3} s without a limit -->"
        );
        let step = RankStep {
            compute: alone,
            micro_batches: 1,
            gradients: bytes,
            late: 4.0 * late_params(&model) as f64,
            bucket: bucket_bytes(bytes),
            host: free - alone,
        };
        for gigabits in [1.0_f64, 10.0] {
            let network = Network::new(gigabits * 1e9 / 8.0, DELAY.as_secs_f64()).unwrap();
            for overlap in [false, true] {
                let (seconds, sent) = measured(dir, preset, gigabits * 1e9, overlap);
                let predicted = step.time(AllReduce::Ring, &network, 2).seconds(overlap);
                println!(
                    "| {preset} | {gigabits} | {} | {:.1} | {seconds:.2} | {predicted:.2} | {:.2} |",
                    if overlap { "yes" } else { "no" },
                    sent / 1e6,
                    seconds / predicted
                );
            }
        }
    }
}
