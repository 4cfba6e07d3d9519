//! A TCP listener in front of no service: whoever is plugged in talks to its clients.

use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection, with or without TLS.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Talks to clients in place of a service.
pub trait Talker: Send + Sync {
    /// Talks to one client until the connection ends; dropped at shutdown when the grace period is over.
    fn talk(
        &self,
        connection: Box<dyn Duplex>,
        client: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}
