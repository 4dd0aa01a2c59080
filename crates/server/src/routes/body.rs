//! Bodies of requests.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::error::ApiError;
use crate::routes::app::{App, SMALL};

/// A body of JSON.
pub(crate) struct JsonBody<T>(pub T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<App>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        // without this check, any web page could send requests to a server on the same machine
        if !is_json(request.headers()) {
            return Err(ApiError::content_type());
        }
        let bytes = read(request.into_body(), app.max_body);
        let bytes = tokio::time::timeout(app.body_timeout, bytes).await;
        let bytes = bytes.map_err(|_| ApiError::body_timeout())??;
        let parsed = match bytes.len() {
            0..=SMALL => parse(&bytes)?,
            large => app.work(large, move || parse(&bytes)).await?,
        };
        Ok(Self(parsed))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

async fn read(body: Body, limit: usize) -> Result<bytes::Bytes, ApiError> {
    // the length that the client announces
    if body.size_hint().lower() > limit as u64 {
        return Err(ApiError::body_too_large(limit));
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::body_too_large(limit)),
        Err(error) => Err(ApiError::body(format!("the body cannot be read: {error}"))),
    }
}

/// Parses a body. Errors of a value name its field.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // lists would be read as the fields in their order
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::body("the body is not a JSON object"));
    }
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut parser).map_err(|error| {
        let path = error.path().to_string();
        let first = error.path().iter().find_map(|segment| match segment {
            Segment::Map { key } => Some(key.clone()),
            _ => None,
        });
        let inner = error.into_inner();
        match first.filter(|_| inner.is_data()) {
            Some(field) => ApiError::field(&field, format!("{path}: {}", plain(&inner))),
            None => ApiError::body(format!("the body is not a JSON object of this route: {inner}")),
        }
    })?;
    let ended = parser.end();
    ended.map_err(|error| ApiError::body(format!("the body is not one JSON object: {error}")))?;
    Ok(parsed)
}

/// The error of a value without its position and the names of Rust's types.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text);
    let text = text.replace("type: sequence", "type: list").replace("type: map", "type: object");
    let Some((found, expected)) = text.rsplit_once("expected ") else { return text };
    let expected = match expected {
        "u32" => "a whole number from 0 to 4294967295",
        "i32" => "a whole number of 32 bits",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    format!("{found}expected {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CompletionRequest;

    fn error(body: &[u8]) -> serde_json::Value {
        let error = parse::<CompletionRequest>(body).unwrap_err();
        assert_eq!(error.status, 400);
        serde_json::to_value(error.to_body()).unwrap()["error"].take()
    }

    #[test]
    fn values_of_wrong_types_are_named() {
        for (body, param, says) in [
            ("{\"prompt\": 5}", "prompt", "expected a string"),
            ("{\"prompt\": [1, \"a\"]}", "prompt", "must be a string"),
            ("{\"prompt\": [[1], 2]}", "prompt", "must be a string"),
            ("{\"prompt\": [1, -2]}", "prompt", "expected a string, a token id"),
            ("{\"prompt\": [4294967296]}", "prompt", "4294967296"),
            ("{\"prompt\": [[4294967296]]}", "prompt", "from 0 to 4294967295"),
            ("{\"prompt\": \"a\", \"max_tokens\": -1}", "max_tokens", "from 0 to 4294967295"),
            ("{\"seed\": 0.5}", "seed", "a whole number of 64 bits"),
            ("{\"seed\": 18446744073709551616}", "seed", "a whole number of 64 bits"),
            ("{\"echo\": 1}", "echo", "true or false"),
            ("{\"stream_options\": {\"include_usage\": 3}}", "stream_options", "include_usage"),
            ("{\"logit_bias\": {\"5\": \"x\"}}", "logit_bias", "logit_bias.5"),
            ("{\"stop\": [1]}", "stop", "a list of strings"),
        ] {
            let error = error(body.as_bytes());
            assert_eq!(error["param"], param, "{body}: {error}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(says) && !message.contains("line"), "{body}: {error}");
        }
    }

    #[test]
    fn bodies_that_are_no_object_are_refused_without_a_field() {
        for body in [
            &b""[..],
            b" ",
            b"{",
            b"[]",
            b"[\"model\", \"prompt\"]",
            b"3",
            b"{} {}",
            b"{\"prompt\": \"\xff\"}",
            b"nul",
            b"{\"n\": 1, \"n\": 2}",
        ] {
            let error = error(body);
            assert!(error["param"].is_null(), "{error}");
            assert_eq!(error["code"], "invalid_json");
        }
        let nested = format!(" {{\"stop\": {}1{}}}", "[".repeat(5000), "]".repeat(5000));
        let error = error(nested.as_bytes());
        assert!(error["message"].as_str().unwrap().contains("recursion"), "{error}");
    }

    #[test]
    fn null_is_the_same_as_nothing_and_unknown_fields_are_ignored() {
        let body = b"{\"prompt\": [[1, 2]], \"stop\": null, \"n\": null, \"user\": {\"a\": [1]}}";
        let request: CompletionRequest = parse(body).unwrap();
        assert!(request.stop.is_none() && request.n.is_none() && request.prompt.is_some());
    }
}
