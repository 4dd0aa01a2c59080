//! The queue, cancelled requests, the key, and clients that misbehave.

use std::io::Read;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use block_transformer_server::{EngineOptions, ServerConfig};
use serde_json::json;

use crate::support::{Connection, JSON, TestServer, config, options, served};

/// A request that runs until it is cancelled or the test is over.
fn long() -> serde_json::Value {
    json!({"prompt": "ab", "max_tokens": 120, "ignore_eos": true, "stream": true})
}

/// Options with steps that take at least a hundredth of a second, and the number of steps.
fn slow(sequences: usize) -> (EngineOptions, Arc<AtomicUsize>) {
    let steps = Arc::new(AtomicUsize::new(0));
    let counted = steps.clone();
    let on_step = Box::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(10));
    });
    (EngineOptions { on_step: Some(on_step), ..options(sequences) }, steps)
}

const RUNNING: &str = "vllm:num_requests_running{model_name=\"prefix\"}";
const WAITING: &str = "vllm:num_requests_waiting{model_name=\"prefix\"}";

#[test]
fn a_full_queue_is_answered_with_429_and_a_time() {
    let config = ServerConfig { queue: 2, ..config() };
    let server = TestServer::with(vec![served("prefix", slow(1).0)], config);
    let mut running = server.begin(&long());
    running.event().unwrap();
    let _waiting = [server.begin(&long()), server.begin(&long())];
    server.wait_for(WAITING, 2.0);
    let answer = server.post("/v1/completions", &long());
    assert_eq!(answer.status, 429);
    let seconds: u64 = answer.header("Retry-After").unwrap().parse().unwrap();
    assert!((1..=30).contains(&seconds));
    assert_eq!(answer.json()["error"]["code"], "queue_full");
    assert_eq!(
        server.metric(
            "block_transformer_rejected_total{model_name=\"prefix\",reason=\"queue_full\"}"
        ),
        1.0
    );
    // a choice of a client that goes away makes room
    drop(running);
    server.wait_for(WAITING, 1.0);
    let mut next = server.begin(&long());
    server.wait_for(WAITING, 2.0);
    assert_eq!(server.post("/v1/completions", &long()).status, 429);
    drop(_waiting);
    assert!(next.event().is_some());
}

#[test]
fn a_sequence_that_waits_too_long_is_refused() {
    let config = ServerConfig { queue_timeout: Duration::from_millis(200), ..config() };
    let server = TestServer::with(vec![served("prefix", slow(1).0)], config);
    let mut running = server.begin(&long());
    running.event().unwrap();
    let mut body = long();
    for stream in [true, false] {
        body["stream"] = json!(stream);
        let answer = server.post("/v1/completions", &body);
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (503, Some("queue_timeout"))
        );
        assert!(answer.header("Retry-After").is_some());
    }
    assert!(running.event().is_some());
}

#[test]
fn a_client_that_goes_away_frees_its_slot_within_a_step() {
    // a step begins when the test allows it
    let (allow, steps) = channel();
    let on_step = Box::new(move || {
        let _ = steps.recv_timeout(Duration::from_secs(60));
    });
    let options = EngineOptions { on_step: Some(on_step), ..options(4) };
    let server = TestServer::with(vec![served("prefix", options)], config());
    let step = |count: usize| (0..count).for_each(|_| allow.send(()).unwrap());
    for plain in [false, true] {
        let mut body = long();
        body["n"] = json!(3);
        body["stream"] = json!(!plain);
        let connection = server.begin(&body);
        // the first step waits until it is allowed
        server.wait_for(WAITING, 3.0);
        step(1);
        server.wait_for(RUNNING, 3.0);
        // one that goes on joins at the start of a block
        let other = server.begin(&long());
        std::thread::sleep(Duration::from_millis(300));
        step(4);
        server.wait_for(RUNNING, 4.0);
        connection.socket().shutdown(Shutdown::Both).unwrap();
        drop(connection);
        // the system delivers the end of the connection while a step waits
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(server.metric(RUNNING), 4.0);
        step(1);
        server.wait_for(RUNNING, 1.0);
        drop(other);
        std::thread::sleep(Duration::from_millis(300));
        step(1);
        server.wait_for(RUNNING, 0.0);
        // the engine reports the ends in a step without work
        step(1);
    }
    let aborted = "vllm:request_success_total{finished_reason=\"abort\",model_name=\"prefix\"}";
    assert_eq!(server.metric(aborted), 8.0);
}

#[test]
fn without_a_request_there_are_no_steps() {
    let (options, steps) = slow(4);
    let server = TestServer::with(vec![served("prefix", options)], config());
    server.complete(&json!({"prompt": "ab", "max_tokens": 3}));
    let before = steps.load(Ordering::SeqCst);
    assert!(before > 0);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(steps.load(Ordering::SeqCst), before);
}

#[test]
fn a_place_is_free_when_the_answer_is_there() {
    let config = ServerConfig { queue: 0, ..config() };
    let server = TestServer::with(vec![served("prefix", options(1))], config);
    for body in [
        json!({"prompt": "ab", "max_tokens": 3, "ignore_eos": true}),
        json!({"prompt": "ab", "max_tokens": 3, "ignore_eos": true, "stream": true}),
        json!({"prompt": "ab", "max_tokens": 0, "echo": true, "logprobs": 1}),
        json!({"prompt": "ab", "max_tokens": 0, "echo": true, "logprobs": 1, "stream": true}),
    ] {
        for i in 0..60 {
            let answer = server.post("/v1/completions", &body);
            assert_eq!(answer.status, 200, "{body}, {i}");
        }
    }
}

#[test]
fn a_request_that_was_begun_waits_for_all_of_its_slots() {
    let config = ServerConfig { queue_timeout: Duration::from_millis(100), ..config() };
    let server = TestServer::with(vec![served("prefix", slow(2).0)], config);
    // steps take much longer in all
    let mut body = json!({"prompt": vec!["ab"; 12], "max_tokens": 8, "ignore_eos": true});
    assert_eq!(server.complete(&body)["usage"]["completion_tokens"], 96);
    // another one that has no slot in this time is refused
    let running = server.begin(&body);
    server.wait_for(RUNNING, 2.0);
    body["prompt"] = json!("ab");
    let error = server.refuses(&body, 503);
    assert!(error["message"].as_str().unwrap().contains("0.1 s"), "{error}");
    assert_eq!(running.answer().status, 200);
}

#[test]
fn waiting_requests_and_scores_of_clients_that_go_away_are_dropped() {
    let server = TestServer::with(vec![served("prefix", slow(1).0)], config());
    let mut running = server.begin(&long());
    running.event().unwrap();
    let scores =
        json!({"prompt": vec![vec![5; 100]; 200], "max_tokens": 0, "echo": true, "logprobs": 0});
    let waiting = [server.begin(&long()), server.begin(&scores)];
    server.wait_for(WAITING, 1.0 + 200.0 - 2.0 * 2.0);
    drop(waiting);
    server.wait_for(WAITING, 0.0);
    assert!(running.event().is_some());
}

#[test]
fn large_bodies_and_heads_are_refused() {
    let server = TestServer::new();
    let body = json!({"prompt": "a".repeat(2 << 20)}).to_string();
    let answer = server.send("POST", "/v1/completions", &[JSON], body.as_bytes());
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_str()),
        (413, Some("body_too_large"))
    );
    // the length alone is enough
    let mut connection = Connection::open(server.address());
    let head = "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n";
    connection.write(head.as_bytes()).unwrap();
    assert_eq!(connection.head().unwrap().0, 413);
    // a body in chunks without an end
    let mut connection = Connection::open(server.address());
    let head = "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.write(head.as_bytes()).unwrap();
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
    while connection.write(chunk.as_bytes()).is_ok() {}
    let answer = server.send("GET", "/health", &[("X-Long", &"a".repeat(64 << 10))], b"");
    assert_eq!(answer.status, 431);
    let many: Vec<(String, &str)> = (0..200).map(|i| (format!("X-{i}"), "a")).collect();
    let many: Vec<(&str, &str)> =
        many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(server.send("GET", "/health", &many, b"").status, 431);
    assert_eq!(server.get("/health").status, 200);
    // a body below the limit with a text that is far too long
    let body = json!({"prompt": "a".repeat(1 << 20), "max_tokens": 1});
    let error = server.refuses(&body, 400);
    assert_eq!(
        (error["param"].as_str(), error["code"].as_str()),
        (Some("prompt"), Some("context_length_exceeded"))
    );
    let body = json!({"prefix": "a".repeat(1 << 20), "prompt": "a", "max_tokens": 1});
    assert_eq!(server.refuses(&body, 400)["param"], "prefix");
    let body = json!({"prompt": "ab", "max_tokens": 127});
    assert_eq!(server.refuses(&body, 400)["param"], "max_tokens");
    let body = json!({"prefix": "ab", "prompt": "ab", "max_tokens": 127});
    assert_eq!(server.refuses(&body, 400)["param"], "max_tokens");
}

#[test]
fn slow_clients_are_disconnected() {
    let config = ServerConfig {
        header_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(300),
        max_connections: 6,
        ..config()
    };
    let server = TestServer::with(vec![served("prefix", options(2))], config);
    let start = Instant::now();
    let mut slow: Vec<Connection> = (0..5).map(|_| Connection::open(server.address())).collect();
    // some never send a whole head, one sends nothing, and one no whole body
    for connection in &mut slow[1..4] {
        connection.write(b"POST /tokenize HTTP/1.1\r\nHost").unwrap();
    }
    let head = "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{";
    slow[4].write(head.as_bytes()).unwrap();
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(slow.pop().unwrap().head().unwrap().0, 408);
    for connection in slow {
        let mut rest = Vec::new();
        let _ = connection.socket().read_to_end(&mut rest);
    }
    assert!(start.elapsed() < Duration::from_secs(30));
    // a connection that is kept open is closed after the time for a head
    let mut idle = Connection::open(server.address());
    idle.write(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(idle.head().unwrap().0, 200);
    let mut rest = Vec::new();
    let _ = idle.socket().read_to_end(&mut rest);
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_client_that_does_not_read_is_disconnected() {
    let config = ServerConfig { write_timeout: Duration::from_millis(300), ..config() };
    let server = TestServer::with(vec![served("prefix", options(2))], config);
    let prompts = vec!["a".repeat(100); 300];
    let body = json!({"prompt": prompts, "echo": true, "logprobs": 20, "max_tokens": 0});
    // an answer of tens of megabytes does not fit into the buffers of the system
    let _unread = server.begin(&body);
    server.wait_for("block_transformer_scored_tokens_total{model_name=\"prefix\"}", 99.0 * 300.0);
    // the connection that asks is open too
    server.wait_for("block_transformer_http_connections", 2.0);
    server.wait_for("block_transformer_http_connections", 1.0);
}

#[test]
fn connections_above_the_limit_wait() {
    let config = ServerConfig { max_connections: 2, ..config() };
    let server = TestServer::with(vec![served("prefix", options(2))], config);
    let (first, _second) = (Connection::open(server.address()), Connection::open(server.address()));
    let mut third = Connection::open(server.address());
    third.write(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    third.socket().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(third.head().is_none());
    third.socket().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    drop(first);
    assert_eq!(third.head().unwrap().0, 200);
}

#[test]
fn the_interface_needs_the_key_and_the_state_does_not() {
    let config = ServerConfig { api_key: Some("secret".into()), ..config() };
    let server = TestServer::with(vec![served("prefix", options(2))], config);
    let ask = |path: &str, key: Option<&str>| {
        let key = key.map(|key| ("Authorization", key));
        let headers: Vec<(&str, &str)> = [JSON].into_iter().chain(key).collect();
        let method = if path.starts_with("/v1/models") || path == "/tokenizer_info" {
            "GET"
        } else {
            "POST"
        };
        server.send(method, path, &headers, b"{\"prompt\": \"a\", \"tokens\": [1]}")
    };
    for path in [
        "/v1/completions",
        "/v1/models",
        "/v1/models/prefix",
        "/tokenize",
        "/detokenize",
        "/tokenizer_info",
    ] {
        for key in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer secre"),
            Some("Bearer secret2"),
            Some("Basic secret"),
            Some("secret"),
        ] {
            let answer = ask(path, key);
            assert_eq!(
                (answer.status, answer.header("WWW-Authenticate")),
                (401, Some("Bearer")),
                "{path} {key:?}"
            );
            assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
        }
        for key in ["Bearer secret", "bearer secret"] {
            assert_eq!(ask(path, Some(key)).status, 200, "{path}");
        }
    }
    assert_eq!(ask("/v1/chat/completions", None).status, 401);
    for path in ["/", "/health", "/ready", "/metrics", "/openapi.json"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    // no key is asked for without one, and clients send an empty one then
    let open = TestServer::new();
    let headers = [JSON, ("Authorization", "Bearer ")];
    assert_eq!(open.send("POST", "/v1/completions", &headers, b"{\"prompt\": \"a\"}").status, 200);
}

#[test]
fn pages_of_other_places_need_an_origin_that_is_allowed() {
    let origin = ("Origin", "https://example.org");
    let preflight = [origin, ("Access-Control-Request-Method", "POST")];
    let closed = TestServer::new();
    let answer = closed.send("OPTIONS", "/v1/completions", &preflight, b"");
    assert!(answer.header("Access-Control-Allow-Origin").is_none());
    drop(closed);
    for allowed in ["https://example.org", "*"] {
        let config = ServerConfig { cors: vec![allowed.into()], ..config() };
        let server = TestServer::with(vec![served("prefix", options(2))], config);
        let answer = server.send("OPTIONS", "/v1/completions", &preflight, b"");
        assert_eq!(
            (answer.status, answer.header("Access-Control-Allow-Origin")),
            (200, Some(allowed))
        );
        let other = server.send("GET", "/health", &[("Origin", "https://example.com")], b"");
        let expected = (allowed == "*").then_some("*");
        assert_eq!(other.header("Access-Control-Allow-Origin"), expected);
    }
}

#[test]
fn clients_that_send_no_http_do_not_stop_the_server() {
    let server = TestServer::new();
    for bytes in [
        &b"\r\n\r\n"[..],
        b"\0\0\0\0",
        b"GET\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut connection = Connection::open(server.address());
        connection.write(bytes).unwrap();
        let _ = connection.socket().shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        let _ = connection.socket().read_to_end(&mut rest);
    }
    assert_eq!(server.get("/ready").status, 200);
}
