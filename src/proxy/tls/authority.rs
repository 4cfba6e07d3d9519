//! An authority of our own: what `CONNECT` is decrypted with, by certificates minted for the host asked for.
//!
//! One key serves all of them, so that a new host costs one signature. They are short-lived and stay in memory,
//! up to a number; several clients that ask for the same new host at once share one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::lru::Lru;
use super::super::{Error, Metrics};
use super::server::facts;
use super::{Files, pem};
use crate::record::TlsFacts;

/// How long a minted certificate is valid at most.
const LIFE: Duration = Duration::from_hours(7 * 24);
/// How far its begin lies back, for clients whose clocks are late.
const BACKDATED: Duration = Duration::from_hours(24);
/// A kept certificate is minted anew when it has less left than this.
const RENEW_BEFORE: Duration = Duration::from_hours(24);
/// The longest common name (RFC 5280, `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

/// What a new authority is to be.
#[derive(Debug, Clone)]
pub struct NewAuthority {
    /// Its name, as people see it in their lists of trusted authorities.
    pub name: String,
    /// How long it is valid.
    pub life: Duration,
    /// The only domains, with all hosts under them, that its certificates are good for; empty for all.
    pub only_domains: Vec<String>,
}

/// A new authority in PEM.
pub struct AuthorityPem {
    /// The certificate, for everybody.
    pub certificate: String,
    /// The key, for this node alone.
    pub key: String,
}

impl NewAuthority {
    /// Makes key and certificate.
    ///
    /// # Errors
    /// [`Error::Mint`] where a domain is no name that a certificate can have.
    pub fn create(&self) -> Result<AuthorityPem, Error> {
        let made = || -> Result<AuthorityPem, rcgen::Error> {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let mut params = CertificateParams::new(Vec::new())?;
            // It signs hosts' certificates and no other authority's.
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.distinguished_name = rcgen::DistinguishedName::new();
            params
                .distinguished_name
                .push(DnType::CommonName, self.name.as_str());
            let now = since_epoch();
            let epoch = rcgen::date_time_ymd(1970, 1, 1);
            params.not_before = epoch + now.saturating_sub(BACKDATED);
            params.not_after = epoch + now + self.life;
            if !self.only_domains.is_empty() {
                let domains = self.only_domains.iter().cloned();
                params.name_constraints = Some(NameConstraints {
                    permitted_subtrees: domains.map(GeneralSubtree::DnsName).collect(),
                    excluded_subtrees: Vec::new(),
                });
            }
            Ok(AuthorityPem {
                certificate: params.self_signed(&key)?.pem(),
                key: key.serialize_pem(),
            })
        };
        made().map_err(|source| Error::Mint {
            host: self.name.as_str().into(),
            source,
        })
    }
}

/// The certificate of an authority alone, in DER.
///
/// # Errors
/// [`Error`] where the file holds none, or one that is no authority.
pub fn authority_certificate(path: &Path) -> Result<Vec<u8>, Error> {
    let chain = pem::certificates(CERTIFICATE, path)?;
    end(&chain[0], path)?;
    Ok(chain[0].to_vec())
}

const CERTIFICATE: &str = "authority's certificate";
const KEY: &str = "authority's key";

/// An authority that was read.
struct Loaded {
    chain: Vec<CertificateDer<'static>>,
    issuer: Issuer<'static, KeyPair>,
    /// When it ends, seconds since the Unix epoch.
    ends: u64,
}

impl Loaded {
    fn read(files: &Files) -> Result<Self, Error> {
        let (chain, key) = pem::identity([CERTIFICATE, KEY], files)?;
        let ends = end(&chain[0], &files.certificate)?;
        let unusable = |path: &Path, why: &'static str| Error::Authority {
            path: path.to_owned(),
            why,
        };
        let signing = aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|_| unusable(&files.key, "its kind of key is not supported"))?;
        CertifiedKey::new(chain.clone(), signing)
            .keys_match()
            .map_err(|_| unusable(&files.key, "it is not the key of that certificate"))?;
        let key = KeyPair::try_from(&key)
            .map_err(|_| unusable(&files.key, "its kind of key is not supported"))?;
        let issuer = Issuer::from_ca_cert_der(&chain[0], key).map_err(|_| {
            unusable(
                &files.certificate,
                "its name or its key usage is not readable",
            )
        })?;
        Ok(Self {
            chain,
            issuer,
            ends,
        })
    }
}

/// When a certificate ends, seconds since the Unix epoch, where it is an authority's that is valid now.
fn end(certificate: &CertificateDer<'_>, path: &Path) -> Result<u64, Error> {
    let unusable = |why| Error::Authority {
        path: path.to_owned(),
        why,
    };
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| unusable("it is no certificate"))?;
    let signs = parsed
        .key_usage()
        .ok()
        .flatten()
        .is_none_or(|usage| usage.value.key_cert_sign());
    if !parsed.is_ca() || !signs {
        return Err(unusable(
            "it is not the certificate of an authority: make one with `qproxy ca init`",
        ));
    }
    let now = i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    if validity.not_after.timestamp() <= now {
        return Err(unusable(
            "it has expired: make a new one with `qproxy ca init`",
        ));
    }
    if validity.not_before.timestamp() > now {
        return Err(unusable("it is not valid yet"));
    }
    Ok(u64::try_from(validity.not_after.timestamp()).unwrap_or(0))
}

/// Mints certificates. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(in super::super) struct Authority(Arc<Shared>);

struct Shared {
    loaded: Loaded,
    /// The key of every minted certificate.
    key: KeyPair,
    signing: Arc<dyn rustls::sign::SigningKey>,
    /// What every host's settings have in common, tickets and sessions among them.
    base: ServerConfig,
    minted: Mutex<Lru<Arc<str>, Arc<Minted>>>,
    metrics: Metrics,
}

/// One host's settings: whoever comes first makes them, the others wait for it.
#[derive(Default)]
struct Minted(OnceLock<Result<Kept, Arc<Error>>>);

#[derive(Clone)]
struct Kept {
    config: Arc<ServerConfig>,
    /// Until when they serve, since the Unix epoch.
    renew_at: Duration,
}

impl Authority {
    /// Reads the files; `alpn` are the protocols offered (RFC 7301), and so many certificates are kept.
    pub(in super::super) fn new(
        files: &Files,
        alpn: &[&[u8]],
        most: usize,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let loaded = Loaded::read(files)?;
        let mode = std::fs::metadata(&files.key).map(|data| data.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o077 != 0) {
            tracing::warn!(
                key = %files.key.display(),
                "others can read the authority's key, and with it the traffic of everybody who trusts it: chmod 600"
            );
        }
        let mint = |source| Error::Mint {
            host: "the key of all hosts".into(),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(mint)?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = aws_lc_rs::sign::any_supported_type(&der).map_err(Error::Tls)?;
        let mut base = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(Error::Tls)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Nobody));
        base.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Self(Arc::new(Shared {
            loaded,
            key,
            signing,
            base,
            minted: Mutex::new(Lru::new(most)),
            metrics,
        })))
    }

    /// The settings with a certificate for `host`, a name or an address.
    pub(in super::super) fn settings(&self, host: &str) -> Result<Arc<ServerConfig>, Arc<Error>> {
        let host: Arc<str> = host.to_ascii_lowercase().into();
        let now = since_epoch();
        let entry = || {
            let mut minted = self.0.minted.lock();
            if let Some(known) = minted.get(&host)
                && known.is_good(now)
            {
                return Arc::clone(known);
            }
            let new = Arc::<Minted>::default();
            if minted.put(Arc::clone(&host), Arc::clone(&new)).is_some() {
                self.0.metrics.certificates_forgotten.inc();
            }
            new
        };
        let made = entry();
        let made = made
            .0
            .get_or_init(|| self.mint(&host, now).map_err(Arc::new));
        made.as_ref()
            .map(|kept| Arc::clone(&kept.config))
            .map_err(Arc::clone)
    }

    /// The handshake with a client that asked for `host`.
    pub(in super::super) async fn accept<S>(
        &self,
        host: &str,
        io: S,
        limit: Duration,
    ) -> std::io::Result<(TlsStream<S>, TlsFacts)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let settings = self.settings(host);
        let settings = settings.map_err(|error| std::io::Error::other(error.chain()))?;
        let handshake = TlsAcceptor::from(settings).accept(io);
        let stream = tokio::time::timeout(limit, handshake).await.map_err(|_| {
            std::io::Error::new(std::io::ErrorKind::TimedOut, "the handshake took too long")
        })??;
        let facts = facts(stream.get_ref().1);
        Ok((stream, facts))
    }

    fn mint(&self, host: &Arc<str>, now: Duration) -> Result<Kept, Error> {
        let shared = &*self.0;
        let ends = (now + LIFE).min(Duration::from_secs(shared.loaded.ends));
        let signed = || -> Result<CertificateDer<'static>, rcgen::Error> {
            let mut params = CertificateParams::new(Vec::new())?;
            params.subject_alt_names = vec![match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_ref().try_into()?),
            }];
            params.distinguished_name = rcgen::DistinguishedName::new();
            if host.len() <= MAX_COMMON_NAME {
                let name = &mut params.distinguished_name;
                name.push(DnType::CommonName, host.as_ref());
            }
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.use_authority_key_identifier_extension = true;
            let epoch = rcgen::date_time_ymd(1970, 1, 1);
            params.not_before = epoch + now.saturating_sub(BACKDATED);
            params.not_after = epoch + ends;
            let signed = params.signed_by(&shared.key, &shared.loaded.issuer)?;
            Ok(signed.der().clone())
        };
        let leaf = signed().map_err(|source| Error::Mint {
            host: Arc::clone(host),
            source,
        })?;
        shared.metrics.certificates_minted.inc();
        let chain = std::iter::once(leaf).chain(shared.loaded.chain.iter().cloned());
        let certified = CertifiedKey::new(chain.collect(), Arc::clone(&shared.signing));
        let mut config = shared.base.clone();
        config.cert_resolver = Arc::new(Only(Arc::new(certified)));
        Ok(Kept {
            config: Arc::new(config),
            renew_at: ends.saturating_sub(RENEW_BEFORE),
        })
    }
}

impl Minted {
    /// Whether it is in the making, or serves for a while yet.
    fn is_good(&self, now: Duration) -> bool {
        match self.0.get() {
            None => true,
            Some(Ok(kept)) => now < kept.renew_at,
            Some(Err(_)) => false,
        }
    }
}

/// Shows one certificate, whatever the client asks for: a client without a name for the host gets it, too.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Stands where each host's own resolver goes.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// Whether a handshake failed because the client does not take our certificate.
pub(in super::super) fn is_refused_by_client(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(
        cause,
        Some(rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::AccessDenied
        ))
    )
}

/// Whole seconds since the Unix epoch, which is what certificates have.
fn since_epoch() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Duration::from_secs(now.unwrap_or_default().as_secs())
}
