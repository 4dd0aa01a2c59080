//! The shapes of answers and errors.

use serde_json::{Value, json};

use crate::support::{Answer, JSON, TestServer, texts};

#[test]
fn a_completion_has_the_shape_that_clients_expect() {
    let server = TestServer::new();
    let answer = server.complete(&json!({"prompt": "ab", "max_tokens": 5, "seed": 1}));
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"), "{answer}");
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["model"], "prefix");
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    let choice = &answer["choices"][0];
    assert_eq!((&choice["index"], &choice["logprobs"]), (&json!(0), &Value::Null));
    assert_eq!(choice["finish_reason"], "length");
    let usage = json!({"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7});
    assert_eq!(answer["usage"], usage);
}

#[test]
fn a_prompt_has_four_forms_and_equal_ids_have_equal_answers() {
    let server = TestServer::new();
    let ask = |prompt: Value| {
        texts(&server.complete(&json!({"prompt": prompt, "max_tokens": 8, "temperature": 0})))
    };
    let ids = |text: &str| text.bytes().map(|byte| u32::from(byte) + 2).collect::<Vec<u32>>();
    let one = ask(json!("some text"));
    assert_eq!(ask(json!(ids("some text"))), one);
    let two = ask(json!(["other", "some text"]));
    assert_eq!(two.len(), 2);
    assert_eq!(ask(json!([ids("other"), ids("some text")])), two);
    assert_eq!(two[1], one[0]);
    // an empty prompt is the start of a document
    assert_eq!(ask(json!("")), ask(json!([0])));
    assert_eq!(ask(json!("<|endoftext|>")), ask(json!([0])));
}

#[test]
fn a_request_chooses_its_model() {
    let server = TestServer::new();
    let ask = |model: Value| {
        let body = json!({"model": model, "prompt": "ab", "max_tokens": 8, "temperature": 0});
        server.complete(&body)
    };
    let (block, vanilla) = (ask(json!("prefix")), ask(json!("vanilla")));
    assert_eq!(vanilla["model"], "vanilla");
    assert_ne!(texts(&block), texts(&vanilla));
    for default in [Value::Null, json!("")] {
        assert_eq!(texts(&ask(default)), texts(&block));
    }
    let error = server.refuses(&json!({"model": "other", "prompt": "a"}), 404);
    assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
    assert!(error["message"].as_str().unwrap().contains("prefix, vanilla"), "{error}");
    // a default does not exist for a name
    let error = server.get("/v1/models/other");
    assert_eq!((error.status, &error.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(server.get("/v1/models/vanilla").json()["id"], "vanilla");
    assert_eq!(server.get("/v1/models/%FF").status, 404);
}

#[test]
fn wrong_fields_are_named() {
    let server = TestServer::new();
    for (field, value) in [
        ("prompt", json!(null)),
        ("prompt", json!([])),
        ("prompt", json!({"a": 1})),
        ("prompt", json!([1, "a"])),
        ("prompt", json!([260])),
        ("prompt", json!([[1], [-1]])),
        ("prompt", json!(vec!["a"; 1025])),
        ("prompt", json!("a".repeat(500))),
        ("prefix", json!(3)),
        ("prefix", json!([4000])),
        ("max_tokens", json!("many")),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(1e30)),
        ("temperature", json!(-0.5)),
        ("temperature", json!(true)),
        ("top_p", json!(0)),
        ("top_p", json!(1.5)),
        ("top_k", json!(-2)),
        ("min_p", json!(2)),
        ("presence_penalty", json!(3)),
        ("frequency_penalty", json!(-3)),
        ("logit_bias", json!({"a": 1})),
        ("logit_bias", json!({"5": 101})),
        ("logit_bias", json!({"5": "x"})),
        ("logit_bias", json!({"05": 1})),
        ("logit_bias", json!({"+5": 1})),
        ("logit_bias", json!({"259": 1})),
        ("seed", json!(0.5)),
        ("n", json!(0)),
        ("n", json!(1025)),
        ("best_of", json!(0)),
        ("best_of", json!(2000)),
        ("stop", json!("")),
        ("stop", json!(["a", ""])),
        ("stop", json!(vec!["a"; 257])),
        ("stop", json!(7)),
        ("stop_token_ids", json!([260])),
        ("stop_token_ids", json!("a")),
        ("ignore_eos", json!("yes")),
        ("echo", json!(1)),
        ("logprobs", json!(21)),
        ("logprobs", json!(true)),
        ("stream", json!("yes")),
        ("stream_options", json!({"include_usage": true})),
        ("suffix", json!("end")),
    ] {
        let mut body = json!({"prompt": "ab", "max_tokens": 1});
        body[field] = value.clone();
        let error = server.refuses(&body, 400);
        assert_eq!(error["param"], field, "{value}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().unwrap().len() > 10);
    }
    let long = server.refuses(&json!({"prompt": "ab", "max_tokens": 127}), 400);
    assert_eq!(long["code"], "context_length_exceeded");
    let choices = server.refuses(&json!({"prompt": vec!["a"; 200], "n": 6}), 400);
    assert_eq!(choices["param"], "prompt");
    let stream = server.refuses(&json!({"prompt": "a", "n": 1, "best_of": 2, "stream": true}), 400);
    assert_eq!(stream["param"], "best_of");
    let large = json!({"prompt": vec!["a".repeat(100); 1000], "echo": true, "logprobs": 20, "max_tokens": 0});
    assert_eq!(server.refuses(&large, 400)["param"], "logprobs");
    // nothing of this stopped the server
    server.complete(&json!({"prompt": "ab"}));
}

#[test]
fn bodies_that_are_no_json_are_refused() {
    let server = TestServer::new();
    let deep = "[".repeat(100_000);
    for body in [&b""[..], b"{", b"null", b"[]", b"{\"prompt\": \"\xff\"}", b"{}x", deep.as_bytes()]
    {
        let answer = server.send("POST", "/v1/completions", &[JSON], body);
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    }
    // another type is what a page of another place could send without being asked
    for headers in [&[][..], &[("Content-Type", "text/plain")]] {
        let answer = server.send("POST", "/v1/completions", headers, b"{\"prompt\": \"a\"}");
        assert_eq!(answer.status, 415);
    }
    let charset = [("Content-Type", "application/json; charset=utf-8")];
    let answer = server.send("POST", "/v1/completions", &charset, b"{\"prompt\": \"a\"}");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn other_paths_and_methods_have_errors_too() {
    let server = TestServer::new();
    assert_eq!(server.get("/v2").status, 404);
    assert!(server.get("/v2").json()["error"]["message"].as_str().unwrap().contains("/v2"));
    let answer = server.get("/v1/completions");
    assert_eq!((answer.status, answer.header("Allow")), (405, Some("POST")));
    assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    let chat = server.post("/v1/chat/completions", &json!({"messages": []}));
    assert_eq!(chat.status, 501);
    assert!(chat.json()["error"]["message"].as_str().unwrap().contains("/v1/completions"));
    assert_eq!(chat.header("x-should-retry"), Some("false"));
    // by which a client can report an answer
    let id = |answer: &Answer| answer.header("x-request-id").map(String::from);
    assert!(id(&chat).unwrap().len() > 30 && id(&chat) != id(&server.get("/v2")));
}

#[test]
fn the_end_of_a_document_counts_as_no_token() {
    let server = TestServer::new();
    for (max_tokens, logprobs) in [(1, None), (3, None), (1, Some(1)), (3, Some(1))] {
        // the id of the end
        let body = json!({
            "prompt": "ab", "max_tokens": max_tokens, "logprobs": logprobs, "logit_bias": {"0": 100}
        });
        let answer = server.complete(&body);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        assert_eq!(answer["usage"]["completion_tokens"], 0, "{body}");
    }
}
