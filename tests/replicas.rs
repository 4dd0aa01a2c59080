//! `train --devices`.

use crate::support::{TINY, fails, json, succeeds, with_text};

#[test]
fn two_devices_train_one_model_and_one_device_goes_on() {
    let dir = with_text();
    let dir = dir.path();
    let begin = format!("{TINY} --checkpoint-every 4 --validate-every 4 --steps 8");
    succeeds(dir, &format!("{begin} --devices flex,flex --recompute --out run"));
    let configuration = std::fs::read_to_string(dir.join("run/train.toml")).unwrap();
    assert!(configuration.contains("devices = [\"flex\", \"flex\"]"), "{configuration}");
    assert!(configuration.contains("recompute = true"), "{configuration}");
    succeeds(dir, &format!("{begin} --out one"));
    let loss = |run: &str| {
        let state = json(&dir.join(run).join("checkpoints/step-000008/state.json"));
        state["train_loss"].as_f64().unwrap()
    };
    assert!(
        (loss("run") - loss("one")).abs() < 1e-5 * loss("one"),
        "{} {}",
        loss("run"),
        loss("one")
    );
    // --device replaces the devices of the run
    std::fs::remove_dir_all(dir.join("run/checkpoints/step-000008")).unwrap();
    succeeds(dir, "train --resume --out run --device flex --recompute=false");
    let configuration = std::fs::read_to_string(dir.join("run/train.toml")).unwrap();
    assert!(configuration.contains("devices = []"), "{configuration}");
    assert!(configuration.contains("recompute = false"), "{configuration}");
    assert!((loss("run") - loss("one")).abs() < 1e-5 * loss("one"));

    let says = ["--devices 3", "at most 2"];
    fails(dir, &format!("{begin} --devices flex,flex,flex --out more"), &says);
}
