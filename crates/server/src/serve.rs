//! The socket, the connections, and the life of a server.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;

use crate::config::ServerConfig;
use crate::engine::{Command, EngineEvent, Engines, ServedModel};
use crate::error::{ApiError, ServeError};
use crate::lifecycle::{Notice, Shutdown};
use crate::metrics::Metrics;
use crate::routes::{App, router};

/// Threads that answer requests. They only pass on what engines compute.
const THREADS: usize = 2;
/// Threads that encode texts.
const ENCODERS: usize = 4;
/// The largest head of a request in bytes.
const HEAD: usize = 32 << 10;
/// The time after an error of the socket, such as too many open files, in which none is accepted.
const AFTER_ERROR: Duration = Duration::from_millis(100);
/// The time in which answers with an error are sent before the process ends.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// A socket that models can be served on.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Opens the socket.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn bind(config: ServerConfig) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Bind { address: config.address, source };
        let listener = std::net::TcpListener::bind(config.address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { config, listener, address })
    }

    /// The address of the socket, with the port that the system has chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Loads models and serves them until `shutdown`. `on_notice` is told what happens.
    ///
    /// # Errors
    /// When a model cannot be loaded, or an engine fails.
    pub fn run(
        self,
        models: Vec<ServedModel>,
        shutdown: &Shutdown,
        on_notice: &mut (dyn FnMut(Notice) + Send),
    ) -> Result<(), ServeError> {
        let Self { config, listener, address } = self;
        check_names(&models)?;
        let (sender, events) = unbounded_channel();
        let mut engines = Engines::default();
        let metrics = Metrics::new();
        let start = |model| {
            let limits = (config.queue, config.queue_timeout);
            engines.start(model, limits, &metrics, sender.clone())
        };
        let models = models.into_iter().map(start).collect::<Result<Vec<_>, _>>()?;
        let app = Arc::new(App::new(models, metrics, config.max_body, config.body_timeout));
        let router = router(app.clone(), config.api_key.as_deref(), &config.cors)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(ENCODERS)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(ServeError::Start)?;
        let result = runtime.block_on(async {
            let listener = TcpListener::from_std(listener).map_err(ServeError::Start)?;
            on_notice(Notice::Listening(address));
            let life = Life { app: app.clone(), config: &config, router, events };
            life.run(listener, shutdown, on_notice).await
        });
        app.models.iter().for_each(|model| model.send(Command::Stop));
        runtime.shutdown_timeout(LAST_ANSWERS);
        result
    }
}

fn check_names(models: &[ServedModel]) -> Result<(), ServeError> {
    if models.is_empty() {
        return Err(ServeError::NoModel);
    }
    for (index, model) in models.iter().enumerate() {
        if model.name().trim().is_empty() {
            return Err(ServeError::NoName);
        }
        if models[..index].iter().any(|other| other.name() == model.name()) {
            return Err(ServeError::SameName(model.name().into()));
        }
    }
    Ok(())
}

/// A running server.
struct Life<'a> {
    app: Arc<App>,
    config: &'a ServerConfig,
    router: Router,
    events: UnboundedReceiver<EngineEvent>,
}

impl Life<'_> {
    async fn run(
        mut self,
        listener: TcpListener,
        shutdown: &Shutdown,
        on_notice: &mut (dyn FnMut(Notice) + Send),
    ) -> Result<(), ServeError> {
        let graceful = GracefulShutdown::new();
        let permits = Arc::new(Semaphore::new(self.config.max_connections));
        let mut loaded = 0;
        let result = loop {
            tokio::select! {
                () = shutdown.begun() => break Ok(()),
                event = self.events.recv() => match event {
                    Some(EngineEvent::Loaded(notice)) => {
                        on_notice(notice);
                        loaded += 1;
                        if loaded == self.app.models.len() {
                            on_notice(Notice::Ready);
                        }
                    }
                    Some(EngineEvent::Ended(Err(error))) => break Err(error),
                    // no engine ends before it is told to
                    Some(EngineEvent::Ended(Ok(()))) | None => break Ok(()),
                },
                (stream, permit) = accept(&listener, &permits) => {
                    self.serve(stream, permit, &graceful);
                }
            }
        };
        // connections that the system has accepted already would be reset
        while let Some((stream, permit)) = now(accept(&listener, &permits)).await {
            self.serve(stream, permit, &graceful);
        }
        drop(listener);
        match result {
            Ok(()) => self.drain(graceful, on_notice).await,
            Err(error) => {
                self.cancel(&ApiError::unusable());
                let _ = tokio::time::timeout(LAST_ANSWERS, graceful.shutdown()).await;
                Err(error)
            }
        }
    }

    /// Lets running requests end.
    async fn drain(
        mut self,
        graceful: GracefulShutdown,
        on_notice: &mut (dyn FnMut(Notice) + Send),
    ) -> Result<(), ServeError> {
        self.app.draining.store(true, Ordering::Relaxed);
        on_notice(Notice::Draining(self.config.drain));
        let ended = graceful.shutdown();
        tokio::pin!(ended);
        let deadline = tokio::time::sleep(self.config.drain);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                () = &mut ended => return Ok(()),
                () = &mut deadline => break,
                event = self.events.recv() => {
                    if let Some(EngineEvent::Ended(Err(error))) = event {
                        return Err(error);
                    }
                }
            }
        }
        self.cancel(&ApiError::draining());
        let _ = tokio::time::timeout(LAST_ANSWERS, ended).await;
        Ok(())
    }

    /// Answers all requests with an error.
    fn cancel(&self, error: &ApiError) {
        self.app.models.iter().for_each(|model| model.send(Command::CancelAll(error.clone())));
    }

    /// Serves a connection on a task of its own.
    fn serve(&self, stream: TcpStream, permit: OwnedSemaphorePermit, graceful: &GracefulShutdown) {
        // events are small and must not wait for more
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.config.write_timeout));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.header_timeout)
            .max_header_size(HEAD)
            .serve_connection(
                TokioIo::new(Box::pin(stream)),
                TowerToHyperService::new(self.router.clone()),
            );
        let connection = graceful.watch(connection);
        let open = self.app.metrics.connections.clone();
        open.inc();
        tokio::spawn(async move {
            // a client that goes away is no error
            let _ = connection.await;
            open.dec();
            drop(permit);
        });
    }
}

/// Accepts a connection when there is room for one.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(_) => tokio::time::sleep(AFTER_ERROR).await,
        }
    }
}

/// The result of a future that is ready.
async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        ready = future => Some(ready),
        () = std::future::ready(()) => None,
    }
}
