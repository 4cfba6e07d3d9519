//! Certificates for servers and clients of one test, as PEM files.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Whether clients need a certificate of the same authority.
    pub require_client: bool,
}

/// An authority, a server certificate for `localhost` and a client certificate, as PEM files.
pub fn make(directory: &Path, authority_name: &str) -> TlsFiles {
    let file = |name: &str| directory.join(name);
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, authority_name);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    std::fs::write(file("ca.pem"), authority.pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for name in ["server", "client"] {
        let names = vec!["localhost".to_string()];
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let signed = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(file(&format!("{name}.pem")), signed.pem()).unwrap();
        std::fs::write(file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    TlsFiles {
        ca: file("ca.pem"),
        certificate: file("server.pem"),
        key: file("server.key"),
        require_client: false,
    }
}
