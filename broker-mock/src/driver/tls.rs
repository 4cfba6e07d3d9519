//! TLS on the listener, by rustls with aws-lc-rs. The one place of this crate that knows about certificates.
//!
//! Connections from this machine may speak MQTT without it: the node that runs the broker is one of them, and its own
//! broker's certificate need not name the loopback address.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::{Error, Tls};

/// The first byte of a TLS handshake record (RFC 8446 section 5.1); no MQTT client begins with it.
const HANDSHAKE: u8 = 22;

/// Ends TLS for clients.
#[derive(Clone)]
pub(super) struct Server(TlsAcceptor);

impl Tls {
    /// Looks whether a listener could use the files.
    ///
    /// # Errors
    /// [`Error::TlsFile`] and [`Error::Tls`].
    pub fn check(&self) -> Result<(), Error> {
        Server::new(self).map(drop)
    }
}

/// A connection that can be used.
#[derive(Debug)]
pub(super) enum Opened {
    Tls(Box<TlsStream<TcpStream>>),
    /// From this machine.
    Plain(TcpStream),
}

impl Server {
    /// Reads the files.
    pub(super) fn new(files: &Tls) -> Result<Self, Error> {
        let chain = CertificateDer::pem_file_iter(&files.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| Error::TlsFile {
                what: "certificate",
                path: files.certificate.clone(),
                source,
            })?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| Error::TlsFile {
            what: "private key",
            path: files.key.clone(),
            source,
        })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::Tls)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(Error::Tls)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Waits for the first byte and does the handshake that it begins.
    pub(super) async fn open(&self, stream: TcpStream) -> io::Result<Opened> {
        if is_from_here(&stream)? && first_byte(&stream).await? != HANDSHAKE {
            return Ok(Opened::Plain(stream));
        }
        let stream = self.0.accept(stream).await?;
        Ok(Opened::Tls(Box::new(stream)))
    }
}

async fn first_byte(stream: &TcpStream) -> io::Result<u8> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0]),
    }
}

/// Whether both ends of a connection are on this machine.
fn is_from_here(stream: &TcpStream) -> io::Result<bool> {
    Ok(same_machine(
        stream.peer_addr()?.ip(),
        stream.local_addr()?.ip(),
    ))
}

fn same_machine(peer: IpAddr, local: IpAddr) -> bool {
    let (peer, local) = (peer.to_canonical(), local.to_canonical());
    peer.is_loopback() || peer == local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_do_without_tls() {
        for (peer, local, here) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("::1", "::1", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", true),
            ("10.0.0.5", "10.0.0.5", true),
            ("::ffff:10.0.0.5", "10.0.0.5", true),
            ("10.0.0.6", "10.0.0.5", false),
            ("fe80::1", "fe80::2", false),
        ] {
            let seen = same_machine(peer.parse().unwrap(), local.parse().unwrap());
            assert_eq!(seen, here, "{peer} to {local}");
        }
    }
}
