//! TLS at the listener. Its files are looked at every few seconds, and taken anew when they have changed: a
//! renewed certificate serves the next connection, and one that is no good leaves the old one in place.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::super::stream::Stream;
use super::super::{Error, Metrics};
use super::{ClientAuth, Files, pem};
use crate::record::TlsFacts;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long a client that was refused may take to close, and what it may send meanwhile, in bytes.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: u64 = 64 << 10;

/// Ends TLS for clients. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(in super::super) struct Server(Arc<Shared>);

struct Shared {
    current: ArcSwap<ServerConfig>,
    recipe: Recipe,
    timeout: Duration,
}

/// What a configuration is made of.
struct Recipe {
    files: Files,
    client_auth: ClientAuth,
    alpn: Vec<Vec<u8>>,
}

/// How a file looked: device and inode, size, and time of change in nanoseconds. `None` where it is not there.
type Look = Option<(u64, u64, u64, i64, i64)>;

impl Server {
    /// Reads the files; `alpn` are the protocols offered (RFC 7301).
    pub(in super::super) fn new(
        files: &Files,
        client_auth: &ClientAuth,
        alpn: &[&[u8]],
        timeout: Duration,
    ) -> Result<Self, Error> {
        let recipe = Recipe {
            files: files.clone(),
            client_auth: client_auth.clone(),
            alpn: alpn.iter().map(|name| name.to_vec()).collect(),
        };
        Ok(Self(Arc::new(Shared {
            current: ArcSwap::from_pointee(recipe.build()?),
            recipe,
            timeout,
        })))
    }

    /// Takes the files anew whenever they change, for ever.
    pub(in super::super) async fn watch(self, metrics: Metrics) {
        let mut seen = self.look().await;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.look().await;
            if now == seen {
                continue;
            }
            // Looked at before it is read: what changes in between is seen the next time.
            seen = now;
            let server = self.clone();
            let built = tokio::task::spawn_blocking(move || server.0.recipe.build()).await;
            let certificate = self.0.recipe.files.certificate.display();
            match built {
                Ok(Ok(config)) => {
                    self.0.current.store(Arc::new(config));
                    metrics.tls_reloads.inc();
                    tracing::info!(%certificate, "certificate taken anew");
                }
                Ok(Err(error)) => {
                    metrics.tls_reload_errors.inc();
                    let error = error.chain();
                    tracing::warn!(%certificate, error, "a changed certificate is not usable, the old one stays");
                }
                Err(error) => tracing::warn!(%error, "reading certificates was interrupted"),
            }
        }
    }

    async fn look(&self) -> Vec<Look> {
        let shared = Arc::clone(&self.0);
        let look = move || shared.recipe.paths().map(look).collect();
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    /// The handshake with a client.
    pub(in super::super) async fn accept(
        &self,
        socket: TcpStream,
    ) -> io::Result<(Stream, TlsFacts)> {
        let acceptor = TlsAcceptor::from(self.0.current.load_full());
        let handshake = acceptor.accept(socket).into_fallible();
        let handshake = tokio::time::timeout(self.0.timeout, handshake);
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, socket))) => {
                let _ = tokio::time::timeout(FAREWELL, farewell(socket)).await;
                return Err(error);
            }
            Err(_) => {
                let error = io::ErrorKind::TimedOut;
                return Err(io::Error::new(error, "the handshake took too long"));
            }
        };
        let facts = facts(stream.get_ref().1);
        Ok((Stream::Tls(Box::new(TlsStream::Server(stream))), facts))
    }
}

/// A client that was told in an alert why it is refused may have sent its first request meanwhile: closing with
/// that unread would reset the connection, and the alert with it.
async fn farewell(mut socket: TcpStream) -> io::Result<()> {
    socket.shutdown().await?;
    let mut rest = socket.take(FAREWELL_BYTES);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

impl Recipe {
    fn build(&self) -> Result<ServerConfig, Error> {
        let (chain, key) = pem::identity(["certificate", "private key"], &self.files)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(Error::Tls)?;
        let builder = match self.client_auth.authorities() {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = pem::authorities("client CA certificate", path)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                let verifier = match self.client_auth {
                    ClientAuth::Optional(_) => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                builder.with_client_cert_verifier(verifier.build().map_err(Error::ClientAuth)?)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(Error::Tls)?;
        config.alpn_protocols.clone_from(&self.alpn);
        Ok(config)
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let own = [&self.files.certificate, &self.files.key];
        own.into_iter()
            .chain(self.client_auth.authorities())
            .map(|path| path.as_path())
    }
}

fn look(path: &Path) -> Look {
    let data = fs::metadata(path).ok()?;
    let (device, inode) = (data.dev(), data.ino());
    Some((device, inode, data.len(), data.mtime(), data.mtime_nsec()))
}

pub(super) fn facts(connection: &ServerConnection) -> TlsFacts {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "unknown",
    };
    let cipher = connection
        .negotiated_cipher_suite()
        .and_then(|suite| suite.suite().as_str())
        .unwrap_or("unknown");
    let text = |bytes: &[u8]| Arc::from(String::from_utf8_lossy(bytes));
    TlsFacts {
        version: version.into(),
        // rustls writes TLS 1.3 suites as TLS13_..., IANA as TLS_....
        cipher: cipher.replacen("TLS13_", "TLS_", 1).into(),
        server_name: connection.server_name().map(Arc::from),
        alpn: connection.alpn_protocol().map(text),
    }
}
