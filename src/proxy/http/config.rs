//! What a listener is and how much it takes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Error, ProxyProtocol, tls};
use super::Route;

/// What a listener is and how much it takes.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The service's name in records and topics.
    pub service: Arc<str>,
    /// Services that have requests of their own; the first that fits is taken.
    pub routes: Vec<Route>,
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
    /// What the upstream is told of the client.
    pub forwarded: Forwarded,
    /// How many clients may be connected; more wait.
    pub max_connections: usize,
    /// The largest head of a request, in bytes; a larger one is answered with 431.
    pub max_head_bytes: usize,
    /// The longest content of a request, in bytes; a longer one is answered with 413. `None` for no limit: it
    /// passes without being held.
    pub max_request_bytes: Option<u64>,
    /// How long a client may take for the head of its (next) request, idle time included.
    pub head_timeout: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long connecting to an upstream may take.
    pub connect_timeout: Duration,
    /// How long an upstream may take from the request's end to the response's head.
    pub response_timeout: Duration,
    /// How long an upstream may pause within a response's content; event streams and gRPC may for ever.
    pub body_timeout: Duration,
    /// How long a client may take nothing of a response that is there for it; a tunnel may for ever.
    pub write_timeout: Duration,
    /// How many requests a client may have open on one HTTP/2 connection (RFC 9113 section 5.1.2).
    pub max_client_streams: u32,
    /// How many requests share one HTTP/2 connection to an upstream, at most; the next one opens another.
    pub max_upstream_streams: usize,
    /// What a peer may send on one HTTP/2 stream before it was taken, in bytes (RFC 9113 section 5.2).
    pub stream_window: u32,
    /// The same for all streams of a connection together, in bytes.
    pub connection_window: u32,
    /// How long an HTTP/2 connection may be silent before it is asked with a ping whether it still lives.
    pub ping_after: Duration,
    /// How long the answer to such a ping may take.
    pub ping_timeout: Duration,
    /// How many HTTP/1.1 connections an upstream may have, idle ones and tunnels included; `None` for as many
    /// as are asked for at once.
    pub max_upstream_connections: Option<usize>,
    /// How many requests wait for one of them, each for [`Self::response_timeout`] at most; more get a 503.
    pub max_waiting: usize,
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
    /// `Forwarded` (RFC 7239).
    Standard,
}

impl Config {
    /// The defaults for a listener in front of `service`.
    #[must_use]
    pub fn new(listen: SocketAddr, service: impl Into<Arc<str>>) -> Self {
        Self {
            listen,
            service: service.into(),
            routes: Vec::new(),
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
            max_request_bytes: None,
            head_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(300),
            write_timeout: Duration::from_secs(60),
            max_client_streams: 128,
            max_upstream_streams: 100,
            stream_window: 1 << 20,
            connection_window: 4 << 20,
            ping_after: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
            max_upstream_connections: None,
            max_waiting: 10_000,
            max_idle_upstream: 256,
            idle_upstream: Duration::from_secs(55),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |name, wanted| Err(Error::Limit { name, wanted });
        if self.max_connections == 0 || self.max_connections > 1_000_000 {
            return wrong("max_connections", "from 1 to 1000000");
        }
        if !(8192..=1 << 24).contains(&self.max_head_bytes) {
            return wrong("max_head_bytes", "from 8192 to 16777216");
        }
        if self.max_upstream_connections == Some(0) {
            return wrong("max_upstream_connections", "at least 1");
        }
        if self.max_client_streams == 0 {
            return wrong("max_client_streams", "at least 1");
        }
        if self.max_upstream_streams == 0 {
            return wrong("max_upstream_streams", "at least 1");
        }
        for (name, window) in [
            ("stream_window", self.stream_window),
            ("connection_window", self.connection_window),
        ] {
            if !(65_535..=1 << 30).contains(&window) {
                return wrong(name, "from 65535 to 1073741824");
            }
        }
        for (name, time) in [
            ("head_timeout", self.head_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("connect_timeout", self.connect_timeout),
            ("response_timeout", self.response_timeout),
            ("body_timeout", self.body_timeout),
            ("write_timeout", self.write_timeout),
            ("ping_after", self.ping_after),
            ("ping_timeout", self.ping_timeout),
        ] {
            if time.is_zero() {
                return wrong(name, "over 0");
            }
        }
        Ok(())
    }
}
