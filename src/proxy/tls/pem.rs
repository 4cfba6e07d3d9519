//! Certificates and keys from PEM files, with errors that name the file.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::super::Error;
use super::Files;

/// A chain, the owner's certificate first, and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// `what` names the role of the files: `certificate` and `private key`, or the same of the client.
pub(super) fn identity(what: [&'static str; 2], files: &Files) -> Result<Identity, Error> {
    let [certificate, key] = what;
    let chain = certificates(certificate, &files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| Error::Pem {
        what: key,
        path: files.key.clone(),
        source,
    })?;
    Ok((chain, key))
}

/// The authorities in a file.
pub(super) fn authorities(what: &'static str, path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, path)? {
        roots
            .add(certificate)
            .map_err(|source| Error::BadCertificate {
                what,
                path: path.to_owned(),
                source: Box::new(source),
            })?;
    }
    Ok(roots)
}

/// The certificates in a file, at least one.
pub(super) fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, Error> {
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
