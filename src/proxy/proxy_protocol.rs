//! The PROXY protocol, versions 1 and 2: a load balancer says in front of the connection who the client is.
//!
//! Exactly the header is read, so that TLS or HTTP finds its own first byte. A listener that expects it takes no
//! connection without: anybody could claim to be anybody otherwise.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ppp::{v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Whether connections begin with a PROXY protocol header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They do not.
    #[default]
    Off,
    /// They do, all of them.
    Required,
}

/// What both versions are told apart by, and less than either is long.
const START: usize = 12;
const SIGNATURE: &[u8; START] = b"\r\n\r\n\0\r\nQUIT\n";
/// The rest of the fixed part of version 2.
const FIXED: usize = 4;
/// Addresses and what else a version 2 header may hold; real ones have some hundred bytes.
const MAX_V2: usize = 4096;
/// The longest line of version 1.
const MAX_V1: usize = 107;

/// Reads the header; the client's address where it tells one.
pub(super) async fn read(
    socket: &mut TcpStream,
    limit: Duration,
) -> io::Result<Option<SocketAddr>> {
    let header = tokio::time::timeout(limit, header(socket));
    header.await.unwrap_or_else(|_| {
        let message = "no PROXY protocol header came in time";
        Err(io::Error::new(io::ErrorKind::TimedOut, message))
    })
}

async fn header(socket: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; START];
    socket.read_exact(&mut header).await?;
    if header == SIGNATURE {
        header.resize(START + FIXED, 0);
        socket.read_exact(&mut header[START..]).await?;
        let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if rest > MAX_V2 {
            return Err(refused("a PROXY protocol header over 4 KiB"));
        }
        header.resize(START + FIXED + rest, 0);
        socket.read_exact(&mut header[START + FIXED..]).await?;
        return version2(&header);
    }
    if !header.starts_with(b"PROXY ") {
        return Err(refused("no PROXY protocol header"));
    }
    line(socket, &mut header).await?;
    version1(&header)
}

/// The rest of a line, and not a byte more.
async fn line(socket: &mut TcpStream, header: &mut Vec<u8>) -> io::Result<()> {
    let mut ahead = [0; MAX_V1];
    loop {
        let room = MAX_V1 - header.len();
        let seen = socket.peek(&mut ahead[..room]).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = ahead[..seen].iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(seen, |end| end + 1);
        let from = header.len();
        header.resize(from + taken, 0);
        socket.read_exact(&mut header[from..]).await?;
        if end.is_some() {
            return Ok(());
        }
        if header.len() == MAX_V1 {
            return Err(refused("a PROXY protocol line over 107 bytes"));
        }
    }
}

fn version1(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    let header = v1::Header::try_from(header).map_err(malformed)?;
    Ok(match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(it) => Some((it.source_address, it.source_port).into()),
        v1::Addresses::Tcp6(it) => Some((it.source_address, it.source_port).into()),
    })
}

fn version2(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    let header = v2::Header::try_from(header).map_err(malformed)?;
    Ok(match (header.command, header.addresses) {
        // The balancer itself, for its health checks.
        (v2::Command::Local, _) => None,
        (v2::Command::Proxy, v2::Addresses::IPv4(it)) => {
            Some((it.source_address, it.source_port).into())
        }
        (v2::Command::Proxy, v2::Addresses::IPv6(it)) => {
            Some((it.source_address, it.source_port).into())
        }
        (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
    })
}

fn refused(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn malformed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
