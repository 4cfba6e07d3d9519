//! The HTTP listener, HTTP/1.1 and HTTP/2 on one port: in front of an upstream, of whatever clients name, or of a
//! [`Responder`].
//!
//! Bodies pass frame by frame in both directions with the peers' own backpressure. A request's HTTP/1.1
//! connection upstream is driven from the task that serves the client, so an exchange wakes no second task;
//! HTTP/2 connections are shared, so those have tasks of their own on either side.

mod config;
mod routes;
mod server;
mod inspect;
mod line;
mod interim;
mod streams;
mod head;
mod body;
mod loan;
mod upstream;
mod forward;
mod exchange;
mod refusal;
mod upgrade;
mod forward_proxy;
mod stall;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;

use super::dial::{H2, HTTP1};
use super::drain::{Drain, Running};
use super::entry::{Entry, Speaks};
use super::listener::Listener;
use super::tcp::Duplex;
use super::{Error, Metrics, tls};
use crate::capture::Capture;
use crate::record::ConnectionId;
use crate::service_discovery;

pub use config::{Config, Forwarded, Host};
pub use forward_proxy::{Credentials, ForwardProxy, Refused};
pub use routes::Route;

use forward::Forwarder;
use forward_proxy::Gate;
use inspect::Copies;
use server::{Client, Server};

/// How many fields a head may have over HTTP/1.1, in both directions. hyper's own limit of 100 is too low for
/// real traffic (a response with many `Set-Cookie`); above that it takes its two tables of 32 bytes per field
/// from the heap for each head, never initialised: two allocations of 8 KB, small beside the exchange's
/// system calls.
const MAX_FIELDS: usize = 256;

/// An error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A response's content, as a [`Responder`] gives it.
pub type BoxBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;
/// What a request gets from a [`Responder`].
pub enum Answer {
    /// A response.
    Response(hyper::Response<BoxBody>),
    /// A 101, and what then has the connection. It hears when the listener drains, and is dropped when the grace period is over.
    Switch(hyper::Response<BoxBody>, Tunnel),
}

/// Takes over the connection behind a 101; what it is given beside it resolves when it should end.
pub type Tunnel = Box<dyn FnOnce(Box<dyn Duplex>, BoxFuture<()>) -> BoxFuture<()> + Send>;

/// A response in the making.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Answers requests in place of an upstream.
pub trait Responder: Send + Sync {
    /// Answers one request; the request's content comes as it flows, and the response's may too.
    fn respond(
        &self,
        request: hyper::Request<Incoming>,
        client: SocketAddr,
        connection: ConnectionId,
    ) -> BoxFuture<Answer>;
}

enum Handler {
    Forward(Arc<Forwarder>),
    Respond(Arc<dyn Responder>),
}

impl Handler {
    /// What it wants of the heads as they came.
    fn copies(&self) -> Copies {
        match self {
            Self::Forward(forwarder) if forwarder.records() => Copies::Whole,
            Self::Forward(_) | Self::Respond(_) => Copies::Empty,
        }
    }
}

/// A listener whose socket is bound and which does not accept yet.
pub struct Bound {
    listener: Listener,
    config: Config,
    entry: Entry,
    handler: Handler,
    gate: Option<Arc<Gate>>,
    metrics: Metrics,
    drain: Drain,
}

/// Binds a listener in front of the endpoints of `pool`; it may have none where it is a forward proxy.
///
/// # Errors
/// [`Error`] where the address is taken, a limit makes no sense, or a TLS file is not usable.
pub fn bind(
    config: Config,
    pool: impl Into<Option<Arc<service_discovery::Pool>>>,
    capture: Capture,
    metrics: Metrics,
) -> Result<Bound, Error> {
    config.check()?;
    let (drain, listener) = (Drain::default(), Listener::bind(config.listen)?);
    let gate = Gate::new(
        &config,
        listener.address(),
        Some(capture.clone()),
        &metrics,
        &drain,
    )?;
    let (tasks, open) = (drain.clone(), gate.clone());
    let forwarder = Forwarder::new(&config, pool.into(), open, capture, metrics.clone(), tasks)?;
    let handler = Handler::Forward(Arc::new(forwarder));
    bound(config, listener, handler, gate, metrics, drain)
}

/// Binds a listener that `responder` answers.
///
/// # Errors
/// As for [`bind`].
pub fn bind_responder(
    config: Config,
    responder: Arc<dyn Responder>,
    metrics: Metrics,
) -> Result<Bound, Error> {
    config.check()?;
    let (drain, listener) = (Drain::default(), Listener::bind(config.listen)?);
    let gate = Gate::new(&config, listener.address(), None, &metrics, &drain)?;
    let handler = Handler::Respond(responder);
    bound(config, listener, handler, gate, metrics, drain)
}

/// Looks whether [`bind`] could do with these, but for the address.
///
/// # Errors
/// The [`Error`] that it would give.
pub fn check(
    config: &Config,
    pool: impl Into<Option<Arc<service_discovery::Pool>>>,
) -> Result<(), Error> {
    config.check()?;
    let (metrics, drain) = (Metrics::default(), Drain::default());
    let capture = Capture::disabled();
    let gate = Gate::new(
        config,
        config.listen,
        Some(capture.clone()),
        &metrics,
        &drain,
    )?;
    Forwarder::new(config, pool.into(), gate, capture, metrics, drain)?;
    entry(config)?;
    Ok(())
}

/// Looks whether [`bind_responder`] could do with this, but for the address.
///
/// # Errors
/// The [`Error`] that it would give.
pub fn check_responder(config: &Config) -> Result<(), Error> {
    config.check()?;
    let (metrics, drain) = (Metrics::default(), Drain::default());
    Gate::new(config, config.listen, None, &metrics, &drain)?;
    entry(config)?;
    Ok(())
}

fn bound(
    config: Config,
    listener: Listener,
    handler: Handler,
    gate: Option<Arc<Gate>>,
    metrics: Metrics,
    drain: Drain,
) -> Result<Bound, Error> {
    Ok(Bound {
        entry: entry(&config)?,
        listener,
        config,
        handler,
        gate,
        metrics,
        drain,
    })
}

fn entry(config: &Config) -> Result<Entry, Error> {
    let tls = config.tls.as_ref().map(|files| {
        let limit = config.handshake_timeout;
        tls::Server::new(files, &config.client_auth, &[H2, HTTP1], limit)
    });
    Ok(Entry {
        tls: tls.transpose()?,
        proxy_protocol: config.proxy_protocol,
        speaks: Speaks::Http,
        header_timeout: config.handshake_timeout,
        first_byte_timeout: config.head_timeout,
    })
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound")
            .field("address", &self.listener.address())
            .field("service", &self.config.service)
            .finish_non_exhaustive()
    }
}

impl Bound {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Begins to accept.
    #[must_use]
    pub fn serve(self) -> Running {
        let Self {
            listener,
            config,
            entry,
            handler,
            gate,
            metrics,
            drain,
        } = self;
        entry.watch(&drain, &metrics);
        if let Handler::Forward(forwarder) = &handler {
            let (sweep, drain_signal) = (Arc::clone(forwarder), drain.clone());
            drain.spawn(async move {
                tokio::select! {
                    () = sweep.sweep() => {}
                    () = drain_signal.draining() => {}
                }
            });
        }
        let address = listener.address();
        let max_connections = config.max_connections;
        let server = Arc::new(Server::new(
            config,
            entry,
            handler,
            gate,
            metrics.clone(),
            drain.clone(),
        ));
        let tasks = drain.clone();
        let serve = move |accepted| tasks.spawn(Arc::clone(&server).connection(accepted));
        let accept = listener.accept_all(max_connections, drain.clone(), metrics, serve);
        Running::new(address, drain, accept)
    }
}
