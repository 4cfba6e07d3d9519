//! A TCP listener in front of no service: whoever is plugged in talks to its clients.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::drain::{Drain, Running};
use super::super::entry::{Entry, Opened, Speaks};
use super::super::listener::{Accepted, Listener};
use super::super::{Error, Metrics, tls};
use super::Config;

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

/// Such a listener, bound, which does not accept yet.
pub struct Bound {
    listener: Listener,
    server: Server,
}

struct Server {
    config: Config,
    entry: Entry,
    talker: Arc<dyn Talker>,
    metrics: Metrics,
    drain: Drain,
}

/// Binds a listener whose clients `talker` talks to; what `config` says of downstreams does not matter.
///
/// # Errors
/// [`Error`] where the address is taken, a limit makes no sense, or a TLS file is not usable.
pub fn bind(config: Config, talker: Arc<dyn Talker>, metrics: Metrics) -> Result<Bound, Error> {
    config.check()?;
    let limit = config.handshake_timeout;
    let tls = config.tls.as_ref();
    let tls = tls.map(|files| tls::Server::new(files, &config.client_auth, &[], limit));
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
            config,
            talker,
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
        let Some(Opened { stream, client, .. }) = opened.await else {
            return;
        };
        tokio::select! {
            () = self.talker.talk(Box::new(stream), client) => {}
            () = self.drain.closing() => {}
        }
    }
}
