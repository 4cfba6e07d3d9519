//! TLS by rustls with aws-lc-rs. The one place of this crate that knows about certificates.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::TlsError;
use crate::options::TlsOptions;

use super::transport::Tcp;

impl TlsOptions {
    /// Whether the files are there and have in them what they should, as of now: each connection reads them again.
    ///
    /// ```
    /// use qproxy_mqtt::{error::TlsError, options::TlsOptions};
    ///
    /// assert!(TlsOptions::default().check().is_ok());
    /// let tls = TlsOptions {
    ///     ca: Some("Cargo.toml".into()),
    ///     ..TlsOptions::default()
    /// };
    /// assert!(matches!(tls.check(), Err(TlsError::File { .. })));
    /// ```
    ///
    /// # Errors
    /// What a connection would fail with before it says anything to the server.
    pub fn check(&self) -> Result<(), TlsError> {
        client_config(self).map(drop)
    }
}

/// Files are read at each connection, so that renewed certificates are taken up.
pub(super) async fn connect(
    options: &TlsOptions,
    host: &str,
    stream: Tcp,
) -> Result<TlsStream<Tcp>, TlsError> {
    let name = options.server_name.as_deref().unwrap_or(host);
    let server_name =
        ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))?;
    let connector = TlsConnector::from(Arc::new(client_config(options)?));
    connector
        .connect(server_name, stream)
        .await
        .map_err(|error| explain(name, error))
}

fn client_config(options: &TlsOptions) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Settings)?;
    let builder = match &options.ca {
        None => builder
            .with_platform_verifier()
            .map_err(TlsError::Settings)?,
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(TlsError::Settings)?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let mut config = match &options.client_certificate {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = certificates(chain)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| file_error(key, "a private key", &error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(TlsError::Settings)?
        }
    };
    let protocols = options.alpn.iter();
    config.alpn_protocols = protocols.map(|it| it.as_bytes().to_vec()).collect();
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| file_error(path, "certificates", &error))?
        .collect();
    let found = found.map_err(|error| file_error(path, "certificates", &error))?;
    if found.is_empty() {
        return Err(file_error(path, "certificates", &"there is none in it"));
    }
    Ok(found)
}

fn file_error(path: &Path, what: &'static str, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        what,
        reason: reason.to_string(),
    }
}

/// tokio-rustls wraps the reason into an I/O error; this takes it out again and says what to look at.
pub(super) fn explain(name: &str, error: io::Error) -> TlsError {
    let reason = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .cloned();
    let name = name.to_owned();
    match reason {
        None => TlsError::Io {
            name,
            source: Arc::new(error),
        },
        Some(source @ rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            TlsError::Alpn { name, source }
        }
        Some(source @ rustls::Error::InvalidCertificate(_)) => {
            let hint = certificate_hint(&source);
            TlsError::Certificate { name, hint, source }
        }
        Some(source) => TlsError::Handshake { name, source },
    }
}

fn certificate_hint(error: &rustls::Error) -> &'static str {
    let rustls::Error::InvalidCertificate(reason) = error else {
        return "see the cause";
    };
    match reason {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "no trusted authority has signed it; is the right `ca` set?"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name; is `server_name` needed?"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet; is the clock right?"
        }
        _ => "see the cause",
    }
}
