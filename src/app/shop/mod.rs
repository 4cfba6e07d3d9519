//! The demo's service: a small shop with JSON, a login, images, server-sent events and a slow endpoint.
//!
//! It is there to be recorded. Two editions differ in one price, so that a replay of the one
//! against the other has something to find.

mod pages;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use pages::Content;

/// What a client may send at most.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Logins that are remembered at most; beyond it the shop forgets them all.
const MAX_LOGINS: usize = 10_000;

/// Which version of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edition {
    /// The one in production.
    Current,
    /// The next release, with a mistake in it.
    Next,
}

/// A shop that listens but does not answer yet.
#[derive(Debug)]
pub struct Shop {
    listener: TcpListener,
    state: Arc<State>,
}

#[derive(Debug)]
pub(super) struct State {
    edition: Edition,
    logins: DashMap<String, Arc<str>>,
    orders: AtomicU64,
}

impl Shop {
    /// Binds the shop.
    ///
    /// # Errors
    /// What the system says where the address cannot be had.
    pub async fn bind(address: SocketAddr, edition: Edition) -> std::io::Result<Self> {
        let state = State {
            edition,
            logins: DashMap::new(),
            orders: AtomicU64::new(1000),
        };
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            state: Arc::new(state),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says where the socket has no address.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until told to stop.
    pub async fn serve(self, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((socket, _)) = accepted else {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let (state, shutdown) = (self.state.clone(), shutdown.clone());
            connections.spawn(async move {
                let service = service_fn(|request| answer(state.clone(), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(socket), service);
                // A client that goes away is no news to a demo.
                tokio::select! { _ = connection => {}, () = shutdown.cancelled() => {} }
            });
        }
        connections.close();
        connections.wait().await;
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Content>, Infallible> {
    let (head, body) = request.into_parts();
    let limited = http_body_util::Limited::new(body, MAX_REQUEST_BYTES);
    let Ok(body) = limited.collect().await else {
        return Ok(pages::error(413, "the request's content is over 1 MiB"));
    };
    Ok(pages::route(&state, &head, &body.to_bytes()).await)
}

impl State {
    fn log_in(&self, user: &str) -> String {
        if self.logins.len() >= MAX_LOGINS {
            self.logins.clear();
        }
        let token = uuid::Uuid::new_v4().simple().to_string();
        self.logins.insert(token.clone(), user.into());
        token
    }

    fn user_of(&self, token: &str) -> Option<Arc<str>> {
        self.logins.get(token).map(|user| user.clone())
    }

    fn next_order(&self) -> u64 {
        self.orders.fetch_add(1, Ordering::Relaxed)
    }
}
