//! A client of completions over HTTP/1.1.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::BenchError;

/// The longest time for a connection, and between two parts of an answer.
const PATIENCE: Duration = Duration::from_secs(300);

/// A server.
#[derive(Clone)]
pub struct Endpoint {
    authority: String,
    port: u16,
    host: String,
    key: Option<String>,
}

// without the key
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// A model as the server lists it. Servers of other programs may know less about it.
#[derive(Clone, Debug, Deserialize)]
pub struct ServedCard {
    /// The name by which requests choose the model.
    pub id: String,
    /// The family of the model.
    #[serde(default)]
    pub family: Option<String>,
}

#[derive(Deserialize)]
struct Cards {
    data: Vec<ServedCard>,
}

/// An object of a stream.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<ErrorObject>,
}

#[derive(Deserialize)]
struct Usage {
    completion_tokens: usize,
}

/// The answer of a request that failed.
#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorObject,
}

#[derive(Deserialize)]
struct ErrorObject {
    message: String,
}

impl Endpoint {
    /// The server at `url`, which is `http://HOST:PORT`; `key` is the API key.
    ///
    /// # Errors
    /// When the text is not such an address.
    pub fn new(url: &str, key: Option<String>) -> Result<Self, BenchError> {
        let wrong = || BenchError::Url(url.into());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/");
        let authority = uri.authority().filter(|_| plain).ok_or_else(wrong)?;
        let host = authority.host().trim_matches(['[', ']']).to_string();
        let port = authority.port_u16().unwrap_or(80);
        let key = key.filter(|key| !key.is_empty());
        Ok(Self { authority: authority.to_string(), port, host, key })
    }

    /// Lists the models of the server.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn models(&self) -> Result<Vec<ServedCard>, BenchError> {
        let request = async {
            let request = self.request(Method::GET, "/v1/models", Bytes::new())?;
            let answer = self.send(request).await?.collect().await.map_err(text)?.to_bytes();
            serde_json::from_slice::<Cards>(&answer).map_err(text)
        };
        let cards = runtime()?.block_on(request);
        let failed = |reason| BenchError::Server { address: self.authority.clone(), reason };
        Ok(cards.map_err(failed)?.data)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        request.body(Full::new(body)).map_err(text)
    }

    /// Sends a request over a connection of its own, and returns the body of an answer with a status of success.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Incoming, String> {
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = timeout(PATIENCE, connect).await.map_err(text)?.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        // ends with the answer; the errors of the connection are also those of the answer
        tokio::spawn(connection);
        let answer = timeout(PATIENCE, sender.send_request(request)).await.map_err(text)?;
        let answer: Response<Incoming> = answer.map_err(text)?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer.into_body());
        }
        let body = answer.into_body().collect().await.map_err(text)?.to_bytes();
        let message =
            serde_json::from_slice::<ErrorAnswer>(&body).map(|answer| answer.error.message);
        Err(message.map_or_else(
            |_| format!("status {status}"),
            |message| format!("status {status}: {message}"),
        ))
    }

    /// Streams a completion. `on_tokens` gets the tokens so far, whenever some have arrived.
    pub(super) async fn stream(
        &self,
        body: Bytes,
        mut on_tokens: impl FnMut(usize),
    ) -> Result<(), String> {
        let mut answer = self.send(self.request(Method::POST, "/v1/completions", body)?).await?;
        let (mut rest, mut tokens, mut reported) = (Vec::new(), 0, 0);
        while let Some(frame) = timeout(PATIENCE, answer.frame()).await.map_err(text)? {
            let Ok(data) = frame.map_err(text)?.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else {
                    continue;
                };
                if data == b"[DONE]" {
                    if tokens > reported {
                        on_tokens(tokens);
                    }
                    return Ok(());
                }
                let chunk: Chunk = serde_json::from_slice(data).map_err(text)?;
                if let Some(error) = chunk.error {
                    return Err(error.message);
                }
                if chunk.choices.is_empty() {
                    continue;
                }
                // servers that send no usage with each chunk send one token with each
                let so_far = chunk.usage.map_or(tokens + 1, |usage| usage.completion_tokens);
                tokens = tokens.max(so_far);
            }
            // what comes together is one event
            if tokens > reported {
                on_tokens(tokens);
                reported = tokens;
            }
        }
        Err("the stream ended too early".into())
    }
}

/// The runtime of the clients: one thread, so that they take little of a machine that they share with the server.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| BenchError::Threads(error.to_string()))
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_plain_http_without_a_path() {
        for url in ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:80/"] {
            Endpoint::new(url, None).unwrap();
        }
        let six = Endpoint::new("http://[::1]:81", None).unwrap();
        assert_eq!((six.host.as_str(), six.port), ("::1", 81));
        for url in ["", "127.0.0.1:8000", "https://a", "http://a/v1", "http://", "file:///a"] {
            let error = Endpoint::new(url, None).unwrap_err().to_string();
            assert!(error.contains("http://127.0.0.1:8000"), "{error}");
        }
    }
}
