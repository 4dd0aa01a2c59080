//! What all handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;

use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::model::Model;

/// Bytes of a request up to which its work delays no others noticeably.
pub(crate) const SMALL: usize = 32 << 10;
/// Larger requests that are parsed or encoded at a time. They leave threads to the small ones, and their temporary memory,
/// up to a hundred times their bytes, is that of so many.
const LARGE_AT_A_TIME: usize = 2;

/// The state of the server.
pub(crate) struct App {
    /// The models; the first is the default.
    pub models: Vec<Arc<Model>>,
    pub metrics: Metrics,
    /// Whether the server ends.
    pub draining: AtomicBool,
    /// Seconds since 1970 at the start of the server.
    pub started: u64,
    pub max_body: usize,
    pub body_timeout: Duration,
    requests: AtomicU64,
    large: Semaphore,
}

impl App {
    pub(crate) fn new(
        models: Vec<Arc<Model>>,
        metrics: Metrics,
        max_body: usize,
        body_timeout: Duration,
    ) -> Self {
        Self {
            models,
            metrics,
            draining: AtomicBool::new(false),
            started: now(),
            max_body,
            body_timeout,
            requests: AtomicU64::new(0),
            large: Semaphore::new(LARGE_AT_A_TIME),
        }
    }

    /// The model called `name`, or the default.
    pub(crate) fn model(&self, name: Option<&str>) -> Result<&Arc<Model>, ApiError> {
        let found = match name.filter(|name| !name.is_empty()) {
            None => self.models.first(),
            Some(name) => self.models.iter().find(|model| model.facts.name == name),
        };
        found.ok_or_else(|| {
            let known: Vec<&str> =
                self.models.iter().map(|model| model.facts.name.as_str()).collect();
            ApiError::model(name.unwrap_or_default(), &known)
        })
    }

    /// A number for a request that no other has.
    pub(crate) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// Does the work for `bytes` bytes of a request on a thread on which it does not delay others.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        // held until the work has ended
        let _permit = match bytes {
            0..=SMALL => None,
            _ => self.large.acquire().await.ok(),
        };
        blocking(work).await
    }

    /// Whether all models can be used.
    ///
    /// # Errors
    /// Says why not.
    pub(crate) fn check_ready(&self) -> Result<(), ApiError> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(ApiError::draining());
        }
        self.models.iter().try_for_each(|model| model.check_usable())
    }
}

/// Does work on a thread on which it does not delay other requests.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ApiError::internal("the request could not be worked on")))
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
