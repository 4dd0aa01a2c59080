//! `GET /v1/models`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use crate::api::{ModelCard, ModelList};
use crate::error::{ApiError, ErrorBody, json};
use crate::routes::app::App;

/// Lists the models.
#[utoipa::path(
    get,
    path = "/v1/models",
    responses(
        (status = 200, description = "All models", body = ModelList),
        (status = 401, description = "The key is missing or wrong", body = ErrorBody)
    )
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Response {
    let data = app.models.iter().map(|model| ModelCard::new(model, app.started)).collect();
    json(StatusCode::OK, &ModelList { object: "list", data })
}

/// Describes a model.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    params(("model" = String, Path, description = "Name of the model")),
    responses(
        (status = 200, description = "The model", body = ModelCard),
        (status = 401, description = "The key is missing or wrong", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody)
    )
)]
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Response, ApiError> {
    // a name that is not UTF-8 is that of no model
    let Path(name) = name.unwrap_or_else(|_| Path("\u{FFFD}".into()));
    let model = app.model(Some(&name))?;
    Ok(json(StatusCode::OK, &ModelCard::new(model, app.started)))
}
