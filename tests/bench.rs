//! `bench` and `plan` through the real binary, on small models. No test depends on the measured
//! speed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::{command, fails, fails_as, json, succeeds};

const DECODE: &str = "bench decode --preset debug-block,debug-vanilla --rounds 2 --seconds 0.1";

fn decode(dir: &Path, flags: &str) -> Vec<Value> {
    succeeds(dir, &format!("{DECODE} {flags} --out out"));
    json(&dir.join("out/results.json"))["rows"].as_array().unwrap().clone()
}

#[test]
fn decoding_after_a_context_is_measured_compared_and_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let rows = decode(dir.path(), "--at 64,256 --memory 4MB");
    assert_eq!(rows.len(), 4);
    for row in &rows {
        let number = |key: &str| row[key].as_f64().unwrap();
        let rate = |key: &str| row[key]["median"].as_f64().unwrap();
        // the largest batch that fits
        assert!(number("predicted_bytes") <= 4e6);
        assert!(number("predicted_bytes") + number("sequence_bytes") > 3.9e6, "{row}");
        assert!(rate("rate") > 0.0 && rate("predicted") <= rate("roofline"));
        let share = rate("rate") / rate("roofline");
        assert!(rate("share") < 4.0 * share && share < 4.0 * rate("share"));
    }
    // with four times the context, a quarter of the sequences fit
    assert!(rows[0]["batch"].as_u64() > rows[2]["batch"].as_u64());
    let file = |name: &str| std::fs::read_to_string(dir.path().join("out").join(name)).unwrap();
    assert_eq!(file("results.csv").lines().count(), 5);
    let columns =
        file("results.csv").lines().map(|line| line.split(',').count()).collect::<Vec<_>>();
    assert!(columns.windows(2).all(|pair| pair[0] == pair[1]), "{columns:?}");
    let summary = file("summary.md");
    let cells = summary.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(cells.contains("| debug-block | at 64 |"), "{summary}");
    assert!(file("throughput-over-context.svg").contains("debug-vanilla, roofline"));
    assert!(file("ratio-over-context.svg").contains("debug-block over debug-vanilla"));
    assert!(!dir.path().join("out/throughput-over-batch.svg").exists());
}

#[test]
fn decoding_is_measured_whole_in_parts_and_in_bf16() {
    let dir = tempfile::tempdir().unwrap();
    let lengths = "--lengths 70:30 --batch 1,3";
    let rows = decode(dir.path(), lengths);
    assert_eq!(rows.len(), 4);
    assert!(dir.path().join("out/throughput-over-batch.png").exists());
    assert!(rows.iter().all(|row| row["first_token"]["median"].as_f64().unwrap() > 0.0));
    let whole = format!("bench decode --preset debug-block --whole --rounds 1 {lengths}");
    assert!(succeeds(dir.path(), &whole).contains("70:30"));
    // the instruction set is selected by a variable
    let mut plain = command(dir.path(), &format!("{whole} --out plain"));
    let plain = plain.env("BLOCK_TRANSFORMER_SIMD", "plain").output().unwrap();
    assert!(String::from_utf8_lossy(&plain.stdout).contains("flex with plain, weights f32"));
    assert_eq!(json(&dir.path().join("plain/results.json"))["instruction_set"], "plain");
    let bf16 = format!("{whole} --weights bf16-weights");
    assert!(succeeds(dir.path(), &bf16).contains("weights bf16"));
    fails(dir.path(), &format!("{bf16} --device ndarray"), &["--weights bf16", "ndarray"]);
}

#[test]
fn training_steps_and_losses_are_measured() {
    let dir = tempfile::tempdir().unwrap();
    for what in ["train", "eval"] {
        let line = format!("bench {what} --presets debug-block,debug-vanilla --context");
        let table = succeeds(dir.path(), &format!("{line} 64 --steps 1 --out {what}"));
        assert!(table.contains("of roofline") && table.contains("debug-vanilla"), "{table}");
        assert!(dir.path().join(what).join("results.csv").exists());
        fails(dir.path(), &format!("{line} 66"), &["--context", "66", "blocks of 4"]);
    }
}

#[test]
fn impossible_measurements_are_refused_before_the_first_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    for (flags, says) in [
        ("--preset debug-blok", &["debug-blok", "debug-block"][..]),
        ("--checkpoint nowhere", &["nowhere"]),
        ("--memory 1MB --at 64", &["--memory", "block-170m"]),
        ("--batch 1000000 --at 2048", &["--batch", "block-170m", "--memory"]),
        ("--preset debug-block --lengths 8:4", &["--lengths 8:4", "--whole"]),
        ("--seconds 0", &["--seconds"]),
        ("--batch 16777216 --at 16777216", &["--batch", "--memory"]),
        ("--out file/inside", &["--out", "file/inside"]),
    ] {
        fails(dir.path(), &format!("bench decode {flags}"), says);
    }
    // arguments that clap refuses
    for (flags, says) in [
        ("--lengths 2048", "2048:128"),
        ("--batch 0", "--batch"),
        ("--at 18446744073709551615", "1..=16777216"),
        ("--lengths 1:18446744073709551615", "2048:128"),
        ("--whole --seconds 3", "--whole"),
        ("--weights half", "--weights"),
    ] {
        fails_as(&mut command(dir.path(), &format!("bench decode {flags}")), 2, &[says]);
    }
}

#[test]
fn a_plan_of_training_shows_launches_hours_and_mfu() {
    let dir = tempfile::tempdir().unwrap();
    let plan = |flags: &str| succeeds(dir.path(), &format!("plan --training {flags}"));
    let row = |table: &str, name: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap().split_whitespace().map(String::from).collect()
    };
    let h100 = "--device-spec h100 --preset block-170m,vanilla-160m,block-170m-cls-cross";
    let (eight, one) = (plan(h100), plan(&format!("{h100} --micro-batch 1")));
    let launches = |table: &str| row(table, "block-170m")[3].parse::<f64>().unwrap();
    assert!(launches(&one) > 4.0 * launches(&eight), "{one}");
    for said in ["MFU", "hours", "4.00 us per launch", "predicted"] {
        assert!(eight.contains(said), "{said} in {eight}");
    }
    // the launches of T5 were not counted
    assert_eq!(row(&eight, "block-170m-cls-cross")[3], "-", "{eight}");
    for flags in ["--training --batch 3", "--training --lengths 5:3", "--micro-batch 4"] {
        fails_as(&mut command(dir.path(), &format!("plan {flags}")), 2, &["--training"]);
    }
}

#[test]
fn a_plan_shows_the_largest_batch_and_its_speed() {
    let dir = tempfile::tempdir().unwrap();
    let plan = |flags: &str| succeeds(dir.path(), &format!("plan {flags}"));
    let h100 = plan("--device-spec h100");
    for said in [
        "NVIDIA H100",
        "2048:128",
        "128:2048",
        "published 134700",
        "32.0 times less",
        "4.00 us, which a CUDA graph avoids",
    ] {
        assert!(h100.contains(said), "{said} in {h100}");
    }
    assert!(plan("--preset debug-block --context 64").contains("this machine"));
    let sheet = "name = \"mine\"\nflops = 1e11\nbandwidth = 1e10\nmemory = 8e9\n";
    std::fs::write(dir.path().join("mine.toml"), sheet).unwrap();
    let mine = "--device-spec mine.toml --context 2048";
    // batch 1 reads 368 MB of weights per token, and 4.7 MB of keys and values
    let (both, alone) = (plan(mine), plan(&format!("{mine} --batch 1 --preset block-170m")));
    assert!(alone.contains("368 MB") && !both.contains("368 MB"), "{alone}");
    for (flags, says) in [
        ("--device-spec h1000", &["--device-spec", "h1000", "h100"][..]),
        ("--preset block", &["--preset block", "did you mean"]),
        ("--device-spec h100 --memory 1MB", &["block-170m", "1000000"]),
    ] {
        fails(dir.path(), &format!("plan {flags}"), says);
    }
}

const SERVE: &str = "bench serve --preset debug-block,debug-vanilla --lengths 16:8";

#[test]
fn a_server_is_measured_under_open_and_closed_loops() {
    let dir = tempfile::tempdir().unwrap();
    let loads = "--rate 20,40 --streams 1,3 --seconds 0.5 --requests 12 --rounds 2";
    let said =
        succeeds(dir.path(), &format!("{SERVE} {loads} --goodput ttft=60s,itl=60s --out out"));
    assert!(said.contains("3 streams: debug-block writes"), "{said}");
    let rows = json(&dir.path().join("out/results.json"))["rows"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 8);
    for row in &rows {
        let number = |value: &Value| value.as_f64().unwrap();
        assert!(number(&row["answered"]) > 0.0 && number(&row["failed"]) == 0.0, "{row}");
        let tokens = 8.0 * number(&row["requests_per_second"]);
        assert!((number(&row["tokens_per_second"]) - tokens).abs() < 1e-6 * tokens, "{row}");
        // the tokens of such small models can arrive together
        for (name, least) in [("ttft", 1e-6), ("itl", 0.0), ("e2e", 1e-6)] {
            let [p50, p90, p99] = ["p50", "p90", "p99"].map(|share| number(&row[name][share]));
            assert!(least <= p50 && p50 <= p90 && p90 <= p99, "{row}");
        }
        assert!(number(&row["ttft"]["p50"]) <= number(&row["e2e"]["p50"]), "{row}");
        // every answer keeps these bounds
        assert_eq!(row["goodput"], row["requests_per_second"]);
    }
    // each client of a closed loop sends at once when it has its answer
    let closed = rows.iter().filter(|row| row["load"]["streams"] == 3);
    assert!(closed.clone().count() == 2 && closed.clone().all(|row| row["answered"] == 24));
    let strict =
        format!("{SERVE} --streams 2 --seconds 0.2 --goodput ttft=1ns,itl=1ns --out strict");
    succeeds(dir.path(), &strict);
    assert_eq!(json(&dir.path().join("strict/results.json"))["rows"][0]["goodput"], 0.0);
    let file = |name: &str| std::fs::read_to_string(dir.path().join("out").join(name)).unwrap();
    assert_eq!(file("results.csv").lines().count(), 9);
    let summary = file("summary.md");
    assert!(
        summary.contains("| debug-vanilla | 40/s") && summary.contains("60000 ms"),
        "{summary}"
    );
    for plot in ["latency-over-rate", "answers-over-rate", "throughput-over-streams"] {
        let svg = file(&format!("{plot}.svg"));
        assert!(svg.contains("debug-block") && svg.contains("debug-vanilla"), "{plot}");
    }
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_running_server_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let mut serve = command(dir.path(), "serve --preset debug-block,debug-vanilla --port 0");
    let mut server = Process(serve.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let url = lines.find_map(|line| line.strip_prefix("listening on ").map(String::from)).unwrap();
    lines.find(|line| line == "ready").unwrap();
    let bench = format!("bench serve --url {url} --lengths 16:8 --streams 2 --seconds 0.2");
    let table = succeeds(dir.path(), &bench);
    assert!(table.contains("debug-block") && table.contains("debug-vanilla"), "{table}");
    let one = succeeds(dir.path(), &format!("{bench} --model debug-vanilla"));
    assert!(!one.contains("debug-block") && one.contains(&url), "{one}");
    fails(dir.path(), &format!("{bench} --model nothing"), &["--model nothing", "debug-vanilla"]);
    // more tokens than a sequence can have
    let long = bench.replace("16:8", "99:99");
    fails(dir.path(), &long, &["debug-block", "128 tokens"]);
}

#[test]
fn the_server_is_compared_with_the_engine_alone() {
    let dir = tempfile::tempdir().unwrap();
    let table = succeeds(dir.path(), &format!("{SERVE} --beside-engine --streams 2 --rounds 2"));
    let row = table.lines().find(|line| line.starts_with("debug-vanilla")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..3], ["debug-vanilla", "16:8", "2"]);
    let numbers: Vec<f64> = cells[3..].iter().map(|cell| cell.parse().unwrap()).collect();
    let [http, engine, ratio, min, max] = numbers[..] else { panic!("{row}") };
    assert!(http > 0.0 && engine > 0.0 && min <= ratio && ratio <= max, "{row}");
}

#[test]
fn impossible_loads_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (flags, says) in [
        ("--url http://127.0.0.1:1", &["--url", "127.0.0.1:1"][..]),
        ("--url https://127.0.0.1", &["--url", "http://127.0.0.1:8000"]),
        ("--preset debug-blok", &["debug-blok", "debug-block"]),
        ("--tokenizer nowhere", &["--tokenizer", "nowhere"]),
        (
            "--preset debug-block --streams 16777216 --lengths 99999:9",
            &["--streams", "debug-block"],
        ),
    ] {
        fails(dir.path(), &format!("bench serve {flags}"), says);
    }
    for (flags, says) in [
        ("--rate 0", "0.001"),
        ("--streams 0", "--streams"),
        ("--goodput ttft=5ms", "ttft=500ms,itl=50ms"),
        ("--goodput ttft=5,itl=x", "ttft=500ms,itl=50ms"),
        ("--seconds 0", "--seconds"),
        ("--model a", "--url"),
        ("--beside-engine --rate 1", "--rate"),
    ] {
        fails_as(&mut command(dir.path(), &format!("bench serve {flags}")), 2, &[says]);
    }
}
