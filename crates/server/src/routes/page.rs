//! `GET /`

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

/// The page, which needs nothing from elsewhere.
const PAGE: &str = include_str!("../../page/index.html");

/// A page for people.
#[utoipa::path(
    get,
    path = "/",
    responses((status = 200, description = "The page", body = String, content_type = "text/html"))
)]
pub(crate) async fn page() -> Response {
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
                  connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, PAGE).into_response()
}
