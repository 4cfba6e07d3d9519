//! Sockets and clock around the core: a listener, one task per connection, one ticker.
//!
//! The core stands behind one lock that is held for a batch at a time: all packets of one read go in together,
//! and what they cause is put into the outboxes of the receivers before the lock is let go, so that order is kept.
//! Decoding, encoding and writing happen outside of it. A receiver is woken once for many messages.

mod connection;
mod hub;
mod output;
mod input;
mod tap;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use self::tls::Server;
use crate::core::{Broker, CloseReason, ConnectionId};
use crate::{Config, Error, Stats};

use connection::serve;
pub(crate) use hub::Hub;
pub(crate) use tap::{MakeTap, Plain, Step, Tap};

/// How often time-outs are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long to wait after the system refused to accept (no file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Broker {
    /// Binds the listener and starts to serve. The broker stops with [`RunningBroker::shutdown`] or when that
    /// value is dropped.
    ///
    /// # Errors
    /// The configuration is refused, or the system refuses the address.
    pub async fn bind(config: Config) -> Result<RunningBroker, Error> {
        RunningBroker::start(config, Plain).await
    }
}

/// A broker that serves.
#[derive(Debug)]
pub struct RunningBroker {
    local_addr: SocketAddr,
    hub: Arc<Hub>,
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl RunningBroker {
    pub(crate) async fn start(config: Config, taps: impl MakeTap) -> Result<Self, Error> {
        config.check()?;
        let tls = config.tls.as_ref().map(Server::new).transpose()?;
        let address = config.listen;
        let bound = |source| Error::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bound)?;
        let local_addr = listener.local_addr().map_err(bound)?;
        let hub = Arc::new(Hub::new(&config));
        let stop = CancellationToken::new();
        info!(address = %local_addr, "broker listens");
        let task = tokio::spawn(accept(listener, tls, Arc::clone(&hub), taps, stop.clone()));
        Ok(Self {
            local_addr,
            hub,
            stop: stop.drop_guard(),
            task,
        })
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// How things stand.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.hub.with(|broker, _| broker.stats())
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Stops to accept, lets connections write what they hold for `Limits::shutdown_grace`, and closes them.
    /// Sessions and retained messages are gone after it.
    pub async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            warn!(%error, "broker did not stop in order");
        }
    }
}

/// Owns every task of the broker.
async fn accept(
    listener: TcpListener,
    tls: Option<Server>,
    hub: Arc<Hub>,
    mut taps: impl MakeTap,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => hub.with(Broker::tick),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let id = ConnectionId(next);
                    next += 1;
                    debug!(connection = id.0, %peer, "accepted");
                    prepare(&stream);
                    let serving = serve(Arc::clone(&hub), id, stream, tls.clone(), taps.make(id));
                    connections.spawn(serving);
                }
                Err(error) => {
                    warn!(%error, "could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    hub.with(|broker, _| broker.close_all(&CloseReason::Shutdown));
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(hub.limits().shutdown_grace, drained).await.is_err() {
        warn!(left = connections.len(), "connections cut at shutdown");
    }
    connections.shutdown().await;
    info!("broker stopped");
}

fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "could not switch off Nagle's algorithm");
    }
}
