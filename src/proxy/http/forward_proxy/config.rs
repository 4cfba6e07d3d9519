//! What a forward proxy lets through, and what it looks into.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::super::{Error, tls};

/// What a listener does for clients that name their target themselves.
#[derive(Debug, Clone)]
pub struct ForwardProxy {
    /// Hosts that may be asked for: a host without its port, `*.` and a domain for every host under it, or `*`.
    /// Empty for all. A listener that others can reach refuses loopback and link-local addresses unless a
    /// host is named here in full.
    pub allowed_hosts: Vec<Arc<str>>,
    /// Ports that may be asked for.
    pub allowed_ports: Vec<RangeInclusive<u16>>,
    /// What clients have to show.
    pub credentials: Option<Credentials>,
    /// Hosts whose tunnels are not looked into, as in `allowed_hosts`.
    pub passthrough_hosts: Vec<Arc<str>>,
    /// Signs the certificates by which tunnels are decrypted; without one none is.
    pub authority: Option<tls::Files>,
    /// What becomes of a host whose client does not take its certificate.
    pub refused: Refused,
    /// The service's name in records and topics; `None` for the host that was asked for.
    pub service: Option<Arc<str>>,
    /// For how many hosts connections and certificates are kept.
    pub max_hosts: usize,
    /// How long a tunnel may be silent in both directions.
    pub idle_timeout: Duration,
    /// How long a client may say nothing in a new tunnel before it is asked whether the server speaks first.
    pub first_word: Duration,
}

/// What becomes of a host whose client does not take its certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Refused {
    /// It is logged, and the same the next time.
    #[default]
    Told,
    /// That client's tunnels to that host are passed through for an hour.
    PassedThrough,
}

/// A user name and a password, in the form in which clients show them. Never printed.
#[derive(Clone)]
pub struct Credentials(String);

impl Credentials {
    /// Of `user:password` (RFC 7617 section 2).
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(STANDARD.encode(text))
    }

    /// Whether a `Proxy-Authorization` shows them; the time that takes does not tell how near it comes.
    pub(super) fn fit(&self, field: &[u8]) -> bool {
        let Some((scheme, shown)) = field.split_first_chunk::<6>() else {
            return false;
        };
        let shown = shown.trim_ascii();
        let differences = shown.iter().zip(self.0.bytes());
        let differences = differences.fold(0, |all, (one, other)| all | (one ^ other));
        scheme.eq_ignore_ascii_case(b"basic ") && shown.len() == self.0.len() && differences == 0
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Default for ForwardProxy {
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            allowed_ports: vec![80..=80, 443..=443, 1024..=u16::MAX],
            credentials: None,
            passthrough_hosts: Vec::new(),
            authority: None,
            refused: Refused::default(),
            service: None,
            max_hosts: 1000,
            idle_timeout: Duration::from_secs(3600),
            first_word: Duration::from_secs(1),
        }
    }
}

impl ForwardProxy {
    pub(in super::super) fn check(&self) -> Result<(), Error> {
        let wrong = |name, wanted| Err(Error::Limit { name, wanted });
        if !(1..=100_000).contains(&self.max_hosts) {
            return wrong("forward_proxy.max_hosts", "from 1 to 100000");
        }
        if self.idle_timeout.is_zero() || self.first_word.is_zero() {
            return wrong("forward_proxy.idle_timeout", "over 0");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_fit_as_a_whole_or_not_at_all() {
        let credentials = Credentials::new("me:secret");
        let shown = STANDARD.encode("me:secret");
        for (field, fits) in [
            (format!("Basic {shown}"), true),
            (format!("bAsIc   {shown} "), true),
            (format!("Basic {}", &shown[..shown.len() - 1]), false),
            (format!("Basic {shown}x"), false),
            (format!("Bearer {shown}"), false),
            (format!("Basic {}", STANDARD.encode("me:Secret")), false),
            ("Basic".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(credentials.fit(field.as_bytes()), fits, "{field}");
        }
        assert_eq!(format!("{credentials:?}"), "***");
    }
}
