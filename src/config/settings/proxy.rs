//! The proxies, and TLS on either side of them.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use super::{Balance, Endpoint};

/// A certificate chain and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the owner's certificate first.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// What it shows.
    pub files: TlsFiles,
    /// What clients have to show.
    pub clients: ClientAuth,
}

/// Whether clients show a certificate, by an authority in a PEM file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They may.
    Optional(PathBuf),
    /// They must.
    Required(PathBuf),
}

/// TLS towards upstreams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Authorities in place of the system's.
    pub ca: Option<PathBuf>,
    /// What we show where an upstream asks.
    pub identity: Option<TlsFiles>,
    /// Whether anybody is believed.
    pub insecure_skip_verify: bool,
}

/// The HTTP proxy.
#[derive(Debug, Clone)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct HttpSettings {
    pub listen: Endpoint,
    /// `http://host:port` or `https://host:port`; at least one where there is no `forward_proxy`.
    pub downstream: Vec<String>,
    pub forward_proxy: Option<ForwardProxySettings>,
    pub service: String,
    pub tls: Option<ListenerTls>,
    pub proxy_protocol: bool,
    pub upstream_tls: UpstreamTls,
    pub max_connections: usize,
    /// `None` for no limit of its own.
    pub max_upstream_connections: Option<usize>,
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    pub body_timeout: Duration,
    pub write_timeout: Duration,
    /// `None` for no limit.
    pub max_request_bytes: Option<u64>,
    pub tunnel_idle_timeout: Duration,
    pub forwarded: Forwarded,
    pub routes: Vec<RouteSettings>,
}

impl HttpSettings {
    /// Where requests go, for people.
    #[must_use]
    pub fn leads_to(&self) -> Vec<&str> {
        let open = self.forward_proxy.as_ref().map(|open| match open.ca {
            Some(_) => "any host asked for, decrypting",
            None => "any host asked for",
        });
        let downstream = self.downstream.iter().map(String::as_str);
        downstream.chain(open).collect()
    }
}

/// What is done for clients that name their target themselves.
#[derive(Debug, Clone)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct ForwardProxySettings {
    /// Lower case; empty for any.
    pub allowed_hosts: Vec<String>,
    /// From one to another, both included.
    pub allowed_ports: Vec<(u16, u16)>,
    pub credentials: Option<SecretString>,
    /// Lower case.
    pub passthrough_hosts: Vec<String>,
    pub pass_through_refused: bool,
    pub ca: Option<TlsFiles>,
    /// `None` for the host.
    pub service: Option<String>,
    pub max_hosts: usize,
    pub idle_timeout: Duration,
}

/// One of `http.routes`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct RouteSettings {
    /// Lower case; `None` for any.
    pub host: Option<String>,
    pub path: String,
    pub downstream: Vec<String>,
    pub service: String,
}

/// What the service is told of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Forwarded {
    /// Nothing.
    #[serde(rename = "none")]
    None,
    /// `X-Forwarded-For`, `-Host`, `-Proto`.
    #[serde(rename = "x-forwarded")]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    #[serde(rename = "forwarded")]
    Standard,
}

/// One TCP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct TcpSettings {
    pub listen: Endpoint,
    /// At least one.
    pub downstream: Vec<Endpoint>,
    pub balance: Balance,
    pub service: String,
    pub tls: Option<ListenerTls>,
    pub proxy_protocol: bool,
    pub upstream_tls: UpstreamTls,
    pub max_connections: usize,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
}
