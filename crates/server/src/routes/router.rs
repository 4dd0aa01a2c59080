//! The router.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::{ApiError, ServeError};
use crate::routes::app::App;
use crate::routes::auth::{self, Key};
use crate::routes::openapi::{Description, Document};
use crate::routes::{chat, completions, models, openapi, page, status, tokenizer};

/// Header of a name of the answer.
const REQUEST_ID: &str = "x-request-id";

/// All routes. With a key, those that use a model need it.
///
/// # Errors
/// When an origin is none.
pub(crate) fn router(
    app: Arc<App>,
    key: Option<&str>,
    origins: &[String],
) -> Result<Router, ServeError> {
    let protected = OpenApiRouter::new()
        .routes(routes!(completions::completions))
        .routes(routes!(chat::chat))
        .routes(routes!(models::list))
        .routes(routes!(models::one))
        .routes(routes!(tokenizer::tokenize))
        .routes(routes!(tokenizer::detokenize))
        .routes(routes!(tokenizer::info));
    let protected = match key {
        Some(key) => protected.route_layer(from_fn_with_state(Key::new(key), auth::check)),
        None => protected,
    };
    let open = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(page::page))
        .routes(routes!(status::health))
        .routes(routes!(status::ready))
        .routes(routes!(status::metrics))
        .routes(routes!(openapi::openapi));
    let (router, description) = open.merge(protected).split_for_parts();
    let document = Document(Bytes::from(serde_json::to_vec(&description).unwrap_or_default()));
    let router = router
        .fallback(|uri: Uri| async move { ApiError::route(uri.path()) })
        .method_not_allowed_fallback(|| async { ApiError::method() })
        .layer(Extension(document))
        .layer(from_fn_with_state(app.clone(), count))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::internal("the server made a mistake with this request").into_response()
        }))
        .with_state(app);
    Ok(match cors(origins)? {
        Some(cors) => router.layer(cors),
        None => router,
    })
}

/// Counts an answer, and gives it a name by which a client can report it.
async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Ok(id) = HeaderValue::from_str(&format!("req-{:032x}", rand::random::<u128>())) {
        response.headers_mut().insert(HeaderName::from_static(REQUEST_ID), id);
    }
    // unknown paths are one, so that clients cannot create metrics
    let path = path.as_ref().map_or("other", MatchedPath::as_str);
    app.metrics.answers.with_label_values(&[path, response.status().as_str()]).inc();
    response
}

/// The rules for pages from other places. Without origins, there are none, so that browsers forbid everything.
fn cors(origins: &[String]) -> Result<Option<CorsLayer>, ServeError> {
    let allowed = match origins {
        [] => return Ok(None),
        [all] if all == "*" => AllowOrigin::any(),
        some => {
            let value = |origin: &String| {
                let is_origin = origin
                    .split_once("://")
                    .is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'));
                let value = HeaderValue::from_str(origin).ok().filter(|_| is_origin);
                value.ok_or_else(|| ServeError::Origin(origin.clone()))
            };
            AllowOrigin::list(some.iter().map(value).collect::<Result<Vec<_>, _>>()?)
        }
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .expose_headers([header::RETRY_AFTER, HeaderName::from_static(REQUEST_ID)]);
    Ok(Some(layer))
}
