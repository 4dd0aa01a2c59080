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
/// up to a few hundred times their bytes, is that of so many.
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
    large: Arc<Semaphore>,
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
            large: Arc::new(Semaphore::new(LARGE_AT_A_TIME)),
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
        let permit = match bytes {
            0..=SMALL => None,
            _ => self.large.clone().acquire_owned().await.ok(),
        };
        // the work goes on when the client has gone, and only its end makes room for another one
        blocking(move || {
            let done = work();
            drop(permit);
            done
        })
        .await
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn work_of_a_client_that_has_gone_makes_room_at_its_end() {
        let app = Arc::new(App::new(Vec::new(), Metrics::new(), 1, Duration::ZERO));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (begun, begins) = channel();
        let (end, ends) = channel();
        runtime.block_on(async {
            let own = app.clone();
            let work = move || {
                begun.send(()).unwrap();
                ends.recv().unwrap();
                Ok(())
            };
            let task = tokio::spawn(async move { own.work(SMALL + 1, work).await });
            while begins.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
            assert_eq!(app.large.available_permits(), LARGE_AT_A_TIME - 1);
            end.send(()).unwrap();
            while app.large.available_permits() < LARGE_AT_A_TIME {
                tokio::task::yield_now().await;
            }
        });
    }
}
