//! Prefixes whose caches are kept, and choices that share a prompt.

use serde_json::{Value, json};

use crate::support::{TestServer, config, options, served, texts};
use block_transformer_server::EngineOptions;

const PREFIX: &str = "Question: what is the longest river of the world? Answer: ";

fn with_prefixes(bytes: u64) -> TestServer {
    let options = || EngineOptions { prefix_bytes: bytes, ..options(4) };
    TestServer::with(vec![served("prefix", options()), served("vanilla", options())], config())
}

fn ask(server: &TestServer, model: &str, prefix: Value, prompt: &str) -> Value {
    server.complete(&json!({
        "model": model, "prefix": prefix, "prompt": prompt, "max_tokens": 12, "seed": 3, "logprobs": 2, "n": 2
    }))
}

fn events(server: &TestServer, model: &str, event: &str) -> f64 {
    let name = "block_transformer_prefix_sequences_total";
    server.metric(&format!("{name}{{event=\"{event}\",model_name=\"{model}\"}}"))
}

#[test]
fn a_kept_prefix_changes_no_answer_and_saves_positions() {
    let (keeps, runs) = (with_prefixes(1 << 20), with_prefixes(0));
    for model in ["prefix", "vanilla"] {
        let of = |name: &str| format!("{name}{{model_name=\"{model}\"}}");
        let saved = of("block_transformer_prefix_saved_positions_total");
        for (i, prompt) in ["the Nile", "", "a", "the Amazon or the Nile"].iter().enumerate() {
            let before = keeps.metric(&saved);
            let kept = ask(&keeps, model, json!(PREFIX), prompt);
            let run = ask(&runs, model, json!(PREFIX), prompt);
            assert_eq!(kept["choices"], run["choices"], "{model} {prompt:?}");
            let tokens = PREFIX.len() + prompt.len();
            assert_eq!(kept["usage"]["prompt_tokens"], tokens);
            if i > 0 {
                // both choices start after the blocks of the prefix
                let blocks =
                    if model == "prefix" { PREFIX.len().div_ceil(4) } else { PREFIX.len() };
                assert!(keeps.metric(&saved) - before >= blocks as f64 * 2.0, "{model}");
            }
        }
        assert_eq!(events(&keeps, model, "miss"), 1.0);
        assert!(events(&keeps, model, "hit") >= 6.0 && events(&runs, model, "miss") >= 4.0);
        assert_eq!(keeps.metric(&of("block_transformer_prefix_entries")), 1.0);
        assert!(keeps.metric(&of("block_transformer_prefix_bytes")) > 0.0);
        assert_eq!(runs.metric(&of("block_transformer_prefix_entries")), 0.0);
        // ids are the same as their text, and another prefix has another answer
        let ids: Vec<u32> = PREFIX.bytes().map(|byte| u32::from(byte) + 2).collect();
        let by_text = texts(&ask(&keeps, model, json!(PREFIX), "the Nile"));
        assert_eq!(texts(&ask(&keeps, model, json!(ids), "the Nile")), by_text);
        assert_ne!(texts(&ask(&keeps, model, json!("Hello. "), "the Nile")), by_text);
    }
    // a vanilla model reads both as one text
    let joined = json!({"model": "vanilla", "prompt": format!("{PREFIX}the Nile"), "max_tokens": 12, "seed": 3, "n": 2});
    let apart = ask(&keeps, "vanilla", json!(PREFIX), "the Nile");
    assert_eq!(texts(&keeps.complete(&joined)), texts(&apart));
}

#[test]
fn the_choices_of_a_prompt_run_it_once() {
    let server = TestServer::new();
    for (model, positions) in [("prefix", 80 / 4), ("vanilla", 80)] {
        let stack = if model == "prefix" { "block" } else { "token" };
        let name = format!(
            "block_transformer_positions_total{{model_name=\"{model}\",stack=\"{stack}\"}}"
        );
        let run = |n: usize| {
            let before = server.metric(&name);
            let body = json!({"model": model, "prompt": "a".repeat(80), "n": n, "max_tokens": 1, "seed": 1});
            let answer = server.complete(&body);
            (texts(&answer), server.metric(&name) - before)
        };
        let ((_, one), (several, shared)) = (run(1), run(6));
        assert!(one >= f64::from(positions), "{model}: {one}");
        assert!(shared < 2.0 * one, "{model}: {shared} {one}");
        assert_eq!(several.len(), 6);
        assert!(events(&server, model, "fork") >= 5.0);
    }
}

#[test]
fn a_prefix_counts_with_its_padding() {
    let server = TestServer::new();
    // 61 tokens fill 16 blocks of four
    let body = |model: &str, new: usize| json!({"model": model, "prefix": "a".repeat(61), "prompt": "b".repeat(50), "max_tokens": new});
    server.complete(&body("prefix", 14));
    let error = server.refuses(&body("prefix", 15), 400);
    assert_eq!(error["code"], "context_length_exceeded");
    server.complete(&body("vanilla", 17));
    server.refuses(&body("vanilla", 18), 400);
    let echo = json!({"prefix": "a", "prompt": "b", "echo": true});
    assert_eq!(server.refuses(&echo, 400)["param"], "prefix");
}
