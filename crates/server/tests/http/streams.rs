//! Server-sent events.

use serde_json::{Value, json};

use crate::support::{TestServer, texts};

/// The joined text of each choice of a stream.
fn joined(events: &[Value], choices: usize) -> Vec<String> {
    let mut all = vec![String::new(); choices];
    for event in events {
        for choice in event["choices"].as_array().unwrap() {
            all[choice["index"].as_u64().unwrap() as usize] += choice["text"].as_str().unwrap();
        }
    }
    all
}

#[test]
fn the_events_of_a_stream_are_the_text_of_the_answer() {
    let server = TestServer::new();
    for extra in [
        json!({}),
        json!({"n": 3}),
        json!({"echo": true}),
        json!({"echo": true, "logprobs": 2, "n": 2}),
        json!({"echo": true, "logprobs": 2, "max_tokens": 0}),
        json!({"echo": true, "logprobs": 1, "max_tokens": 1, "temperature": 0}),
        json!({"max_tokens": 0}),
        json!({"stop": ["e", "a"]}),
    ] {
        let mut body = json!({"prompt": ["ab日", "some text"], "max_tokens": 20, "seed": 4});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let whole = server.complete(&body);
        body["stream"] = json!(true);
        let events = server.stream(&body);
        let expected = texts(&whole);
        assert_eq!(joined(&events, expected.len()), expected, "{extra}");
        for (index, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
            let own: Vec<&Value> = events
                .iter()
                .map(|event| &event["choices"][0])
                .filter(|choice| choice["index"] == index)
                .collect();
            // the last event, and only this, has the end
            let ends: Vec<&Value> =
                own.iter().map(|c| &c["finish_reason"]).filter(|end| !end.is_null()).collect();
            assert_eq!(ends, [&choice["finish_reason"]], "{extra}");
            assert!(!own.last().unwrap()["finish_reason"].is_null());
            for field in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
                let lists = own.iter().filter_map(|c| c["logprobs"][field].as_array()).flatten();
                let all: Vec<&Value> =
                    choice["logprobs"][field].as_array().into_iter().flatten().collect();
                assert_eq!(lists.collect::<Vec<_>>(), all, "{extra} {field}");
            }
        }
        // nothing but the end is empty
        let empty =
            |c: &Value| c["text"] == "" && c["finish_reason"].is_null() && c["logprobs"].is_null();
        assert!(events.iter().all(|event| !empty(&event["choices"][0])));
        assert!(
            events
                .iter()
                .all(|event| event["id"] == events[0]["id"] && event.get("usage").is_none())
        );
    }
}

#[test]
fn a_stream_ends_with_its_usage_on_request() {
    let server = TestServer::new();
    let body = json!({"prompt": "ab", "max_tokens": 7, "temperature": 0, "stream": true, "n": 2,
                      "logit_bias": {"99": 100}, "stream_options": {"include_usage": true}});
    let events = server.stream(&body);
    let (last, rest) = events.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    let usage = json!({"prompt_tokens": 2, "completion_tokens": 14, "total_tokens": 16});
    assert_eq!(last["usage"], usage);
    assert!(rest.iter().all(|event| event["usage"] == Value::Null && event.get("usage").is_some()));

    let mut body = body;
    body["n"] = json!(1);
    body["stream_options"] = json!({"include_usage": true, "continuous_usage_stats": true});
    let events = server.stream(&body);
    let counts: Vec<u64> =
        events.iter().map(|event| event["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 7]);
}

#[test]
fn a_stream_has_the_headers_that_proxies_need() {
    let server = TestServer::new();
    let mut connection = server.begin(&json!({"prompt": "ab", "stream": true}));
    let (status, headers) = connection.head().unwrap();
    let header = |name: &str| {
        headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    };
    assert_eq!(status, 200);
    assert_eq!(header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(
        (header("cache-control"), header("x-accel-buffering")),
        (Some("no-cache"), Some("no"))
    );
    // a request that is wrong has a status before it is a stream
    let error = server.refuses(&json!({"prompt": "ab", "stream": true, "n": 0}), 400);
    assert_eq!(error["param"], "n");
}
