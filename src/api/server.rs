//! The listener: bounded connections, bounded waiting, one way to stop.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::stall::StallGuard;
use super::{Config, Parts, ServeError, router};

/// How long to wait after the system refused to accept, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Header fields of a request.
const MAX_FIELDS: usize = 100;

/// An API that serves; dropping it stops the listener and cuts off open requests.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    grace: Duration,
    closing: CancellationToken,
    abandon: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// Where it listens, with the port that the system chose where 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, ends event streams, lets open requests finish within the grace period.
    pub async fn shutdown(self) {
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(self.grace, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                open = self.tasks.len(),
                "cut off requests of the API at shutdown"
            );
            self.abandon.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.closing.cancel();
        self.abandon.cancel();
    }
}

/// Binds the address and serves until [`Running::shutdown`].
///
/// # Errors
/// [`ServeError`] where the configuration is dangerous or the address cannot be had.
pub async fn serve(config: Config, parts: Parts) -> Result<Running, ServeError> {
    config.check()?;
    let bind = |source| ServeError::Bind {
        address: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    let running = Running {
        address,
        grace: config.grace,
        closing: CancellationToken::new(),
        abandon: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let acceptor = Acceptor {
        router: router::build(&config, parts, running.closing.clone()),
        permits: Arc::new(Semaphore::new(config.max_connections)),
        closing: running.closing.clone(),
        abandon: running.abandon.clone(),
        tasks: running.tasks.clone(),
        config,
    };
    running.tasks.spawn(acceptor.run(listener));
    tracing::info!(%address, "the API listens");
    Ok(running)
}

struct Acceptor {
    config: Config,
    router: Router,
    permits: Arc<Semaphore>,
    closing: CancellationToken,
    abandon: CancellationToken,
    tasks: TaskTracker,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) {
        let closing = self.closing.clone();
        closing.run_until_cancelled(self.accept(listener)).await;
    }

    async fn accept(&self, listener: TcpListener) {
        loop {
            let permits = Arc::clone(&self.permits);
            let permit = permits.acquire_owned().await.expect("never closed");
            match listener.accept().await {
                Ok((socket, _)) => {
                    let connection = self.connection(socket);
                    self.tasks.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection to the API");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connection(&self, socket: TcpStream) -> impl Future<Output = ()> + Send + use<> {
        let guarded = StallGuard::new(socket, self.config.stall_timeout);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.head_timeout)
            .max_buf_size(self.config.max_head_bytes)
            .max_headers(MAX_FIELDS)
            .serve_connection(
                TokioIo::new(guarded),
                TowerToHyperService::new(self.router.clone()),
            );
        let (closing, abandon) = (self.closing.clone(), self.abandon.clone());
        async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = closing.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection => ended,
                        () = abandon.cancelled() => return,
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the API broke off");
            }
        }
    }
}
