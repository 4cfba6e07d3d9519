//! Connecting to an upstream: the one way out, with or without TLS.
//!
//! Whatever has to happen between the proxy and a service belongs here, so that every kind of proxy has it.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::listener::tune;
use super::reach::Reach;
use super::stream::Stream;
use super::{Error, tls};
use crate::service_discovery::{Endpoint, Pool, Scheme};

/// ALPN's name of HTTP/2 over TLS (RFC 9113 section 3.2).
pub(super) const H2: &[u8] = b"h2";
/// ALPN's name of HTTP/1.1.
pub(super) const HTTP1: &[u8] = b"http/1.1";

/// What the proxy wants to speak on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// Bytes: no protocol is named.
    Raw,
    /// HTTP/1.1 alone, as an upgrade needs.
    Http1,
    /// HTTP/2 or HTTP/1.1, as the endpoint has it.
    Http,
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    /// HTTP/1.1, or bytes.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Dials the endpoints of one listener.
#[derive(Clone)]
pub(super) struct Dialer {
    /// TLS settings for each [`Offer`], where an endpoint wants TLS.
    tls: Option<Arc<Offers>>,
    /// What is looked at where a client and not the operator has named the endpoint.
    reach: Option<Reach>,
    /// Whom to ask for under TLS, where that is not the endpoint's host.
    server_name: Option<Arc<str>>,
}

struct Offers {
    raw: tls::Client,
    http1: tls::Client,
    http2: tls::Client,
    any: tls::Client,
}

impl Offers {
    fn new(trust: tls::Trust<'_>) -> Result<Arc<Self>, Error> {
        let raw = tls::Client::new(trust)?;
        Ok(Arc::new(Self {
            http1: raw.offering(&[HTTP1]),
            http2: raw.offering(&[H2]),
            any: raw.offering(&[H2, HTTP1]),
            raw,
        }))
    }
}

impl Dialer {
    /// For the endpoints of `pool`.
    pub(super) fn new(pool: &Pool, trust: tls::Trust<'_>) -> Result<Self, Error> {
        let mut members = pool.members().iter();
        let secure = members.any(|member| member.endpoint().scheme().is_secure());
        Ok(Self {
            tls: secure.then(|| Offers::new(trust)).transpose()?,
            reach: None,
            server_name: None,
        })
    }

    /// For whatever clients name; without TLS where `trust` is `None`.
    pub(super) fn open(trust: Option<tls::Trust<'_>>) -> Result<Self, Error> {
        Ok(Self {
            tls: trust.map(Offers::new).transpose()?,
            reach: None,
            server_name: None,
        })
    }

    /// The same, within these bounds, asking for another name under TLS where there is one.
    pub(super) fn within(&self, reach: Reach, server_name: Option<Arc<str>>) -> Self {
        Self {
            tls: self.tls.clone(),
            reach: Some(reach),
            server_name,
        }
    }

    /// Connects; `name` is the endpoint's in errors. The caller sets the time limit.
    pub(super) async fn dial(
        &self,
        endpoint: &Endpoint,
        name: &Arc<str>,
        offer: Offer,
    ) -> Result<(Stream, Spoken), Error> {
        let (host, port) = (&**endpoint.host(), endpoint.port());
        let upstream = || Arc::clone(name);
        let socket = match self.reach {
            Some(reach) => reach.connect(host, port, name).await?,
            None => TcpStream::connect((host, port))
                .await
                .map_err(|source| Error::Connect {
                    upstream: upstream(),
                    source,
                })?,
        };
        tune(&socket);
        let scheme = endpoint.scheme();
        let Some(tls) = self.tls.as_ref().filter(|_| scheme.is_secure()) else {
            let spoken = match (scheme, offer) {
                (Scheme::H2c, Offer::Http) => Spoken::Http2,
                _ => Spoken::Http1,
            };
            return Ok((Stream::Plain(socket), spoken));
        };
        let client = match (offer, scheme) {
            (Offer::Raw, _) => &tls.raw,
            (Offer::Http1, _) => &tls.http1,
            (Offer::Http, Scheme::H2) => &tls.http2,
            (Offer::Http, _) => &tls.any,
        };
        let asked_for = self.server_name.as_deref().unwrap_or(host);
        let stream = client.connect(asked_for, socket).await;
        let stream = stream.map_err(|source| Error::Handshake {
            upstream: upstream(),
            source,
        })?;
        match (stream.alpn() == Some(H2), scheme, offer) {
            (true, ..) => Ok((stream, Spoken::Http2)),
            (false, Scheme::H2, Offer::Http) => Err(Error::Handshake {
                upstream: upstream(),
                source: std::io::Error::new(
                    std::io::ErrorKind::Unsupported,
                    "it does not agree to HTTP/2 by ALPN",
                ),
            }),
            _ => Ok((stream, Spoken::Http1)),
        }
    }
}
