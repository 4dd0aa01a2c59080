//! `GET /openapi.json`

use axum::extract::Extension;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

/// The description of the interface without its routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Block Transformer",
        description = "Completions and likelihoods of base language models.",
    ),
    modifiers(&Bearer),
    security((), ("key" = []))
)]
pub(crate) struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// The finished description.
#[derive(Clone)]
pub(crate) struct Document(pub Bytes);

/// This description.
#[utoipa::path(
    get,
    path = "/openapi.json",
    responses((status = 200, description = "The description of the interface", body = Object))
)]
pub(crate) async fn openapi(Extension(Document(document)): Extension<Document>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], document)
        .into_response()
}
