//! TLS at the listener and towards upstreams: the one door to rustls for the proxies.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::stream::Stream;
use super::{Error, Metrics};
use crate::record::TlsFacts;

/// The files that a TLS listener needs, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate chain, the server's own first (`tls_cert`).
    pub certificate: PathBuf,
    /// Its private key (`tls_key`).
    pub key: PathBuf,
}

/// Ends TLS for clients.
#[derive(Clone)]
pub(super) struct Server {
    acceptor: TlsAcceptor,
    timeout: Duration,
}

/// Begins TLS with upstreams.
#[derive(Clone)]
pub(super) struct Client {
    config: Arc<ClientConfig>,
    connector: TlsConnector,
}

impl Server {
    /// Reads the files; `alpn` are the protocols offered (RFC 7301).
    pub(super) fn new(files: &Files, alpn: &[&[u8]], timeout: Duration) -> Result<Self, Error> {
        let chain = certificates("certificate", &files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| Error::Pem {
            what: "private key",
            path: files.key.clone(),
            source,
        })?;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(Error::Tls)?
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .map_err(Error::Tls)?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            timeout,
        })
    }

    async fn accept(&self, socket: TcpStream) -> std::io::Result<(Stream, TlsFacts)> {
        let handshake = tokio::time::timeout(self.timeout, self.acceptor.accept(socket));
        let stream = handshake.await.map_err(|_| {
            std::io::Error::new(std::io::ErrorKind::TimedOut, "the handshake took too long")
        })??;
        let facts = facts(stream.get_ref().1);
        Ok((Stream::Tls(Box::new(TlsStream::Server(stream))), facts))
    }
}

/// The client's connection ready for use, TLS ended where the listener does so; `None` where that failed.
pub(super) async fn accept(
    server: Option<&Server>,
    socket: TcpStream,
    client: SocketAddr,
    metrics: &Metrics,
) -> Option<(Stream, Option<TlsFacts>)> {
    let Some(server) = server else {
        return Some((Stream::Plain(socket), None));
    };
    match server.accept(socket).await {
        Ok((stream, facts)) => Some((stream, Some(facts))),
        Err(error) => {
            metrics.handshake_errors.inc();
            tracing::info!(%client, %error, "TLS handshake with a client failed");
            None
        }
    }
}

impl Client {
    /// Trusts what the operating system trusts, or only the authorities in `ca`; offers no protocol by name.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(Error::UpstreamTls)?;
        let builder = match ca {
            None => builder
                .with_platform_verifier()
                .map_err(Error::UpstreamTls)?,
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates("CA certificate", path)? {
                    roots.add(certificate).map_err(Error::UpstreamTls)?;
                }
                builder.with_root_certificates(roots)
            }
        };
        Ok(Self::of(builder.with_no_client_auth()))
    }

    /// The same, but offering these protocols (RFC 7301).
    pub(super) fn offering(&self, alpn: &[&[u8]]) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Self::of(config)
    }

    fn of(config: ClientConfig) -> Self {
        let config = Arc::new(config);
        let connector = TlsConnector::from(Arc::clone(&config));
        Self { config, connector }
    }

    pub(super) async fn connect(&self, host: &str, socket: TcpStream) -> std::io::Result<Stream> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
        let stream = self.connector.connect(name, socket).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unreadable = |source| Error::Pem {
        what,
        path: path.to_owned(),
        source,
    };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable)?;
    if chain.is_empty() {
        let path = path.to_owned();
        return Err(Error::EmptyPem { what, path });
    }
    Ok(chain)
}

fn facts(connection: &ServerConnection) -> TlsFacts {
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
