//! `plan --ranks` through the real binary.

use std::path::Path;

use crate::support::{command, fails, fails_as, succeeds};

const NETWORK: &str = "--network 1Gbit/s --latency 0.2ms";

fn plan(dir: &Path, flags: &str) -> String {
    succeeds(dir, &format!("plan {NETWORK} {flags}"))
}

/// The cells of the row that starts with `name`. A time is two cells: its number and its unit.
fn row<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let rows = || table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows().find(|row| row.first() == Some(&name));
    row.unwrap_or_else(|| panic!("no row {name} in {table}"))
}

#[test]
fn the_steps_of_a_preset_follow_from_its_gradients_and_a_measured_time() {
    let dir = tempfile::tempdir().unwrap();
    let flags = "--preset block-33m --step-time 3 --bucket 200MB";
    let table = plan(dir.path(), &format!("{flags} --ranks 6"));
    for said in ["predicted by formula, not measured", "1Gbit/s", "0.2ms", "f32", "3.00 s per step"]
    {
        assert!(table.contains(said), "{said} in {table}");
    }
    // 33,846,272 gradients are 135.385 MB in one bucket, which nothing hides: 1.08308 s at 125 MB/s and two messages
    let two =
        "2 16 3.00 s 4.08 s 26.5% 73.5% 4.08 s 26.5% 73.5% 4.08 s 26.5% 73.5% 4.08 s 26.5% 73.5%";
    assert_eq!(row(&table, "2").join(" "), two, "{table}");
    // ring: 10/6 of the bytes in 10 messages; tree: 2 x 3/4 + 2 of the bytes in 6 messages
    let six = row(&table, "6").join(" ");
    assert!(six.starts_with("6 48 3.00 s 4.81 s 37.6% 62.4%"), "{six}");
    assert!(six.contains("6.79 s 55.8% 44.2%"), "{six}");
    // one rank only computes, and the largest table has 1024 ranks
    assert!(row(&table, "1").join(" ").starts_with("1 8 3.00 s 3.00 s 0.0% 100.0%"), "{table}");
    assert_eq!(row(&table, "1024")[1], "8192");
    // half of the bytes
    let bf16 = plan(dir.path(), &format!("{flags} --ranks 2 --wire bf16"));
    assert!(row(&bf16, "2").join(" ").starts_with("2 16 3.00 s 3.54 s 15.3% 84.7%"), "{bf16}");
    // two messages of 67.69 MB, of which one is summed at 1 GB/s
    let sums = plan(dir.path(), &format!("{flags} --ranks 2 --sum-speed 1GB/s"));
    assert!(row(&sums, "2").join(" ").starts_with("2 16 3.00 s 4.15 s 27.7% 72.3%"), "{sums}");
}

#[test]
fn overlap_hides_at_most_the_backward_pass_of_the_last_micro_batch() {
    let dir = tempfile::tempdir().unwrap();
    // of 135.4 MB, 19.5 MB belong to layers: 116.4 MB are sent after the backward pass, in 117 buckets of 1 MB
    let flags = "--preset block-33m --step-time 3 --bucket 1MB --ranks 2";
    let step = |table: &str, at: usize| row(table, "2")[at].parse::<f64>().unwrap();
    let whole = plan(dir.path(), flags);
    let (alone, overlap) = (step(&whole, 4), step(&whole, 8));
    assert!(alone > 4.1 && overlap > 3.96 && overlap < 4.0, "{whole}");
    // a 16th of the backward pass: 125 ms
    let parts = plan(dir.path(), &format!("{flags} --accumulate 16"));
    let hidden = step(&parts, 4) - step(&parts, 8);
    assert!((hidden - 0.125).abs() < 0.011, "{parts}");
}

#[test]
fn a_step_that_the_ranks_share_takes_less_time() {
    let dir = tempfile::tempdir().unwrap();
    let flags = "--preset debug-block --step-time 64 --ranks 32 --total-batch 64";
    let table = plan(dir.path(), flags);
    let compute = |ranks: &str| row(&table, ranks)[2..4].join(" ");
    let times = ["1", "4", "64"].map(compute);
    assert_eq!(times, ["64.0 s", "16.0 s", "1.00 s"]);
    assert_eq!(row(&table, "64")[1], "64");
    assert!(
        !table.lines().any(|line| line.starts_with("  128")) && table.contains("left out"),
        "{table}"
    );
}

#[test]
fn all_presets_are_planned_and_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let table = plan(dir.path(), "--ranks 3 --plot e.svg --plot e.png");
    for preset in block_transformer_zoo::presets() {
        let rows =
            table.lines().filter(|line| line.split_whitespace().next() == Some(&preset.name));
        let rows: Vec<&str> = rows.collect();
        assert_eq!(rows.len(), 2, "{}: {table}", preset.name);
        assert!(rows[1].contains("100.0%"), "{}", rows[1]);
    }
    assert!(table.contains("NVIDIA H100") && table.contains("predicted"), "{table}");
    let svg = std::fs::read_to_string(dir.path().join("e.svg")).unwrap();
    for said in ["predicted efficiency", "block-1.4b", "vanilla-31m", "1Gbit/s, 0.2ms", "1024"] {
        assert!(svg.contains(said), "{said}");
    }
    assert!(!svg.contains("megabyte"));
    assert!(std::fs::read(dir.path().join("e.png")).unwrap().starts_with(b"\x89PNG"));
    plan(dir.path(), "--ranks 3 --preset block-33m --plot one.svg");
    let one = std::fs::read_to_string(dir.path().join("one.svg")).unwrap();
    assert!(one.contains("efficiency of block-33m") && one.contains("ring, without overlap"));
}

#[test]
fn the_time_of_computation_is_that_of_the_machine_or_of_a_share_of_its_peak() {
    let dir = tempfile::tempdir().unwrap();
    let compute = |flags: &str| {
        let table = plan(dir.path(), &format!("--ranks 2 --preset vanilla-160m {flags}"));
        row(&table, "2")[2..4].join(" ")
    };
    // 8 x 2048 tokens of 854.77 MFLOP
    assert_eq!(compute("--peak-tflops 100 --mfu 0.5"), "280 ms");
    assert_eq!(compute("--device-spec a100 --mfu 0.5"), "89.8 ms");
    assert_ne!(compute("--device-spec a100"), compute(""));
    assert_eq!(compute("--batch 4 --accumulate 3 --peak-tflops 100 --mfu 0.5"), "420 ms");
}

#[test]
fn wrong_values_are_refused_with_flag_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    for (flags, says) in [
        ("--ranks 2", &["--network", "--latency"][..]),
        ("--ranks 2 --network 25GB/s", &["--latency"]),
        ("--network 25GB/s --latency 5us", &["--ranks"]),
        ("--ranks 0 --network 25GB/s --latency 5us", &["--ranks"]),
        ("--ranks 2 --network 25GB --latency 5us", &["'25GB'", "--network", "10Gbit/s"]),
        ("--ranks 2 --network -5GB/s --latency 5us", &["'-5GB/s'", "--network", "above 0"]),
        ("--ranks 2 --network 25GB/s --latency 5", &["'5'", "--latency", "0.2ms"]),
        ("--step-time 3", &["--ranks"]),
        ("--ranks 2 --network 25GB/s --latency 5us --step-time 0", &["--step-time", "800ms"]),
        ("--ranks 2 --network 25GB/s --latency 5us --mfu 40", &["'40'", "--mfu", "0.4"]),
        ("--ranks 2 --network 25GB/s --latency 5us --peak-tflops 0", &["--peak-tflops"]),
        ("--ranks 2 --network 25GB/s --latency 5us --step-time 1 --mfu 1", &["--mfu"]),
        ("--ranks 2 --network 25GB/s --latency 5us --training", &["--training"]),
        ("--ranks 2 --network 25GB/s --latency 5us --wire int8", &["--wire", "bf16"]),
    ] {
        fails_as(&mut command(dir.path(), &format!("plan {flags}")), 2, says);
    }
    for (flags, says) in [
        ("--step-time 1", &["--step-time", "--preset"][..]),
        ("--bucket 1kB", &["--bucket", "64KiB"]),
        ("--total-batch 1", &["--ranks 2", "--total-batch 1", "at most 1"]),
        ("--context 64,128", &["--context", "one"]),
        ("--context 66", &["--context 66", "multiple of 4"]),
        ("--plot e.gif", &["--plot e.gif", ".svg or .png"]),
        ("--plot none/e.svg", &["--plot none/e.svg", "does not exist"]),
        ("--preset block", &["--preset block", "did you mean"]),
        ("--device-spec h1000", &["--device-spec", "h1000", "h100"]),
    ] {
        fails(dir.path(), &format!("plan --ranks 2 {NETWORK} {flags}"), says);
    }
    let largest = format!("--batch 16777216 --accumulate 16777216 --ranks 16777216 {NETWORK}");
    succeeds(dir.path(), &format!("plan {largest} --context 16777216"));
}
