//! Connecting to an upstream: the one way out, with or without TLS.
//!
//! Whatever has to happen between the proxy and a service belongs here, so that every kind of proxy has it.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::listener::tune;
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
pub(super) struct Dialer {
    /// TLS settings for each [`Offer`], where an endpoint wants TLS.
    tls: Option<Offers>,
}

struct Offers {
    raw: tls::Client,
    http1: tls::Client,
    http2: tls::Client,
    any: tls::Client,
}

impl Dialer {
    /// For the endpoints of `pool`.
    pub(super) fn new(pool: &Pool, trust: tls::Trust<'_>) -> Result<Self, Error> {
        let mut members = pool.members().iter();
        if !members.any(|member| member.endpoint().scheme().is_secure()) {
            return Ok(Self { tls: None });
        }
        let raw = tls::Client::new(trust)?;
        let tls = Some(Offers {
            http1: raw.offering(&[HTTP1]),
            http2: raw.offering(&[H2]),
            any: raw.offering(&[H2, HTTP1]),
            raw,
        });
        Ok(Self { tls })
    }

    /// Connects; `name` is the endpoint's in errors. The caller sets the time limit.
    pub(super) async fn dial(
        &self,
        endpoint: &Endpoint,
        name: &Arc<str>,
        offer: Offer,
    ) -> Result<(Stream, Spoken), Error> {
        let host = &**endpoint.host();
        let upstream = || Arc::clone(name);
        let socket = TcpStream::connect((host, endpoint.port())).await;
        let socket = socket.map_err(|source| Error::Connect {
            upstream: upstream(),
            source,
        })?;
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
        let stream = client.connect(host, socket).await;
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
