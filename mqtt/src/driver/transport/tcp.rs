//! A name to a TCP connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};

use crate::error::ConnectError;

use super::Stage;

/// Bytes that the system takes from us before the network has taken them. What is on the way has no bound here.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT_BYTES: u32 = 64 << 10;

/// `name` is what errors call the other side.
pub(super) async fn connect(
    server: (&str, u16),
    name: String,
    timeout: Duration,
    stage: &mut Stage,
) -> Result<TcpStream, ConnectError> {
    let addresses = resolve(server).await?;
    *stage = match stage {
        Stage::ResolvingProxy => Stage::ConnectingToProxy,
        _ => Stage::Connecting,
    };
    reach(&addresses, name, timeout).await
}

async fn resolve(server: (&str, u16)) -> Result<Vec<SocketAddr>, ConnectError> {
    let failed = |source| ConnectError::Resolve {
        host: server.0.to_owned(),
        source,
    };
    let found = lookup_host(server).await;
    let addresses: Vec<_> = found
        .map_err(|error| failed(Some(Arc::new(error))))?
        .collect();
    if addresses.is_empty() {
        Err(failed(None))
    } else {
        Ok(addresses)
    }
}

/// Tries every address, each with its share of the time, so that a silent one does not hide the next.
async fn reach(
    addresses: &[SocketAddr],
    name: String,
    timeout: Duration,
) -> Result<TcpStream, ConnectError> {
    let share = timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = None;
    for &address in addresses {
        let source = match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it batches wait for acknowledgements; a system that cannot is no reason to give up.
                let _ = stream.set_nodelay(true);
                bound_unsent(&stream);
                return Ok(stream);
            }
            Ok(Err(error)) => error,
            Err(_) => io::Error::from(io::ErrorKind::TimedOut),
        };
        last = Some((address, source));
    }
    let (address, source) = last.expect("resolve gives at least one address");
    Err(ConnectError::Tcp {
        server: name,
        address,
        source: Arc::new(source),
    })
}

/// Otherwise the system takes megabytes ahead, behind which a ping waits, and which are out of the processor's caches by
/// the time they are sent. A system that cannot is no reason to give up.
#[cfg(any(target_os = "android", target_os = "linux"))]
fn bound_unsent(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
}

#[cfg(not(any(target_os = "android", target_os = "linux")))]
fn bound_unsent(_: &TcpStream) {}
