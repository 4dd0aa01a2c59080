//! `serve`: the real binary over loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{command, fails, fails_as, with_run};

/// A running server.
struct Served {
    child: Child,
    out: BufReader<ChildStdout>,
    port: u16,
    /// Lines before it was ready.
    lines: Vec<String>,
}

impl Served {
    fn start(dir: &Path, line: &str, key: Option<&str>) -> Self {
        let mut command = command(dir, &format!("serve --port 0 {line}"));
        if let Some(key) = key {
            command.env("BLOCK_TRANSFORMER_API_KEY", key);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != "ready") {
            let mut line = String::new();
            assert!(out.read_line(&mut line).unwrap() > 0, "{lines:?}");
            lines.push(line.trim().to_string());
        }
        let port = lines[0].rsplit(':').next().unwrap().parse().unwrap();
        Self { child, out, port, lines }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Status and body of an answer.
    fn post(&self, path: &str, key: &str, body: &Value) -> (u16, Value) {
        let (mut stream, body) = (self.connect(), body.to_string());
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    #[cfg(unix)]
    fn signal(&self, signal: i32) {
        // SAFETY: the process is a child of this one that has not been waited for
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for the end, and returns the exit code, the rest of stdout, and stderr.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut error) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        (self.child.wait().unwrap().code(), out, error)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

#[cfg(unix)]
#[test]
fn a_checkpoint_is_served_until_a_signal() {
    let dir = with_run();
    let served = Served::start(dir.path(), "--checkpoint run --checkpoint run --name a,b", None);
    assert!(served.lines[0].starts_with("listening on http://127.0.0.1:"), "{:?}", served.lines);
    for name in ["a: ", "b: "] {
        let line = served.lines.iter().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains("64 sequences of 128 tokens"), "{line}");
        assert!(line.contains("the same text alone and together"), "{line}");
    }
    let body = json!({"model": "b", "prompt": "line 5", "max_tokens": 8, "seed": 2});
    let (status, answer) = served.post("/v1/completions", "", &body);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["model"], "b");
    assert!(answer["system_fingerprint"].as_str().unwrap().starts_with("fp_"));
    assert_eq!(served.post("/v1/completions", "", &body).1["choices"], answer["choices"]);
    served.signal(libc::SIGTERM);
    let (code, out, error) = served.end();
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(
        out.starts_with("ending; running requests have 30 s") && out.ends_with("ended\n"),
        "{out}"
    );
}

#[cfg(unix)]
#[test]
fn a_second_signal_ends_a_server_that_drains() {
    let dir = with_run();
    let served = Served::start(dir.path(), "--checkpoint run", None);
    // a request whose body never arrives
    let mut stream = served.connect();
    let head = "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    served.post("/tokenize", "", &json!({"prompt": "a"}));
    served.signal(libc::SIGINT);
    let mut served = served;
    let mut line = String::new();
    served.out.read_line(&mut line).unwrap();
    assert!(line.starts_with("ending"), "{line}");
    served.signal(libc::SIGTERM);
    assert_eq!(served.end().0, Some(128 + libc::SIGTERM));
}

#[cfg(unix)]
#[test]
fn other_addresses_without_a_key_are_warned_of() {
    let dir = with_run();
    for (key, expected) in [(None, 200), (Some("secret"), 401)] {
        let served = Served::start(dir.path(), "--checkpoint run --host 0.0.0.0", key);
        let body = json!({"prompt": "a"});
        assert_eq!(served.post("/tokenize", "", &body).0, expected);
        assert_eq!(served.post("/tokenize", "secret", &body).0, 200);
        served.signal(libc::SIGTERM);
        let (code, _, error) = served.end();
        assert_eq!(code, Some(0));
        let warns = error.contains("0.0.0.0") && error.contains("BLOCK_TRANSFORMER_API_KEY");
        assert_eq!(warns, key.is_none(), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn presets_are_served_with_random_weights() {
    let dir = tempfile::tempdir().unwrap();
    let flags = "--preset debug-block,debug-vanilla --sequences 2 --max-tokens 64 --cache bf16";
    let served = Served::start(dir.path(), flags, None);
    for model in ["debug-block", "debug-vanilla"] {
        let body = json!({"model": model, "prompt": "abcd", "max_tokens": 8, "ignore_eos": true});
        let (status, answer) = served.post("/v1/completions", "", &body);
        assert_eq!((status, &answer["usage"]["completion_tokens"]), (200, &json!(8)), "{answer}");
    }
}

#[test]
fn wrong_flags_are_named() {
    let dir = with_run();
    let run = "serve --port 0 --checkpoint run";
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let used = format!("--port {port}");
    for (line, says) in [
        ("serve --checkpoint lost", &["--checkpoint", "lost"][..]),
        ("serve --preset blok-170m", &["--preset", "block-170m"]),
        (&format!("{run} --name a,b"), &["--name", "is 2, and that of models 1"]),
        (&format!("{run} --checkpoint run"), &["--name", "called \"run\""]),
        (&format!("{run} --memory 1KB"), &["--memory", "--max-tokens"]),
        (&format!("{run} --memory 100MB --sequences 100000"), &["--sequences", "do not fit"]),
        (&format!("{run} --max-tokens 1"), &["--max-tokens"]),
        (&format!("{run} --cors example.org"), &["--cors", "https://"]),
        (&format!("serve --checkpoint run {used}"), &["--port", "cannot listen on 127.0.0.1"]),
        (&format!("{run} --cache int8 --device ndarray"), &["--cache", "--device ndarray"]),
    ] {
        fails(dir.path(), line, says);
    }
    for key in ["two words", "schlüssel"] {
        let mut command = command(dir.path(), run);
        fails_as(
            command.env("BLOCK_TRANSFORMER_API_KEY", key),
            1,
            &["_API_KEY", "printable ASCII"],
        );
    }
    fails_as(&mut command(dir.path(), "serve"), 2, &["--checkpoint"]);
    let tokenizer = format!("{run} --tokenizer a.json");
    fails_as(&mut command(dir.path(), &tokenizer), 2, &["--preset"]);
}
