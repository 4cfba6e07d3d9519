//! TLS towards upstreams.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::super::Error;
use super::super::stream::Stream;
use super::{Trust, Verify, pem};

/// Begins TLS with upstreams.
#[derive(Clone)]
pub(in super::super) struct Client {
    config: Arc<ClientConfig>,
    connector: TlsConnector,
}

impl Client {
    /// Trusts what the operating system trusts, only the authorities in `trust.ca`, or everybody; offers no
    /// protocol by name.
    pub(in super::super) fn new(trust: Trust<'_>) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(Error::UpstreamTls)?;
        let builder = match (trust.verify, trust.ca) {
            (Verify::Nothing, _) => {
                tracing::warn!(
                    "certificates of upstreams are NOT checked (insecure_skip_verify): \
                     anybody on the way can read and change the traffic"
                );
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            }
            (Verify::Full, None) => builder
                .with_platform_verifier()
                .map_err(Error::UpstreamTls)?,
            (Verify::Full, Some(path)) => {
                builder.with_root_certificates(pem::authorities("CA certificate", path)?)
            }
        };
        let config = match trust.identity {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let what = ["upstream client certificate", "upstream client key"];
                let (chain, key) = pem::identity(what, files)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(Error::UpstreamTls)?
            }
        };
        Ok(Self::of(config))
    }

    /// The same, but offering these protocols (RFC 7301).
    pub(in super::super) fn offering(&self, alpn: &[&[u8]]) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Self::of(config)
    }

    fn of(config: ClientConfig) -> Self {
        let config = Arc::new(config);
        let connector = TlsConnector::from(Arc::clone(&config));
        Self { config, connector }
    }

    /// The handshake with an upstream, whose certificate has to be for `host`.
    pub(in super::super) async fn connect(
        &self,
        host: &str,
        socket: TcpStream,
    ) -> io::Result<Stream> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = self.connector.connect(name, socket).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
    }
}

/// Takes any certificate; the server still has to hold its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
