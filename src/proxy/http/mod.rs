//! The HTTP/1.1 listener: in front of an upstream, or of a [`Responder`].
//!
//! Bodies pass frame by frame in both directions with the peers' own backpressure. A request's upstream
//! connection is driven from the task that serves the client, so an exchange wakes no second task.

mod head;
mod body;
mod upstream;
mod forward;
mod upgrade;
mod stall;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::OwnedSemaphorePermit;

use super::drain::{Drain, Ended, Running, Step};
use super::entry::{Entry, Opened, Speaks};
use super::listener::{Accepted, Listener, next_connection};
use super::{Error, Metrics, ProxyProtocol, tls};
use crate::capture::{Capture, Connection};
use crate::record::{ConnectionId, Protocol};
use crate::service_discovery;

use body::Reply;
use forward::Forwarder;
use stall::{Lift, StallGuard};

/// An error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A response's content, as a [`Responder`] gives it.
pub type BoxBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;
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
    ) -> BoxFuture<hyper::Response<BoxBody>>;
}

/// What a listener is and how much it takes.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The service's name in records and topics.
    pub service: Arc<str>,
    /// Certificate and key, to speak HTTPS.
    pub tls: Option<tls::Files>,
    /// Whether clients have to show a certificate.
    pub client_auth: tls::ClientAuth,
    /// Whether connections begin with a PROXY protocol header.
    pub proxy_protocol: ProxyProtocol,
    /// Authorities that upstream certificates are checked against, in place of the system's.
    pub upstream_ca: Option<PathBuf>,
    /// What we show to upstreams that ask for a certificate.
    pub upstream_identity: Option<tls::Files>,
    /// Whether upstream certificates are checked.
    pub upstream_verify: tls::Verify,
    /// Whether the upstream sees the client's `Host`.
    pub host: Host,
    /// Whether `X-Forwarded-For`, `-Host` and `-Proto` are added.
    pub forwarded: Forwarded,
    /// How many clients may be connected; more wait.
    pub max_connections: usize,
    /// The largest head of a request, in bytes; a larger one is answered with 431.
    pub max_head_bytes: usize,
    /// How long a client may take for the head of its (next) request, idle time included.
    pub head_timeout: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long connecting to an upstream may take.
    pub connect_timeout: Duration,
    /// How long an upstream may take from the request's end to the response's head.
    pub response_timeout: Duration,
    /// How long an upstream may pause within a response's content.
    pub body_timeout: Duration,
    /// How long a client may take nothing of a response that is there for it; a tunnel may for ever.
    pub write_timeout: Duration,
    /// How many idle connections are kept per upstream.
    pub max_idle_upstream: usize,
    /// How long an idle connection to an upstream is kept.
    pub idle_upstream: Duration,
}

/// What the upstream sees as `Host`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// What the client sent.
    Preserve,
    /// The upstream's own name.
    Upstream,
}

/// Whether the proxy tells the upstream about the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Nothing is added.
    Off,
    /// `X-Forwarded-For`, `X-Forwarded-Host`, `X-Forwarded-Proto`.
    On,
}

impl Config {
    /// The defaults for a listener in front of `service`.
    #[must_use]
    pub fn new(listen: SocketAddr, service: impl Into<Arc<str>>) -> Self {
        Self {
            listen,
            service: service.into(),
            tls: None,
            client_auth: tls::ClientAuth::None,
            proxy_protocol: ProxyProtocol::Off,
            upstream_ca: None,
            upstream_identity: None,
            upstream_verify: tls::Verify::Full,
            host: Host::Preserve,
            forwarded: Forwarded::Off,
            max_connections: 10_000,
            max_head_bytes: 64 << 10,
            head_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(300),
            write_timeout: Duration::from_secs(60),
            max_idle_upstream: 256,
            idle_upstream: Duration::from_secs(55),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |name, wanted| Err(Error::Limit { name, wanted });
        if self.max_connections == 0 || self.max_connections > 1_000_000 {
            return wrong("max_connections", "from 1 to 1000000");
        }
        if !(8192..=1 << 24).contains(&self.max_head_bytes) {
            return wrong("max_head_bytes", "from 8192 to 16777216");
        }
        for (name, time) in [
            ("head_timeout", self.head_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("connect_timeout", self.connect_timeout),
            ("response_timeout", self.response_timeout),
            ("body_timeout", self.body_timeout),
            ("write_timeout", self.write_timeout),
        ] {
            if time.is_zero() {
                return wrong(name, "over 0");
            }
        }
        Ok(())
    }
}

enum Handler {
    Forward(Arc<Forwarder>),
    Respond(Arc<dyn Responder>),
}

/// A listener whose socket is bound and which does not accept yet.
pub struct Bound {
    listener: Listener,
    config: Config,
    entry: Entry,
    handler: Handler,
    metrics: Metrics,
    drain: Drain,
}

/// Binds a listener in front of the endpoints of `pool`.
///
/// # Errors
/// [`Error`] where the address is taken, a limit makes no sense, or a TLS file is not usable.
pub fn bind(
    config: Config,
    pool: Arc<service_discovery::Pool>,
    capture: Capture,
    metrics: Metrics,
) -> Result<Bound, Error> {
    let drain = Drain::default();
    let forwarder = Forwarder::new(&config, pool, capture, metrics.clone(), drain.clone())?;
    bound(
        config,
        Handler::Forward(Arc::new(forwarder)),
        metrics,
        drain,
    )
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
    bound(
        config,
        Handler::Respond(responder),
        metrics,
        Drain::default(),
    )
}

fn bound(config: Config, handler: Handler, metrics: Metrics, drain: Drain) -> Result<Bound, Error> {
    config.check()?;
    let tls = config.tls.as_ref().map(|files| {
        let limit = config.handshake_timeout;
        tls::Server::new(files, &config.client_auth, &[b"http/1.1"], limit)
    });
    Ok(Bound {
        entry: Entry {
            tls: tls.transpose()?,
            proxy_protocol: config.proxy_protocol,
            speaks: Speaks::Http,
            header_timeout: config.handshake_timeout,
            first_byte_timeout: config.head_timeout,
        },
        listener: Listener::bind(config.listen)?,
        config,
        handler,
        metrics,
        drain,
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
        let server = Arc::new(Server {
            http: http_settings(&config),
            config,
            entry,
            handler,
            metrics: metrics.clone(),
            drain: drain.clone(),
        });
        let tasks = drain.clone();
        let serve = move |accepted| tasks.spawn(Arc::clone(&server).connection(accepted));
        let accept = listener.accept_all(max_connections, drain.clone(), metrics, serve);
        Running::new(address, drain, accept)
    }
}

/// How many fields a head may have, in both directions. hyper's own limit of 100 is too low for real traffic
/// (a response with many `Set-Cookie`); above that it takes its two tables of 32 bytes per field from the
/// heap for each head, never initialised: two allocations of 8 KB, small beside the exchange's system calls.
const MAX_FIELDS: usize = 256;

/// Transparent where hyper can be: header case is kept, no `Date` is added. A client that closes its side
/// in mid-exchange has gone, as for nginx and others, so that its upstream request is cancelled.
fn http_settings(config: &Config) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.preserve_header_case(true)
        .auto_date_header(false)
        .half_close(false)
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout)
        .max_headers(MAX_FIELDS)
        .max_header_size(config.max_head_bytes)
        .max_buf_size(config.max_head_bytes.max(64 << 10));
    http
}

struct Server {
    config: Config,
    http: http1::Builder,
    entry: Entry,
    handler: Handler,
    metrics: Metrics,
    drain: Drain,
}

/// A connected client, as its requests see it.
struct Client {
    address: SocketAddr,
    connection: Arc<Connection>,
    /// Its place under the limit on connections.
    slot: Arc<OwnedSemaphorePermit>,
    /// To be lifted where the connection becomes a tunnel.
    write_limit: Lift,
}

impl Server {
    async fn connection(self: Arc<Self>, accepted: Accepted) {
        let Accepted {
            socket,
            client,
            slot,
        } = accepted;
        let opened = self.entry.open(socket, client, &self.drain, &self.metrics);
        let Some(Opened {
            stream,
            client,
            tls,
        }) = opened.await
        else {
            return;
        };
        let write_limit = Lift::default();
        let stream = StallGuard::new(stream, self.config.write_timeout, write_limit.clone());
        let peer = Arc::new(Client {
            write_limit,
            address: client,
            slot: Arc::new(slot),
            connection: Arc::new(Connection {
                id: next_connection(),
                service: Arc::clone(&self.config.service),
                client: client.to_string().into(),
                protocol: Protocol::Http1,
                tls,
            }),
        });
        let server = Arc::clone(&self);
        let service =
            service_fn(move |request| serve(Arc::clone(&server), Arc::clone(&peer), request));
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection.with_upgrades());
        self.metrics.open.inc();
        let ended = self.drain.watch(|step, cx| {
            if step == Step::Drain {
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx)
        });
        if let Ended::Done(Err(error)) = ended.await {
            if error.is_parse() || error.is_timeout() || stall::stalled(&error) {
                self.metrics.client_errors.inc();
            }
            tracing::debug!(%client, %error, "client connection ended");
        }
        self.metrics.open.dec();
    }
}

async fn serve(
    server: Arc<Server>,
    peer: Arc<Client>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Reply>, Infallible> {
    Ok(match &server.handler {
        Handler::Forward(forwarder) => forwarder.forward(request, &peer).await,
        Handler::Respond(responder) => {
            let started = std::time::Instant::now();
            let connection = peer.connection.id;
            let response = responder.respond(request, peer.address, connection).await;
            server
                .metrics
                .served(response.status().as_u16(), started.elapsed());
            response.map(Reply::Boxed)
        }
    })
}
