//! The TCP listener, in front of a service or of a [`Talker`].
//!
//! It knows no protocol: bytes in, the same bytes out, with a copy of each segment.

mod forward;
pub(super) mod pump;
mod copy;
mod splice;
mod talk;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::drain::{Drain, Running};
use super::entry::{Entry, Speaks};
use super::listener::{Accepted, Listener};
use super::{Error, Metrics, ProxyProtocol, tls};
use crate::capture::Capture;
use crate::service_discovery::Pool;

pub use talk::{Duplex, Talker};

use forward::Forwarder;

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

/// What becomes of a connection.
enum Handler {
    Forward(Forwarder),
    Talk(Arc<dyn Talker>),
}

/// A listener whose socket is bound and which does not accept yet.
pub struct Bound {
    listener: Listener,
    service: Arc<str>,
    max_connections: usize,
    server: Server,
}

/// What every connection of a listener shares.
struct Server {
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
    pool: Arc<Pool>,
    capture: Capture,
    metrics: Metrics,
) -> Result<Bound, Error> {
    config.check()?;
    let forwarder = Forwarder::new(&config, pool, capture)?;
    bound(config, Handler::Forward(forwarder), metrics)
}

/// Binds a listener whose clients `talker` talks to; what `config` says of downstreams does not matter.
///
/// # Errors
/// As for [`bind`].
pub fn bind_talker(
    config: Config,
    talker: Arc<dyn Talker>,
    metrics: Metrics,
) -> Result<Bound, Error> {
    config.check()?;
    bound(config, Handler::Talk(talker), metrics)
}

/// Looks whether [`bind`] could do with these, but for the address.
///
/// # Errors
/// The [`Error`] that it would give.
pub fn check(config: &Config, pool: Arc<Pool>) -> Result<(), Error> {
    config.check()?;
    Forwarder::new(config, pool, Capture::disabled())?;
    entry(config)?;
    Ok(())
}

/// Looks whether [`bind_talker`] could do with this, but for the address.
///
/// # Errors
/// The [`Error`] that it would give.
pub fn check_talker(config: &Config) -> Result<(), Error> {
    config.check()?;
    entry(config)?;
    Ok(())
}

fn bound(config: Config, handler: Handler, metrics: Metrics) -> Result<Bound, Error> {
    Ok(Bound {
        listener: Listener::bind(config.listen)?,
        server: Server {
            entry: entry(&config)?,
            handler,
            metrics,
            drain: Drain::default(),
        },
        service: config.service,
        max_connections: config.max_connections,
    })
}

fn entry(config: &Config) -> Result<Entry, Error> {
    let limit = config.handshake_timeout;
    let tls = config.tls.as_ref();
    let tls = tls.map(|files| tls::Server::new(files, &config.client_auth, &[], limit));
    Ok(Entry {
        tls: tls.transpose()?,
        proxy_protocol: config.proxy_protocol,
        speaks: Speaks::Anything,
        header_timeout: limit,
        first_byte_timeout: limit,
    })
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound")
            .field("address", &self.listener.address())
            .field("service", &self.service)
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
            max_connections,
            server,
            ..
        } = self;
        let address = listener.address();
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
        let Some(opened) = opened.await else {
            return;
        };
        match &self.handler {
            Handler::Forward(forwarder) => {
                forwarder.carry(opened, &self.drain, &self.metrics).await;
            }
            Handler::Talk(talker) => {
                let talk = talker.talk(Box::new(opened.stream), opened.client);
                tokio::select! {
                    () = talk => {}
                    () = self.drain.closing() => {}
                }
            }
        }
    }
}
