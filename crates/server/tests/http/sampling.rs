//! Options of sampling, and answers that do not depend on other requests.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{TestServer, texts};

#[test]
fn choices_differ_and_are_numbered() {
    let server = TestServer::new();
    let body =
        json!({"prompt": ["ab", "cd"], "n": 3, "max_tokens": 12, "seed": 5, "ignore_eos": true});
    let answer = server.complete(&body);
    let choices = answer["choices"].as_array().unwrap();
    let indices: Vec<u64> = choices.iter().map(|c| c["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4, 5]);
    let mut all = texts(&answer);
    assert_eq!(texts(&server.complete(&body)), all);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 6);
    let usage = json!({"prompt_tokens": 4, "completion_tokens": 72, "total_tokens": 76});
    assert_eq!(answer["usage"], usage);
}

#[test]
fn a_seed_decides_and_without_one_answers_differ() {
    let server = TestServer::new();
    let ask = |seed: Value| {
        texts(&server.complete(&json!({"prompt": "ab", "max_tokens": 16, "seed": seed}))).remove(0)
    };
    assert_eq!(ask(json!(7)), ask(json!(7)));
    assert_ne!(ask(json!(7)), ask(json!(8)));
    assert_eq!(ask(json!(-1)), ask(json!(-1)));
    assert_ne!(ask(Value::Null), ask(Value::Null));
}

const MODELS: [&str; 2] = ["prefix", "vanilla"];

/// What requests ask for in the test below.
fn mixed(i: usize) -> Value {
    let prompt = "The quick brown fox jumps over the lazy dog. ".repeat(2);
    let prompt = &prompt[..1 + i * 7 % 80];
    let mut body =
        json!({"prompt": prompt, "max_tokens": 8 + i % 20, "seed": i, "model": MODELS[i % 2]});
    match i % 5 {
        0 => body["temperature"] = json!(0),
        1 => body["n"] = json!(3),
        2 => (body["top_p"], body["logprobs"]) = (json!(0.8), json!(2)),
        3 => (body["presence_penalty"], body["min_p"]) = (json!(1.0), json!(0.02)),
        _ => (body["echo"], body["logprobs"]) = (json!(true), json!(1)),
    }
    body
}

#[test]
fn every_answer_is_the_same_alone_and_under_load() {
    let server = TestServer::new();
    let count = 40;
    let alone: Vec<Value> =
        (0..count).map(|i| server.complete(&mixed(i))["choices"].take()).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // streams whose clients go away
        scope.spawn(|| {
            let mut i = 0;
            while !done.load(Ordering::Relaxed) {
                let mut body = mixed(i);
                body["stream"] = json!(true);
                server.begin(&body).event();
                i += 1;
            }
        });
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                let (server, alone) = (&server, &alone);
                scope.spawn(move || {
                    for i in (0..count).map(|i| (i * 3 + worker * 5) % count) {
                        let answer = server.complete(&mixed(i));
                        assert_eq!(answer["choices"], alone[i], "{}", mixed(i));
                    }
                })
            })
            .collect();
        let failed = workers.into_iter().map(|worker| worker.join()).find(Result::is_err);
        done.store(true, Ordering::Relaxed);
        assert!(failed.is_none());
    });
}

#[test]
fn stop_strings_and_stop_tokens_end_a_text_before_them() {
    let server = TestServer::new();
    for model in ["prefix", "vanilla"] {
        let body = json!({"model": model, "prompt": "ab", "max_tokens": 40, "temperature": 0,
                          "logit_bias": {"99": 3, "100": 3}});
        let whole = texts(&server.complete(&body)).remove(0);
        let middle: String = whole.chars().skip(10).take(2).collect();
        let expected = &whole[..whole.find(&middle).unwrap()];
        for stop in [json!(middle), json!(["\u{1F600}", middle])] {
            let mut stopped = body.clone();
            stopped["stop"] = stop;
            let choice = &server.complete(&stopped)["choices"][0];
            assert_eq!(
                (&choice["text"], &choice["finish_reason"]),
                (&json!(expected), &json!("stop"))
            );
        }
        let byte = u32::from(*middle.as_bytes().first().unwrap()) + 2;
        let mut stopped = body.clone();
        stopped["stop_token_ids"] = json!([byte]);
        let choice = &server.complete(&stopped)["choices"][0];
        let first = whole.find(middle.chars().next().unwrap()).unwrap();
        assert_eq!(
            (&choice["text"], &choice["finish_reason"]),
            (&json!(&whole[..first]), &json!("stop"))
        );
    }
}

#[test]
fn a_document_that_ends_is_continued_on_request() {
    let server = TestServer::new();
    let body = json!({"prompt": "ab", "max_tokens": 6, "temperature": 0, "logit_bias": {"0": 100}});
    let ended = server.complete(&body);
    assert_eq!(ended["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        (texts(&ended), &ended["usage"]["completion_tokens"]),
        (vec![String::new()], &json!(0))
    );
    let mut on = body.clone();
    on["ignore_eos"] = json!(true);
    let on = server.complete(&on);
    assert_eq!(
        (on["choices"][0]["finish_reason"].as_str(), on["usage"]["completion_tokens"].as_u64()),
        (Some("length"), Some(6))
    );
}

#[test]
fn bias_and_penalties_change_the_choice() {
    let server = TestServer::new();
    let ask = |extra: Value| {
        let mut body = json!({"prompt": "ab", "max_tokens": 10, "temperature": 0});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        texts(&server.complete(&body)).remove(0)
    };
    assert_eq!(ask(json!({"logit_bias": {"99": 100}})), "a".repeat(10));
    let mixed = ask(json!({"logit_bias": {"99": 60, "100": 59}, "frequency_penalty": 2}));
    assert!(mixed.contains('a') && mixed.contains('b'), "{mixed}");
    assert_eq!(ask(json!({"top_k": 1, "temperature": 1})), ask(json!({})));
}

#[test]
fn the_best_of_several_choices_is_the_most_likely_one() {
    let server = TestServer::new();
    let body = json!({"prompt": "ab", "n": 6, "max_tokens": 10, "seed": 3, "logprobs": 0, "ignore_eos": true});
    let all = server.complete(&body);
    let mut ranked: Vec<(f64, String)> = all["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| {
            let values = choice["logprobs"]["token_logprobs"].as_array().unwrap();
            let sum: f64 = values.iter().map(|value| value.as_f64().unwrap()).sum();
            (sum / values.len() as f64, choice["text"].as_str().unwrap().to_string())
        })
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let best = json!({"prompt": "ab", "n": 2, "best_of": 6, "max_tokens": 10, "seed": 3, "ignore_eos": true});
    let best = server.complete(&best);
    assert_eq!(texts(&best), [ranked[0].1.clone(), ranked[1].1.clone()]);
    assert_eq!(best["usage"]["completion_tokens"], 60);
    assert!(best["choices"][0]["logprobs"].is_null());
}
