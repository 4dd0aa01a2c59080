//! Start, drain, and failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use block_transformer_server::{
    EngineOptions, ServeError, ServedModel, Server, ServerConfig, Shutdown,
};
use block_transformer_testing::{damaged, model, shape};
use block_transformer_text::Tokenizer;
use burn::tensor::Device;
use serde_json::json;

use crate::support::{Connection, TestServer, config, options, served};

/// Options with steps of at least a hundredth of a second, of which one panics once the flag is set.
fn failing() -> (EngineOptions, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(false));
    let flag = fails.clone();
    let on_step = Box::new(move || {
        std::thread::sleep(Duration::from_millis(10));
        assert!(!flag.load(Ordering::SeqCst), "injected");
    });
    (EngineOptions { on_step: Some(on_step), ..options(4) }, fails)
}

fn slow() -> EngineOptions {
    failing().0
}

#[test]
fn running_requests_end_after_a_shutdown_and_new_connections_are_refused() {
    let server = TestServer::with(vec![served("prefix", slow())], config());
    let mut kept = Connection::open(server.address());
    kept.write(b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(kept.head().unwrap().0, 200);
    let body = json!({"prompt": "ab", "max_tokens": 60, "ignore_eos": true, "stream": true});
    let mut stream = server.begin(&body);
    stream.event().unwrap();
    let mut plain = body.clone();
    plain["stream"] = json!(false);
    let plain = server.begin(&plain);
    server.wait_for("vllm:num_requests_running{model_name=\"prefix\"}", 2.0);
    server.shutdown().begin();
    let start = Instant::now();
    while std::net::TcpStream::connect(server.address()).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    let mut events = 0;
    let mut last = None;
    while let Some(event) = stream.event() {
        (events, last) = (events + 1, Some(event));
    }
    assert!(events > 10);
    assert_eq!(last.unwrap()["choices"][0]["finish_reason"], "length");
    let answer = plain.answer();
    assert_eq!(
        (answer.status, answer.json()["usage"]["completion_tokens"].as_u64()),
        (200, Some(60))
    );
    server.join().unwrap();
}

#[test]
fn requests_that_take_longer_than_the_drain_are_cancelled() {
    let config = ServerConfig { drain: Duration::from_millis(100), ..config() };
    let server = TestServer::with(vec![served("prefix", slow())], config);
    let mut body = json!({"prompt": "ab", "max_tokens": 120, "ignore_eos": true});
    let plain = server.begin(&body);
    body["stream"] = json!(true);
    let mut stream = server.begin(&body);
    stream.event().unwrap();
    server.wait_for("vllm:num_requests_running{model_name=\"prefix\"}", 2.0);
    server.shutdown().begin();
    let answer = plain.answer();
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_str()),
        (503, Some("shutting_down"))
    );
    let mut last = None;
    while let Some(event) = stream.event() {
        last = Some(event);
    }
    assert_eq!(last.unwrap()["error"]["code"], "shutting_down");
    let start = Instant::now();
    server.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_panic_of_an_engine_ends_the_server_with_an_error() {
    let (options, fails) = failing();
    let server =
        TestServer::with(vec![served("prefix", options), served("vanilla", slow())], config());
    let mut body = json!({"prompt": "ab", "max_tokens": 120, "ignore_eos": true});
    let plain = server.begin(&body);
    let mut scores = body.clone();
    (scores["echo"], scores["logprobs"]) = (json!(true), json!(1));
    let scores = server.begin(&scores);
    body["stream"] = json!(true);
    let mut stream = server.begin(&body);
    stream.event().unwrap();
    server.wait_for("vllm:num_requests_running{model_name=\"prefix\"}", 3.0);
    let mut kept = Connection::open(server.address());
    fails.store(true, Ordering::SeqCst);
    for request in [plain, scores] {
        let answer = request.answer();
        assert_eq!(answer.status, 500, "{}", answer.text());
        assert_eq!(answer.json()["error"]["type"], "server_error");
    }
    let mut last = None;
    while let Some(event) = stream.event() {
        last = Some(event);
    }
    assert_eq!(last.unwrap()["error"]["type"], "server_error");
    // a connection that was open before
    if kept.write(b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n").is_ok()
        && let Some((status, _)) = kept.head()
    {
        assert_eq!(status, 503);
    }
    let error = server.join().unwrap_err();
    let ServeError::Failed { model, reason } = &error else { panic!("{error}") };
    assert_eq!(model, "prefix");
    assert!(reason.contains("injected"), "{reason}");
}

#[test]
fn damaged_weights_are_an_error_of_the_server() {
    let config_of_model = shape("vanilla");
    let load = || Ok(damaged(model(&shape("vanilla"), &Device::flex())));
    let broken = ServedModel::new("vanilla", &config_of_model, Tokenizer::Bytes, options(4), load);
    let server = TestServer::with(vec![broken], config());
    let ids = [5, block_transformer_testing::DAMAGED, 5, 5, 5];
    for body in [
        json!({"prompt": ids, "max_tokens": 4}),
        json!({"prompt": ids, "max_tokens": 4, "stream": true}),
        json!({"prompt": ids, "max_tokens": 1, "echo": true, "logprobs": 1, "temperature": 0}),
    ] {
        let error = server.refuses(&body, 500);
        assert!(error["message"].as_str().unwrap().contains("damaged"), "{error}");
    }
    // other prompts of the same batch are answered
    let body = json!({"prompt": "abcde", "max_tokens": 0, "echo": true, "logprobs": 1});
    server.complete(&body);
}

#[test]
fn until_its_models_are_loaded_a_server_is_alive_but_not_ready() {
    let (sender, gate) = std::sync::mpsc::channel::<()>();
    let load = move || {
        gate.recv().unwrap();
        Ok(crate::support::language_model("prefix"))
    };
    let slow = ServedModel::new("prefix", &shape("prefix"), Tokenizer::Bytes, options(4), load);
    let server = Server::bind(config()).unwrap();
    let (address, shutdown) = (server.local_addr(), Shutdown::default());
    let ends = shutdown.clone();
    let thread = std::thread::spawn(move || server.run(vec![slow], &ends, &mut |_| {}));
    let get = |path: &str| Connection::open(address).request("GET", path, &[], b"").answer();
    assert_eq!(get("/health").status, 200);
    assert_eq!(
        (get("/ready").status, get("/ready").json()["error"]["code"].as_str()),
        (503, Some("loading"))
    );
    let ask = || {
        let connection = Connection::open(address);
        connection
            .request("POST", "/v1/completions", &[crate::support::JSON], b"{\"prompt\": \"a\"}")
            .answer()
    };
    assert_eq!(ask().status, 503);
    assert!(get("/v1/models").json()["data"][0]["slots"].is_null());
    sender.send(()).unwrap();
    let start = Instant::now();
    while get("/ready").status != 200 {
        assert!(start.elapsed() < Duration::from_secs(60));
    }
    assert_eq!(ask().status, 200);
    shutdown.begin();
    thread.join().unwrap().unwrap();
}

/// The error of a server that does not start.
fn fails(models: Vec<ServedModel>, config: ServerConfig) -> ServeError {
    let server = Server::bind(config).unwrap();
    server.run(models, &Shutdown::default(), &mut |_| {}).unwrap_err()
}

#[test]
fn what_cannot_be_served_is_refused_at_the_start() {
    let with = |change: fn(&mut EngineOptions)| {
        let mut options = options(4);
        change(&mut options);
        fails(vec![served("vanilla", options)], config()).to_string()
    };
    let error = fails(
        vec![served("vanilla", EngineOptions { memory: Some(1000), ..options(4) })],
        config(),
    );
    assert!(matches!(error, ServeError::Memory { memory: 1000, .. }), "{error}");
    let error =
        with(|options| (options.sequences, options.memory) = (Some(10_000), Some(200_000_000)));
    assert!(error.contains("10000 sequences of 128 tokens do not fit"), "{error}");
    let load = || Err::<block_transformer_zoo::LanguageModel, _>("no weights".into());
    let missing = ServedModel::new("x", &shape("prefix"), Tokenizer::Bytes, options(4), load);
    assert!(matches!(fails(vec![missing], config()), ServeError::Load { .. }));
    let config_of_model = shape("prefix");
    let load = || Ok(crate::support::language_model("prefix"));
    let nameless = ServedModel::new("", &config_of_model, Tokenizer::Bytes, options(4), load);
    assert!(matches!(fails(vec![nameless], config()), ServeError::NoName));
    let twice = vec![served("prefix", options(4)), served("prefix", options(4))];
    assert!(matches!(fails(twice, config()), ServeError::SameName(_)));
    assert!(matches!(fails(Vec::new(), config()), ServeError::NoModel));
    let other = ServerConfig { cors: vec!["example.org".into()], ..config() };
    assert!(matches!(fails(vec![served("prefix", options(4))], other), ServeError::Origin(_)));
    let taken = TestServer::new();
    let config = ServerConfig { address: taken.address(), ..config() };
    assert!(matches!(Server::bind(config).unwrap_err(), ServeError::Bind { .. }));
}

#[test]
fn the_memory_limits_the_sequences() {
    let few = EngineOptions { sequences: None, memory: Some(6_000_000), ..options(1) };
    let server = TestServer::with(vec![served("vanilla", few)], config());
    let card = server.get("/v1/models").json()["data"][0].take();
    let (slots, bytes) = (card["slots"].as_u64().unwrap(), card["slot_bytes"].as_u64().unwrap());
    assert!((1..64).contains(&slots), "{card}");
    assert!(slots * bytes < 6_000_000, "{card}");
    assert_eq!(card["batch_invariant"], true);
    let all = EngineOptions { sequences: None, memory: None, ..options(1) };
    let server = TestServer::with(vec![served("vanilla", all)], config());
    assert_eq!(server.get("/v1/models").json()["data"][0]["slots"], 64);
}
