//! Connecting to whom a client names: not to ourselves, and to what only this machine can reach where that is
//! granted. Names are looked up first and each address is judged, so that a name cannot lead around it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;

use super::Error;

/// What may be connected to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// The listener's own address.
    pub(super) own: SocketAddr,
    pub(super) local: Local,
}

/// Whether addresses may be connected to that mean something on this machine alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Local {
    /// As any other.
    Granted,
    /// They are refused: what listens there believes that only this machine can ask.
    Refused,
}

impl Reach {
    /// Connects; `target` is the name in errors.
    pub(super) async fn connect(
        self,
        host: &str,
        port: u16,
        target: &Arc<str>,
    ) -> Result<TcpStream, Error> {
        let failed = |source| Error::Connect {
            upstream: Arc::clone(target),
            source,
        };
        let found = tokio::net::lookup_host((host, port)).await;
        let mut last = None;
        for address in found.map_err(failed)? {
            if self.local == Local::Refused && is_local(address.ip()) {
                last = Some(Error::Denied {
                    target: Arc::clone(target),
                    why: "it is an address of the proxy's own machine, which `allowed_hosts` would have to name",
                });
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(socket) if self.is_own(&socket) => {
                    let target = Arc::clone(target);
                    return Err(Error::Loop { target });
                }
                Ok(socket) => return Ok(socket),
                Err(error) => last = Some(failed(error)),
            }
        }
        Err(last.unwrap_or_else(|| failed(io::Error::other("the name has no address"))))
    }

    /// Whether a connection leads to our own listener.
    fn is_own(self, socket: &TcpStream) -> bool {
        let (Ok(peer), Ok(local)) = (socket.peer_addr(), socket.local_addr()) else {
            return false;
        };
        let (peer_ip, own_ip) = (peer.ip().to_canonical(), self.own.ip().to_canonical());
        let ours = if own_ip.is_unspecified() {
            peer_ip.is_loopback() || peer_ip == local.ip().to_canonical()
        } else {
            peer_ip == own_ip
        };
        peer.port() == self.own.port() && ours
    }
}

/// Loopback, link-local (where clouds keep their secrets), and `0.0.0.0`, which means loopback.
fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_told_from_others() {
        for (address, local) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("169.254.169.254", true),
            ("fe80::1", true),
            ("0.0.0.0", true),
            ("::", true),
            ("10.0.0.1", false),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_local(address.parse().unwrap()), local, "{address}");
        }
    }

    #[tokio::test]
    async fn neither_itself_nor_what_is_refused_is_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, other) = (own.port(), other.local_addr().unwrap().port());
        let target: Arc<str> = "x".into();
        let everywhere = SocketAddr::new([0, 0, 0, 0].into(), port);
        for own in [own, everywhere] {
            let reach = |local| Reach { own, local };
            for host in ["127.0.0.1", "localhost"] {
                let itself = reach(Local::Granted).connect(host, port, &target).await;
                assert!(matches!(itself, Err(Error::Loop { .. })), "{itself:?}");
                let good = reach(Local::Granted).connect(host, other, &target).await;
                assert!(good.is_ok(), "{good:?}");
                let refused = reach(Local::Refused).connect(host, other, &target).await;
                assert!(matches!(refused, Err(Error::Denied { .. })), "{refused:?}");
            }
        }
        let unknown = Reach {
            own,
            local: Local::Granted,
        };
        let unknown = unknown.connect("nowhere.invalid", 80, &target).await;
        assert!(matches!(unknown, Err(Error::Connect { .. })), "{unknown:?}");
    }
}
