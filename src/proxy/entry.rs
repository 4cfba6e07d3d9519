//! From an accepted socket to a connection that a protocol can be served on: PROXY protocol, then TLS.
//!
//! A client that takes a TLS port for a plain one, or the other way round, is told so in its own language.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::drain::Drain;
use super::proxy_protocol::{self, ProxyProtocol};
use super::stream::Stream;
use super::{Metrics, tls};
use crate::record::TlsFacts;

/// The first byte of a TLS record that begins a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// A fatal alert, "unexpected message" (RFC 8446 section 6).
const TLS_ALERT: [u8; 7] = [21, 3, 1, 0, 2, 2, 10];
/// What a browser shows of a plain request to a port that speaks HTTPS.
const SPEAK_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 54\r\n\
Connection: close\r\n\r\nThis port speaks HTTPS, and the request came without.\n";

/// How connections begin.
pub(super) struct Entry {
    pub(super) tls: Option<tls::Server>,
    pub(super) proxy_protocol: ProxyProtocol,
    pub(super) speaks: Speaks,
    /// How long the PROXY protocol header may take.
    pub(super) header_timeout: Duration,
    /// How long the first byte may take, where it is looked at.
    pub(super) first_byte_timeout: Duration,
}

/// Who speaks first, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// The client, HTTP.
    Http,
    /// Either side, anything: without TLS there may be no first byte to look at.
    Anything,
}

/// A connection to be served.
pub(super) struct Opened {
    pub(super) stream: Stream,
    /// The client, as the PROXY protocol told it where that is on.
    pub(super) client: SocketAddr,
    pub(super) tls: Option<TlsFacts>,
}

impl Entry {
    /// Keeps an eye on the certificate's files, until the drain begins.
    pub(super) fn watch(&self, drain: &Drain, metrics: &Metrics) {
        if let Some(server) = self.tls.clone() {
            let (metrics, draining) = (metrics.clone(), drain.clone());
            drain.spawn(async move {
                tokio::select! {
                    () = server.watch(metrics) => {}
                    () = draining.draining() => {}
                }
            });
        }
    }

    /// The connection ready for use; `None` where it is not, or where the drain begins before its first byte.
    pub(super) async fn open(
        &self,
        mut socket: TcpStream,
        client: SocketAddr,
        drain: &Drain,
        metrics: &Metrics,
    ) -> Option<Opened> {
        let mut told = None;
        if self.proxy_protocol == ProxyProtocol::Required {
            match proxy_protocol::read(&mut socket, self.header_timeout).await {
                Ok(address) => told = address,
                Err(error) => {
                    metrics.proxy_protocol_errors.inc();
                    tracing::info!(%client, %error, "PROXY protocol failed");
                    return None;
                }
            }
        }
        let client = told.unwrap_or(client);
        if self.tls.is_some() || self.speaks == Speaks::Http {
            let first = first_byte(&socket, self.first_byte_timeout);
            let first = tokio::select! {
                first = first => first?,
                () = drain.draining() => return None,
            };
            if (first == TLS_HANDSHAKE) != self.tls.is_some() {
                metrics.handshake_errors.inc();
                self.turn_away(socket, client, first).await;
                return None;
            }
        }
        let Some(server) = &self.tls else {
            let stream = Stream::Plain(socket);
            let tls = None;
            return Some(Opened {
                stream,
                client,
                tls,
            });
        };
        match server.accept(socket).await {
            Ok((stream, facts)) => Some(Opened {
                stream,
                client,
                tls: Some(facts),
            }),
            Err(error) => {
                metrics.handshake_errors.inc();
                tracing::info!(%client, %error, "TLS handshake with a client failed");
                None
            }
        }
    }

    async fn turn_away(&self, mut socket: TcpStream, client: SocketAddr, first: u8) {
        let answer = if self.tls.is_none() {
            tracing::info!(%client, "a client speaks TLS to a port without");
            &TLS_ALERT[..]
        } else if self.speaks == Speaks::Http && first.is_ascii_uppercase() {
            tracing::info!(%client, "a client speaks plain HTTP to a port with TLS");
            SPEAK_TLS
        } else {
            tracing::info!(%client, "a client does not speak TLS to a port with TLS");
            &TLS_ALERT[..]
        };
        let farewell = farewell(&mut socket, answer);
        // It fits a socket's buffer, so that this takes as long as the client needs to close.
        if let Ok(Err(error)) = tokio::time::timeout(self.header_timeout, farewell).await {
            tracing::debug!(%client, %error, "a client that was turned away did not listen");
        }
    }
}

/// Closing with bytes unread would reset the connection, and the answer with it (RFC 9112 section 9.6).
async fn farewell(socket: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    /// What a client may send before it has read the answer.
    const PATIENCE: u64 = 64 << 10;
    socket.write_all(answer).await?;
    socket.shutdown().await?;
    let mut rest = tokio::io::AsyncReadExt::take(socket, PATIENCE);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

/// The first byte, left where it is; `None` where the client has gone or says nothing.
async fn first_byte(socket: &TcpStream, limit: Duration) -> Option<u8> {
    let mut first = [0];
    match tokio::time::timeout(limit, socket.peek(&mut first)).await {
        Ok(Ok(1)) => Some(first[0]),
        _ => None,
    }
}
