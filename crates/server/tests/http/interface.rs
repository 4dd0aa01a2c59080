//! Tokens, models, metrics, and the description of the interface.

use serde_json::{Value, json};

use crate::support::{TestServer, config, options, served};

#[test]
fn texts_and_token_ids_become_each_other() {
    let server = TestServer::new();
    let text = "naïve 日本 text";
    let body = json!({"prompt": text, "add_special_tokens": false, "return_token_strs": true});
    let answer = server.post("/tokenize", &body).json();
    let tokens = answer["tokens"].as_array().unwrap();
    assert_eq!((&answer["count"], &answer["max_model_len"]), (&json!(text.len()), &json!(128)));
    assert_eq!(tokens.len(), text.len());
    assert_eq!(answer["token_strs"][0], "n");
    let back = server.post("/detokenize", &json!({"tokens": tokens})).json();
    assert_eq!(back, json!({"prompt": text}));
    let info = server.get("/tokenizer_info").json();
    for (field, id) in [("eos_token", 0), ("bos_token", 0), ("pad_token", 1)] {
        let name = &info[field];
        let text = server.post("/detokenize", &json!({"tokens": [id]})).json()["prompt"].take();
        assert_eq!(&text, name);
    }
    let eos = server.post("/tokenize", &json!({"prompt": info["eos_token"]})).json();
    assert_eq!(eos["tokens"], json!([0]));
    for (path, body, param) in [
        ("/tokenize", json!({}), "prompt"),
        ("/tokenize", json!({"prompt": 3}), "prompt"),
        ("/detokenize", json!({"tokens": "a"}), "tokens"),
        ("/detokenize", json!({"tokens": [-1]}), "tokens"),
        ("/detokenize", json!({"tokens": null}), "tokens"),
    ] {
        let answer = server.post(path, &body);
        assert_eq!(
            (answer.status, &answer.json()["error"]["param"]),
            (400, &json!(param)),
            "{body}"
        );
    }
    assert_eq!(server.post("/tokenize", &json!({"prompt": "a", "model": "x"})).status, 404);
    // ids without a text
    let answer = server.post("/detokenize", &json!({"tokens": [4_000_000_000_u32, 67]})).json();
    assert_eq!(answer["prompt"], "A");
}

#[test]
fn models_are_listed_with_their_sizes() {
    let server = TestServer::with(
        vec![served("prefix", options(3)).with_fingerprint("fp_1"), served("vanilla", options(8))],
        config(),
    );
    let list = server.get("/v1/models").json();
    assert_eq!(list["object"], "list");
    let cards = list["data"].as_array().unwrap();
    assert_eq!(cards.len(), 2);
    let (block, vanilla) = (&cards[0], &cards[1]);
    assert_eq!((&block["id"], &block["object"]), (&json!("prefix"), &json!("model")));
    assert_eq!((&block["family"], &block["block_length"]), (&json!("block"), &json!(4)));
    assert_eq!((&vanilla["family"], &vanilla["block_length"]), (&json!("vanilla"), &json!(1)));
    assert_eq!((&block["max_model_len"], &block["slots"]), (&json!(128), &json!(3)));
    let number = |card: &Value, field: &str| card[field].as_f64().unwrap();
    // width 32 and two layers: keys and values in f32
    assert_eq!(number(vanilla, "kv_bytes_per_token"), 512.0);
    assert_eq!(number(block, "kv_bytes_per_token"), 128.0);
    assert_eq!(number(vanilla, "slot_bytes"), 512.0 * 127.0);
    assert!(number(block, "slot_bytes") < number(vanilla, "slot_bytes") / 2.0);
    assert!(number(block, "parameters") > 10_000.0);
    assert_eq!(&server.get("/v1/models/prefix").json(), block);
    let answer = server.complete(&json!({"prompt": "a"}));
    assert_eq!(answer["system_fingerprint"], "fp_1");
}

#[test]
fn metrics_count_what_was_done() {
    let server = TestServer::new();
    server
        .complete(&json!({"prompt": "abcd", "max_tokens": 10, "n": 2, "logit_bias": {"99": 100}}));
    server.complete(&json!({"prompt": "abcd", "max_tokens": 0, "echo": true, "logprobs": 1}));
    server.refuses(&json!({"prompt": 3}), 400);
    server.get("/nowhere");
    let of = |name: &str| server.metric(&format!("{name}{{model_name=\"prefix\"}}"));
    for (name, value) in [
        ("vllm:generation_tokens_total", 20.0),
        ("vllm:time_to_first_token_seconds_count", 2.0),
        ("vllm:inter_token_latency_seconds_count", 18.0),
        ("vllm:e2e_request_latency_seconds_count", 3.0),
        ("vllm:request_queue_time_seconds_count", 2.0),
        ("vllm:request_generation_tokens_sum", 20.0),
        ("vllm:num_requests_running", 0.0),
        ("vllm:num_requests_waiting", 0.0),
        ("vllm:kv_cache_usage_perc", 0.0),
        ("block_transformer_scored_tokens_total", 3.0),
        ("block_transformer_slots", 8.0),
        ("block_transformer_scoring_seconds_count", 1.0),
    ] {
        assert_eq!(of(name), value, "{name}");
    }
    assert!(of("vllm:prompt_tokens_total") >= 8.0);
    assert!(of("block_transformer_step_seconds_count") >= 10.0);
    assert!(of("vllm:time_to_first_token_seconds_sum") > 0.0);
    let ended = |reason: &str| {
        server.metric(&format!(
            "vllm:request_success_total{{finished_reason=\"{reason}\",model_name=\"prefix\"}}"
        ))
    };
    assert_eq!((ended("length"), ended("abort"), ended("error")), (3.0, 0.0, 0.0));
    let answers = |path: &str, status: u16| {
        server.metric(&format!(
            "block_transformer_http_answers_total{{path=\"{path}\",status=\"{status}\"}}"
        ))
    };
    assert_eq!((answers("/v1/completions", 200), answers("/v1/completions", 400)), (2.0, 1.0));
    assert_eq!(answers("other", 404), 1.0);
    let positions = |stack: &str| {
        server.metric(&format!(
            "block_transformer_positions_total{{model_name=\"prefix\",stack=\"{stack}\"}}"
        ))
    };
    assert!(positions("block") >= 4.0 && positions("token") >= 20.0);
    let kind = server.get("/metrics");
    assert_eq!(kind.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}

/// All routes and their methods.
const ROUTES: [(&str, &str); 12] = [
    ("/", "get"),
    ("/detokenize", "post"),
    ("/health", "get"),
    ("/metrics", "get"),
    ("/openapi.json", "get"),
    ("/ready", "get"),
    ("/tokenize", "post"),
    ("/tokenizer_info", "get"),
    ("/v1/chat/completions", "post"),
    ("/v1/completions", "post"),
    ("/v1/models", "get"),
    ("/v1/models/{model}", "get"),
];

#[test]
fn the_description_lists_every_route() {
    let server = TestServer::new();
    let document = server.get("/openapi.json").json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let listed: Vec<(&str, &str)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, operations)| {
            operations
                .as_object()
                .unwrap()
                .keys()
                .map(move |method| (path.as_str(), method.as_str()))
        })
        .collect();
    assert_eq!(listed, ROUTES);
    for (path, method) in ROUTES {
        let path = path.replace("{model}", "prefix");
        let answer = server.send(&method.to_uppercase(), &path, &[], b"");
        assert!(![404, 405, 500].contains(&answer.status), "{path}: {}", answer.status);
    }
    // every reference of a schema can be followed
    let text = document.to_string();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    let fields = &document["components"]["schemas"]["CompletionRequest"]["properties"];
    for field in [
        "prompt",
        "n",
        "best_of",
        "seed",
        "min_p",
        "logit_bias",
        "stop_token_ids",
        "stream_options",
    ] {
        assert!(fields[field].is_object(), "{field}: {fields}");
    }
    assert_eq!(
        document["components"]["schemas"]["CompletionRequest"]["required"],
        json!(["prompt"])
    );
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let server = TestServer::new();
    let page = server.get("/");
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(page.header("Content-Security-Policy").unwrap().contains("default-src 'none'"));
    assert!(page.text().starts_with("<!doctype html>"));
    for outside in ["src=\"http", "href=\"http", "@import", "url(http"] {
        assert!(!page.text().contains(outside), "{outside}");
    }
}
