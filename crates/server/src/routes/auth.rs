//! The key of the interface.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::ApiError;

/// The digest of a key. Digests are compared, so that the time of a comparison does not depend on the key's length.
#[derive(Clone)]
pub(crate) struct Key(Arc<[u8]>);

impl Key {
    pub(crate) fn new(key: &str) -> Self {
        Self(digest(key.as_bytes()))
    }

    fn is(&self, given: &[u8]) -> bool {
        digest(given).ct_eq(&self.0).into()
    }
}

fn digest(key: &[u8]) -> Arc<[u8]> {
    Arc::from(Sha256::digest(key).as_slice())
}

/// Lets requests with the key pass.
pub(crate) async fn check(State(key): State<Key>, request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    let given = given.and_then(|value| {
        let (scheme, key) = value.split_at_checked(b"Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
    });
    if given.is_some_and(|given| key.is(given)) {
        next.run(request).await
    } else {
        ApiError::key().into_response()
    }
}
