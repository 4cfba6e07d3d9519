//! The TCP proxy: bytes in, the same bytes out, with a copy of each segment.
//!
//! It knows no protocol. Each side's close is passed on as it comes, so half-closed connections work.

pub(super) mod pump;
mod copy;
mod splice;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dial::{Dialer, Offer};
use super::drain::{Drain, Running};
use super::entry::{Entry, Opened, Speaks};
use super::listener::{Accepted, Listener, next_connection};
use super::stream::Stream;
use super::{Error, Metrics, ProxyProtocol, tls};
use crate::capture::{Capture, Connection};
use crate::record::{Outcome, Protocol};
use crate::service_discovery::{InUse, Pool};

/// What a listener is and how much it takes.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The service's name in records and topics.
    pub service: Arc<str>,
    /// Certificate and key, to end the clients' TLS.
    pub tls: Option<tls::Files>,
    /// Whether clients have to show a certificate.
    pub client_auth: tls::ClientAuth,
    /// Whether connections begin with a PROXY protocol header.
    pub proxy_protocol: ProxyProtocol,
    /// Authorities that downstream certificates are checked against, in place of the system's.
    pub upstream_ca: Option<PathBuf>,
    /// What we show to downstreams that ask for a certificate.
    pub upstream_identity: Option<tls::Files>,
    /// Whether downstream certificates are checked.
    pub upstream_verify: tls::Verify,
    /// How many clients may be connected; more wait.
    pub max_connections: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long connecting to a downstream may take.
    pub connect_timeout: Duration,
    /// How long a connection may be silent in both directions.
    pub idle_timeout: Duration,
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
            max_connections: 10_000,
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(3600),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |name, wanted| Err(Error::Limit { name, wanted });
        if self.max_connections == 0 || self.max_connections > 1_000_000 {
            return wrong("max_connections", "from 1 to 1000000");
        }
        for (name, time) in [
            ("handshake_timeout", self.handshake_timeout),
            ("connect_timeout", self.connect_timeout),
            ("idle_timeout", self.idle_timeout),
        ] {
            if time.is_zero() {
                return wrong(name, "over 0");
            }
        }
        Ok(())
    }
}

/// A listener whose socket is bound and which does not accept yet.
pub struct Bound {
    listener: Listener,
    server: Server,
}

struct Server {
    config: Config,
    entry: Entry,
    dialer: Dialer,
    pool: Arc<Pool>,
    capture: Capture,
    metrics: Metrics,
    drain: Drain,
}

/// Binds a listener in front of the endpoints of `pool`.
///
/// # Errors
/// [`Error`] where the address is taken, a limit makes no sense, or a TLS file is not usable.
pub fn bind(
    config: Config,
    pool: Arc<Pool>,
    capture: Capture,
    metrics: Metrics,
) -> Result<Bound, Error> {
    config.check()?;
    let limit = config.handshake_timeout;
    let tls = config.tls.as_ref();
    let tls = tls.map(|files| tls::Server::new(files, &config.client_auth, &[], limit));
    let trust = tls::Trust {
        ca: config.upstream_ca.as_ref(),
        identity: config.upstream_identity.as_ref(),
        verify: config.upstream_verify,
    };
    let dialer = Dialer::new(&pool, trust)?;
    Ok(Bound {
        listener: Listener::bind(config.listen)?,
        server: Server {
            entry: Entry {
                tls: tls.transpose()?,
                proxy_protocol: config.proxy_protocol,
                speaks: Speaks::Anything,
                header_timeout: limit,
                first_byte_timeout: limit,
            },
            dialer,
            config,
            pool,
            capture,
            metrics,
            drain: Drain::default(),
        },
    })
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound")
            .field("address", &self.listener.address())
            .field("service", &self.server.config.service)
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
        let Self { listener, server } = self;
        let address = listener.address();
        let max_connections = server.config.max_connections;
        let (drain, metrics) = (server.drain.clone(), server.metrics.clone());
        server.entry.watch(&drain, &metrics);
        let server = Arc::new(server);
        let tasks = drain.clone();
        let serve = move |accepted| tasks.spawn(Arc::clone(&server).connection(accepted));
        let accept = listener.accept_all(max_connections, drain.clone(), metrics, serve);
        Running::new(address, drain, accept)
    }
}

impl Server {
    async fn connection(self: Arc<Self>, accepted: Accepted) {
        let Accepted {
            socket,
            client,
            slot,
        } = accepted;
        let _slot = slot;
        let opened = self.entry.open(socket, client, &self.drain, &self.metrics);
        let Some(Opened {
            mut stream,
            client,
            tls,
        }) = opened.await
        else {
            return;
        };
        self.metrics.open.inc();
        self.metrics.streams.inc();
        let connection = Arc::new(Connection {
            id: next_connection(),
            service: Arc::clone(&self.config.service),
            client: client.to_string().into(),
            protocol: Protocol::Tcp,
            tls,
        });
        let tee = self.capture.begin_stream(&connection);
        let (outcome, name) = match self.connect().await {
            Ok((mut downstream, name, _in_use)) => {
                let pumped = pump::run(
                    &mut stream,
                    &mut downstream,
                    tee.as_ref(),
                    self.config.idle_timeout,
                    &self.metrics,
                );
                let outcome = tokio::select! {
                    outcome = pumped => outcome,
                    () = self.drain.closing() => {
                        Outcome::ProxyClosed("the proxy is shutting down".into())
                    }
                };
                (outcome, Some(name))
            }
            Err(error) => {
                tracing::warn!(%client, error = error.chain(), "no downstream for a client");
                (error.outcome(), None)
            }
        };
        if let Outcome::UpstreamFailed(failure, _) = &outcome {
            self.metrics.upstream_failed(*failure);
        }
        tracing::debug!(%client, outcome = outcome.as_str(), "stream ended");
        if let Some(tee) = tee {
            tee.end(outcome, name.as_ref());
        }
        self.metrics.open.dec();
    }

    /// A connection to the downstream whose turn it is, or to the next that takes one.
    async fn connect(&self) -> Result<(Stream, Arc<str>, InUse), Error> {
        let mut tries = self.pool.members().len();
        loop {
            let member = self.pool.pick(Instant::now());
            let name: Arc<str> = member.endpoint().authority().into();
            let in_use = member.in_use();
            let dialed = self.dialer.dial(member.endpoint(), &name, Offer::Raw);
            let opened = tokio::time::timeout(self.config.connect_timeout, dialed);
            let error = match opened.await {
                Ok(Ok((stream, _))) => {
                    self.pool.connected(member);
                    self.metrics.upstream_connections.inc();
                    return Ok((stream, name, in_use));
                }
                Ok(Err(error)) => error,
                Err(_) => Error::Timeout {
                    upstream: name,
                    what: "accept a connection",
                },
            };
            self.pool.failed(member, Instant::now());
            tries -= 1;
            if tries == 0 {
                return Err(error);
            }
        }
    }
}
