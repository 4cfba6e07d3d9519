//! Binding and accepting, for every kind of proxy.
//!
//! The accept loop never ends by an error: out of file descriptors it waits and tries again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::drain::Drain;
use super::{Error, Metrics};
use crate::record::ConnectionId;

const BACKLOG: i32 = 1024;
const FIRST_BACK_OFF: Duration = Duration::from_millis(5);
const MAX_BACK_OFF: Duration = Duration::from_secs(1);
/// A peer that vanished without a word is noticed after about two minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Numbers client connections over all listeners of this process.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// A new connection's number.
pub(super) fn next_connection() -> ConnectionId {
    ConnectionId(CONNECTIONS.fetch_add(1, Relaxed))
}

/// A bound socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// A client that has connected.
pub(super) struct Accepted {
    pub(super) socket: TcpStream,
    pub(super) client: SocketAddr,
    /// Its place under the limit on connections.
    pub(super) slot: OwnedSemaphorePermit,
}

impl Listener {
    pub(super) fn bind(address: SocketAddr) -> Result<Self, Error> {
        let bind = || -> io::Result<Self> {
            let socket = Socket::new(
                Domain::for_address(address),
                Type::STREAM,
                Some(Protocol::TCP),
            )?;
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            let socket = TcpListener::from_std(socket.into())?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        bind().map_err(|source| Error::Bind { address, source })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until the drain begins.
    pub(super) async fn accept_all(
        self,
        max_connections: usize,
        drain: Drain,
        metrics: Metrics,
        mut serve: impl FnMut(Accepted),
    ) {
        let slots = Arc::new(Semaphore::new(max_connections));
        let mut back_off = FIRST_BACK_OFF;
        loop {
            if slots.available_permits() == 0 {
                metrics.waited_for_slot.inc();
            }
            let slot = tokio::select! {
                slot = Arc::clone(&slots).acquire_owned() => slot,
                () = drain.draining() => return,
            };
            let Ok(slot) = slot else { return };
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = drain.draining() => return,
            };
            match accepted {
                Ok((socket, client)) => {
                    back_off = FIRST_BACK_OFF;
                    metrics.connections.inc();
                    tune(&socket);
                    serve(Accepted {
                        socket,
                        client,
                        slot,
                    });
                }
                Err(error) if concerns_one_connection(&error) => {
                    metrics.accept_errors.inc();
                }
                Err(error) => {
                    metrics.accept_errors.inc();
                    tracing::warn!(address = %self.address, %error, "accepting pauses");
                    tokio::select! {
                        () = tokio::time::sleep(back_off) => {}
                        () = drain.draining() => return,
                    }
                    back_off = (back_off * 2).min(MAX_BACK_OFF);
                }
            }
        }
    }
}

/// Sets what every proxied socket wants; a socket that refuses works all the same.
pub(super) fn tune(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE);
    let _ = SockRef::from(socket).set_tcp_keepalive(&keep_alive);
}

/// The client had gone before it was accepted (accept(2)).
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
