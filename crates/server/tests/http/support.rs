//! Servers with small models, and a client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use block_transformer_server::{
    EngineOptions, Notice, ServeError, ServedModel, Server, ServerConfig, Shutdown,
};
use block_transformer_testing::shape;
use block_transformer_text::Tokenizer;
use block_transformer_zoo::{Family, LanguageModel};
use burn::tensor::Device;
use serde_json::{Value, json};

/// Tokens of a sequence.
pub(crate) const MAX_TOKENS: usize = 128;
/// The longest time to wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, which ends when it is dropped.
pub(crate) struct TestServer {
    address: SocketAddr,
    shutdown: Shutdown,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

/// The prepared model of a shape.
pub(crate) fn language_model(name: &str) -> LanguageModel {
    block_transformer_testing::model(&shape(name), &Device::flex()).prepared()
}

/// Options of an engine for `sequences` sequences.
pub(crate) fn options(sequences: usize) -> EngineOptions {
    EngineOptions {
        sequences: Some(sequences),
        threads: 2,
        ..EngineOptions::new(&Device::flex(), MAX_TOKENS)
    }
}

/// The model of a shape, under the name of the shape.
pub(crate) fn served(shape_name: &'static str, options: EngineOptions) -> ServedModel {
    let config = shape(shape_name);
    let load = move || Ok(language_model(shape_name));
    ServedModel::new(shape_name, &config, Tokenizer::Bytes, options, load)
}

/// The settings of a server on any free port.
pub(crate) fn config() -> ServerConfig {
    ServerConfig { address: ([127, 0, 0, 1], 0).into(), ..ServerConfig::default() }
}

impl TestServer {
    /// A server of a block model and a vanilla model.
    pub(crate) fn new() -> Self {
        Self::with(vec![served("prefix", options(8)), served("vanilla", options(8))], config())
    }

    /// A server, once its models are loaded.
    pub(crate) fn with(models: Vec<ServedModel>, config: ServerConfig) -> Self {
        let server = Server::bind(config).unwrap();
        let (address, shutdown) = (server.local_addr(), Shutdown::default());
        let (sender, notices) = channel();
        let ends = shutdown.clone();
        let thread = std::thread::spawn(move || {
            server.run(models, &ends, &mut |notice| drop(sender.send(notice)))
        });
        while notices.recv_timeout(PATIENCE).unwrap() != Notice::Ready {}
        Self { address, shutdown, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Waits for the end.
    pub(crate) fn join(mut self) -> Result<(), ServeError> {
        self.thread.take().unwrap().join().unwrap()
    }

    /// Sends a request with headers, and returns the answer.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        Connection::open(self.address).request(method, path, headers, body).answer()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[JSON], body.to_string().as_bytes())
    }

    /// The answer to a request of completions that must succeed.
    pub(crate) fn complete(&self, body: &Value) -> Value {
        let answer = self.post("/v1/completions", body);
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        answer.json()
    }

    /// The error of a request of completions that must fail.
    pub(crate) fn refuses(&self, body: &Value, status: u16) -> Value {
        let answer = self.post("/v1/completions", body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        answer.json()["error"].take()
    }

    /// The events of a stream, without its end.
    pub(crate) fn stream(&self, body: &Value) -> Vec<Value> {
        let mut connection = self.begin(body);
        let events = std::iter::from_fn(|| connection.event());
        events.collect()
    }

    /// Sends a request of completions, and returns the connection before the answer.
    pub(crate) fn begin(&self, body: &Value) -> Connection {
        let connection = Connection::open(self.address);
        connection.request("POST", "/v1/completions", &[JSON], body.to_string().as_bytes())
    }

    /// The value of a metric.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}:\n{text}")).parse().unwrap()
    }

    /// Waits until a metric has a value.
    pub(crate) fn wait_for(&self, name: &str, value: f64) {
        let start = Instant::now();
        while self.metric(name) != value {
            assert!(start.elapsed() < PATIENCE, "{name} is {}", self.metric(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.begin();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| json!(self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// A connection with bytes of its own, so that tests can send what no client sends.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    /// Bytes of the current chunk that have not been read.
    head: Option<(u16, Vec<(String, String)>)>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream), head: None }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    pub(crate) fn request(
        mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Self {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        self.write(head.as_bytes()).unwrap();
        // a server that refuses a body can close the connection before all of it is sent
        let _ = self.write(body);
        self
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let bytes = self.stream.read_line(&mut line).unwrap_or(0);
        (bytes > 0).then(|| line.trim_end_matches(['\r', '\n']).to_string())
    }

    /// Reads status and headers.
    pub(crate) fn head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let status = self.line()?.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        while let Some(line) = self.line().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ")?;
            headers.push((name.to_string(), value.to_string()));
        }
        Some((status, headers))
    }

    /// Reads a whole answer.
    pub(crate) fn answer(mut self) -> Answer {
        let (status, headers) = self.head().expect("an answer");
        let mut answer = Answer { status, headers, body: Vec::new() };
        match answer.header("Content-Length").map(|length| length.parse().unwrap()) {
            Some(length) => {
                answer.body.resize(length, 0);
                self.stream.read_exact(&mut answer.body).unwrap();
            }
            None => {
                while let Some(chunk) = self.chunk() {
                    answer.body.extend(chunk);
                }
            }
        }
        answer
    }

    fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(&self.line()?, 16).ok()?;
        let mut chunk = vec![0; length];
        self.stream.read_exact(&mut chunk).ok()?;
        self.line()?;
        (length > 0).then_some(chunk)
    }

    /// The next event of a stream.
    pub(crate) fn event(&mut self) -> Option<Value> {
        if self.head.is_none() {
            let head = self.head().expect("an answer");
            assert_eq!(head.0, 200);
            self.head = Some(head);
        }
        loop {
            // lines of chunks and of events follow each other; those of chunks have no colon
            let line = self.line()?;
            if let Some(data) = line.strip_prefix("data: ") {
                return (data != "[DONE]").then(|| serde_json::from_str(data).unwrap());
            }
        }
    }
}

/// The texts of the choices of an answer.
pub(crate) fn texts(answer: &Value) -> Vec<String> {
    let choices = answer["choices"].as_array().unwrap();
    choices.iter().map(|choice| choice["text"].as_str().unwrap().to_string()).collect()
}
