//! `GET /health`, `GET /ready`, `GET /metrics`

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorBody, json};
use crate::routes::app::App;

/// The state of the server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServerState {
    /// `ok` or `ready`.
    status: &'static str,
}

/// Answers as long as the server lives.
#[utoipa::path(
    get,
    path = "/health",
    responses((status = 200, description = "The server lives", body = ServerState))
)]
pub(crate) async fn health() -> Response {
    json(StatusCode::OK, &ServerState { status: "ok" })
}

/// Whether requests can be answered.
#[utoipa::path(
    get,
    path = "/ready",
    responses(
        (status = 200, description = "All models can be used", body = ServerState),
        (status = 503, description = "A model is being loaded, or the server ends", body = ErrorBody)
    )
)]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    app.check_ready()?;
    Ok(json(StatusCode::OK, &ServerState { status: "ready" }))
}

/// Metrics for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], app.metrics.text()).into_response()
}
