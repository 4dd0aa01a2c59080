//! Answers as server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_core::Stream;
use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::api::{Choice, Choices, Completion, Delta, Usage};
use crate::engine::Reply;
use crate::error::ApiError;
use crate::routes::completions::{Guard, Heading};

/// Bytes after which waiting events are sent on.
const CHUNK: usize = 64 << 10;
/// The end of a stream, which clients compare with this line.
const DONE: &str = "data: [DONE]\n\n";

/// Answers with events. It waits for the first reply of the engine, so that a request that fails before it has a status.
pub(crate) async fn stream(
    heading: Heading,
    choices: Choices,
    mut receiver: UnboundedReceiver<Reply>,
    guard: Guard,
) -> Result<Response, ApiError> {
    let first = receiver.recv().await;
    let mut events =
        Events { heading, choices, receiver, _guard: guard, buffer: String::new(), ended: false };
    let deltas = events.choices.begin()?;
    events.write_all(deltas);
    match first {
        Some(first) => events.take(first)?,
        // nothing was asked of the engine, or it has failed
        None => events.end(),
    }
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // nginx would collect events
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((StatusCode::OK, headers, Body::from_stream(events)).into_response())
}

/// The events of an answer. When the client has gone, they are dropped with the guard.
struct Events {
    heading: Heading,
    choices: Choices,
    receiver: UnboundedReceiver<Reply>,
    _guard: Guard,
    /// Events that are ready.
    buffer: String,
    ended: bool,
}

impl Events {
    fn take(&mut self, reply: Reply) -> Result<(), ApiError> {
        let has_scores = matches!(reply, Reply::Scores { .. });
        let take = || self.choices.take(reply);
        // a whole prompt takes longer than a token
        let deltas = if has_scores { tokio::task::block_in_place(take) } else { take() };
        self.write_all(deltas?);
        Ok(())
    }

    fn write_all(&mut self, deltas: Vec<Delta>) {
        for delta in deltas {
            let Delta { choice, text, logprobs, finish, tokens } = delta;
            let has_logprobs = logprobs.is_some();
            if text.is_empty() && finish.is_none() && !has_logprobs {
                continue;
            }
            let plan = self.choices.plan();
            let usage = match (plan.continuous_usage, plan.usage) {
                (true, _) => Some(Some(Usage::new(self.choices.prompt_tokens(choice), tokens))),
                (false, true) => Some(None),
                (false, false) => None,
            };
            let choice = Choice { text, index: choice, logprobs, finish_reason: finish };
            let completion =
                Completion { choices: vec![choice], usage, ..self.heading.completion() };
            write(&mut self.buffer, &completion);
        }
    }

    /// Writes the end of the stream.
    fn end(&mut self) {
        if self.ended {
            return;
        }
        if !self.choices.are_finished() {
            return self.fail(&ApiError::engine());
        }
        if self.choices.plan().usage {
            let usage = Some(Some(self.choices.usage()));
            write(&mut self.buffer, &Completion { usage, ..self.heading.completion() });
        }
        self.buffer += DONE;
        self.ended = true;
    }

    /// Ends the stream with an error.
    fn fail(&mut self, error: &ApiError) {
        write(&mut self.buffer, &error.to_body());
        self.buffer += DONE;
        self.ended = true;
    }
}

/// Writes an event.
fn write(buffer: &mut String, value: &impl Serialize) {
    // JSON has no line ends, and the types of this crate can all be written
    let json = serde_json::to_string(value).unwrap_or_default();
    *buffer += "data: ";
    *buffer += &json;
    *buffer += "\n\n";
}

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let events = self.get_mut();
        while !events.ended && events.buffer.len() < CHUNK {
            match events.receiver.poll_recv(context) {
                Poll::Ready(Some(reply)) => {
                    if let Err(error) = events.take(reply) {
                        events.fail(&error);
                    }
                }
                Poll::Ready(None) => events.end(),
                Poll::Pending if events.buffer.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        match events.buffer.is_empty() {
            true => Poll::Ready(None),
            false => Poll::Ready(Some(Ok(std::mem::take(&mut events.buffer).into()))),
        }
    }
}
