//! `POST /v1/chat/completions`

use crate::error::{ApiError, ErrorBody};

/// Chat is not offered: base models have no chat template.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    responses((status = 501, description = "Base models have no chat template", body = ErrorBody))
)]
pub(crate) async fn chat() -> ApiError {
    ApiError::chat()
}
