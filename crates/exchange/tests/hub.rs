//! The hub, played by a server of this test.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use block_transformer_exchange::{ExchangeError, Hub, Located, locate};
use block_transformer_weights::{TensorFiles, TensorSource};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const ID: &str = "someone/model";

/// A server with the files of one repository. It answers as the hub does: a list of files, and files with their etag
/// and commit; large files are a redirection to another address.
struct Server {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    address: String,
    files: BTreeMap<String, Vec<u8>>,
    /// Bytes after which the connection breaks off when a large file is sent.
    cut: Mutex<Option<usize>>,
    token: Option<String>,
    /// A commit and an etag in place of the real ones.
    lies: Mutex<Option<(&'static str, &'static str)>>,
    /// Each request: its path, and its range.
    requests: Mutex<Vec<String>>,
}

impl Server {
    fn start(files: &[(&str, Vec<u8>)], token: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let files = files.iter().map(|(name, bytes)| (name.to_string(), bytes.clone())).collect();
        let shared = Arc::new(Shared {
            address: address.clone(),
            files,
            cut: Mutex::new(None),
            token: token.map(String::from),
            lies: Mutex::new(None),
            requests: Mutex::default(),
        });
        let server = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.answer(stream));
            }
        });
        Self { address, shared }
    }

    fn hub(&self, cache: &Path, offline: bool) -> Hub {
        Hub::new(&cache.join("hub"), Some(self.address.clone()), offline)
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.requests.lock().unwrap())
    }
}

impl Shared {
    fn answer(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let (mut request, mut line, mut first, mut authorized) =
                (String::new(), String::new(), 0, self.token.is_none());
            if reader.read_line(&mut request).unwrap_or(0) == 0 {
                return;
            }
            loop {
                line.clear();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                let lower = line.trim().to_ascii_lowercase();
                if lower.is_empty() {
                    break;
                }
                if let Some(range) = lower.strip_prefix("range: bytes=") {
                    first = range.split('-').next().unwrap().parse().unwrap();
                    request = format!("{} from {first}", request.trim());
                }
                if let Some(token) = &self.token {
                    authorized |= line.trim().ends_with(&format!("Bearer {token}"));
                }
            }
            self.requests.lock().unwrap().push(request.trim().to_string());
            let path = request.split(' ').nth(1).unwrap_or_default().to_string();
            if !self.respond(&stream, &path, first, authorized) {
                return;
            }
        }
    }

    /// Whether the connection goes on.
    fn respond(&self, mut stream: &TcpStream, path: &str, first: usize, authorized: bool) -> bool {
        let send = |mut stream: &TcpStream, status: &str, headers: &str, body: &[u8]| {
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_ok()
        };
        if !authorized && !path.starts_with("/cdn/") {
            return send(stream, "401 Unauthorized", "", b"");
        }
        if path == format!("/api/models/{ID}/revision/main") {
            let files: Vec<String> =
                self.files.keys().map(|name| format!(r#"{{"rfilename":"{name}"}}"#)).collect();
            let body = format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, files.join(","));
            return send(stream, "200 OK", "Content-Type: application/json\r\n", body.as_bytes());
        }
        let resolve = format!("/{ID}/resolve/main/");
        let (name, is_cdn) = match (path.strip_prefix(&resolve), path.strip_prefix("/cdn/")) {
            (Some(name), _) => (name, false),
            (_, Some(name)) => (name, true),
            _ => return send(stream, "404 Not Found", "", b""),
        };
        let Some(bytes) = self.files.get(name) else {
            return send(stream, "404 Not Found", "", b"");
        };
        let sha: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let is_large = name.ends_with(".safetensors");
        if is_large && !is_cdn {
            let headers = format!(
                "Location: {}/cdn/{name}\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"{sha}\"\r\n",
                self.address
            );
            return send(stream, "302 Found", &headers, b"");
        }
        let lies = *self.lies.lock().unwrap();
        let (commit, etag) = match lies {
            Some((commit, etag)) => (commit, etag.to_string()),
            None => (COMMIT, if is_large { sha } else { sha[..40].to_string() }),
        };
        let headers = format!(
            "X-Repo-Commit: {commit}\r\nETag: \"{etag}\"\r\nContent-Range: bytes {first}-{}/{}\r\n",
            bytes.len() - 1,
            bytes.len()
        );
        let body = &bytes[first..];
        let cut = if is_large { *self.cut.lock().unwrap() } else { None };
        match cut.filter(|&cut| cut < body.len()) {
            None => send(stream, "206 Partial Content", &headers, body),
            Some(cut) => {
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\n{headers}\r\n",
                    body.len()
                );
                let _ =
                    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..cut]));
                let _ = stream.shutdown(std::net::Shutdown::Both);
                false
            }
        }
    }
}

/// A safetensors file with the f32 tensor `name` of `count` values.
fn weights(name: &str, count: usize) -> Vec<u8> {
    let header = format!(
        r#"{{"{name}":{{"dtype":"F32","shape":[{count}],"data_offsets":[0,{}]}}}}"#,
        4 * count
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..count).flat_map(|i| (i as f32).to_le_bytes()));
    bytes
}

fn config() -> Vec<u8> {
    br#"{"model_type": "gpt_neox", "vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}"#
        .to_vec()
}

fn find(hub: &Hub) -> Result<Located, ExchangeError> {
    locate(ID, hub, &mut |_| {})
}

fn text(error: &ExchangeError) -> String {
    format!("{error}")
}

#[test]
fn files_are_fetched_once_and_then_found_offline() {
    let files = [
        ("config.json", config()),
        ("model.safetensors", weights("a", 5)),
        ("README.md", b"x".to_vec()),
    ];
    let server = Server::start(&files, None);
    let cache = TempDir::new().unwrap();
    let error = find(&server.hub(cache.path(), true)).unwrap_err();
    assert!(
        text(&error).contains("not in the cache") && text(&error).contains("--offline"),
        "{error}"
    );
    assert!(server.requests().is_empty());

    let mut seen = Vec::new();
    let found = locate(ID, &server.hub(cache.path(), false), &mut |download| {
        seen.push((download.file.to_string(), download.done, download.total));
    });
    let found = found.unwrap();
    assert_eq!(found.origin, format!("{ID}@{COMMIT}"));
    let size = weights("a", 5).len() as u64;
    assert!(seen.contains(&("model.safetensors".into(), size, size)), "{seen:?}");
    let config = found.config().unwrap().unwrap();
    assert_eq!(serde_json::to_value(&config).unwrap()["rotary_pct"], 0.5);
    assert_eq!(TensorFiles::open(&found.weights).unwrap().names(), ["a"]);
    assert!(!server.requests().iter().any(|request| request.contains("README")));
    // the cache has the layout of the Python library
    let repository = cache.path().join("hub/models--someone--model");
    assert_eq!(std::fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    assert!(repository.join("snapshots").join(COMMIT).join("model.safetensors").exists());

    find(&server.hub(cache.path(), false)).unwrap();
    let again = server.requests();
    assert!(again.iter().all(|request| request.contains("/api/")), "{again:?}");
    assert_eq!(find(&server.hub(cache.path(), true)).unwrap().weights, found.weights);
    assert!(server.requests().is_empty());
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let bytes = weights("a", 60_000);
    let server = Server::start(&[("model.safetensors", bytes.clone())], None);
    let cache = TempDir::new().unwrap();
    *server.shared.cut.lock().unwrap() = Some(30_000);
    let error = find(&server.hub(cache.path(), false)).unwrap_err();
    assert!(text(&error).contains("model.safetensors"), "{error}");
    let ranges = |server: &Server| -> Vec<usize> {
        let requests = server.requests();
        let large = requests.iter().filter(|request| request.contains("/cdn/"));
        large.map(|request| request.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    };
    // a question for the size, and then attempts, each from where the one before it stopped
    let first = ranges(&server);
    assert_eq!(first, [0, 0, 0, 30_000, 60_000, 90_000, 120_000]);
    *server.shared.cut.lock().unwrap() = None;
    let found = find(&server.hub(cache.path(), false)).unwrap();
    assert_eq!(ranges(&server).last(), Some(&150_000));
    assert_eq!(std::fs::read(found.weights).unwrap(), bytes);
}

#[test]
fn a_large_file_that_differs_from_its_sha256_is_refused() {
    let server = Server::start(&[("model.safetensors", weights("a", 500))], None);
    let cache = TempDir::new().unwrap();
    let found = find(&server.hub(cache.path(), false)).unwrap();
    let blob = found.weights.canonicalize().unwrap();
    std::fs::write(&blob, weights("b", 500)).unwrap();
    let error = find(&server.hub(cache.path(), false)).unwrap_err();
    assert!(matches!(error, ExchangeError::Digest { .. }), "{error}");
    assert!(text(&error).contains(blob.to_str().unwrap()), "{error}");
}

#[test]
fn names_of_the_server_that_lead_out_of_the_cache_are_refused() {
    for lies in
        [("../../../../evil", "0123"), (COMMIT, "../../../evil"), (COMMIT, "/evil"), (COMMIT, "")]
    {
        let server = Server::start(
            &[("model.safetensors", weights("a", 3)), ("config.json", config())],
            None,
        );
        let cache = TempDir::new().unwrap();
        find(&server.hub(cache.path(), false)).unwrap();
        let other = TempDir::new().unwrap();
        let inside = other.path().join("deep/er/cache");
        *server.shared.lies.lock().unwrap() = Some(lies);
        let error = find(&server.hub(&inside, false)).unwrap_err();
        assert!(
            text(&error).contains("config.json") && text(&error).contains("the server calls"),
            "{error}"
        );
        let written: Vec<_> =
            std::fs::read_dir(other.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(written, ["deep"], "{lies:?}");
    }
}

#[test]
fn shards_are_fetched_through_their_index_and_only_plain_names() {
    let index = |name: &str| format!(r#"{{"weight_map": {{"a": "{name}"}}}}"#).into_bytes();
    let files = [
        ("model.safetensors.index.json", index("one.safetensors")),
        ("one.safetensors", weights("a", 3)),
        ("two.safetensors", weights("b", 3)),
    ];
    let server = Server::start(&files, None);
    let cache = TempDir::new().unwrap();
    let found = find(&server.hub(cache.path(), false)).unwrap();
    assert_eq!(TensorFiles::open(&found.weights).unwrap().names(), ["a"]);
    assert!(!server.requests().iter().any(|request| request.contains("two")));
    let server =
        Server::start(&[("model.safetensors.index.json", index("../../x.safetensors"))], None);
    let cache = TempDir::new().unwrap();
    let error = find(&server.hub(cache.path(), false)).unwrap_err();
    assert!(text(&error).contains("not a plain file name"), "{error}");
}

#[test]
fn a_repository_that_needs_a_token_gets_that_of_the_cache() {
    let server = Server::start(&[("model.safetensors", weights("a", 3))], Some("hf_secret"));
    let cache = TempDir::new().unwrap();
    let error = find(&server.hub(cache.path(), false)).unwrap_err();
    assert!(
        text(&error).contains("the list of its files") && text(&error).contains("401"),
        "{error}"
    );
    std::fs::write(cache.path().join("token"), "hf_secret\n").unwrap();
    find(&server.hub(cache.path(), false)).unwrap();
}

#[test]
fn what_the_hub_does_not_have_is_an_error() {
    let server = Server::start(&[("README.md", b"x".to_vec())], None);
    let cache = TempDir::new().unwrap();
    let hub = server.hub(cache.path(), false);
    assert!(text(&find(&hub).unwrap_err()).contains("has no weights"));
    for (id, says) in [
        ("someone/other", "the list of its files"),
        ("pythia-161m", "did you mean `pythia-160m`?"),
        ("a/b/c", "no such file or folder"),
        ("someone/model@../x", "no such file or folder"),
        ("block-170m", "download the folder block_main_b4_85"),
    ] {
        let error = locate(id, &hub, &mut |_| {}).unwrap_err();
        assert!(text(&error).contains(says), "{id}: {error}");
    }
    drop(server);
    let gone = Hub::new(cache.path(), Some("http://127.0.0.1:1".into()), false);
    let error = find(&gone).unwrap_err();
    assert!(text(&error).contains("the list of its files"), "{error}");
}
