//! Where replayed requests may go: a target, and the list of those that the config allows.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;

use super::Error;

/// How a target is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP/1.1.
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// Bytes.
    Tcp,
    /// Bytes over TLS.
    Tls,
}

/// A service that records are sent to: scheme, host and port, e.g. `http://127.0.0.1:9000` or `tcp://127.0.0.1:6379`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Scheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// Whether requests can be sent, not only streams.
    pub(super) const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

impl Target {
    /// How it is spoken to.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Its name or address; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What a `Host` field says (RFC 9110 section 7.2): without the scheme's own port.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.scheme, self.port) {
            (Scheme::Http, 80) | (Scheme::Https, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

impl FromStr for Target {
    type Err = Error;

    /// Reads `http://host:port`, `https://host:port` or `host:port`; `tcp://host:port` and `tls://host:port` for streams.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |rule| Error::Target {
            text: text.to_owned(),
            rule,
        };
        let uri: Uri = text
            .parse()
            .map_err(|_| refuse("give it as http://host:port"))?;
        let scheme = match uri.scheme_str() {
            None | Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            Some("tcp") => Scheme::Tcp,
            Some("tls") => Scheme::Tls,
            Some(_) => return Err(refuse("only http, https, tcp and tls are spoken")),
        };
        let authority = uri.authority();
        let authority = authority.ok_or_else(|| refuse("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("it must not hold credentials"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(refuse("the path comes from the records"));
        }
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(refuse("it names no host"));
        }
        let port = match (authority.port(), scheme) {
            (Some(port), _) if port.as_u16() == 0 => return Err(refuse("port 0 is none")),
            (Some(port), _) => port.as_u16(),
            (None, _)
                if authority.as_str().ends_with(':')
                    || authority.as_str().len() > authority.host().len() =>
            {
                return Err(refuse("its port is no number from 1 to 65535"));
            }
            (None, Scheme::Http) => 80,
            (None, Scheme::Https) => 443,
            (None, Scheme::Tcp | Scheme::Tls) => return Err(refuse("it names no port")),
        };
        Ok(Self {
            scheme,
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

/// The hosts that requests may be replayed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedTargets(Vec<(String, Option<u16>)>);

impl Default for AllowedTargets {
    /// This machine only.
    fn default() -> Self {
        Self::new(&["127.0.0.1", "localhost", "::1"])
    }
}

impl AllowedTargets {
    /// Each entry is a host for any port, or `host:port`.
    #[must_use]
    pub fn new(entries: &[impl AsRef<str>]) -> Self {
        Self(
            entries
                .iter()
                .map(|entry| entry_of(entry.as_ref()))
                .collect(),
        )
    }

    /// Checks a target.
    ///
    /// # Errors
    /// [`Error::Refused`] where it is not on the list.
    pub fn check(&self, target: &Target) -> Result<(), Error> {
        let named = |(host, port): &(String, Option<u16>)| {
            *host == target.host && port.is_none_or(|port| port == target.port)
        };
        if self.0.iter().any(named) {
            return Ok(());
        }
        Err(Error::Refused {
            target: target.to_string(),
            host: target.host.clone(),
        })
    }
}

fn entry_of(entry: &str) -> (String, Option<u16>) {
    let entry = entry.trim().to_ascii_lowercase();
    let bare = |host: &str| host.trim_matches(['[', ']']).to_owned();
    if bare(&entry).parse::<IpAddr>().is_ok() {
        return (bare(&entry), None);
    }
    match entry
        .rsplit_once(':')
        .map(|(host, port)| (host, port.parse()))
    {
        Some((host, Ok(port))) => (bare(host), Some(port)),
        _ => (entry, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_targets_and_refuses_what_is_none() {
        for (text, shown) in [
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("LOCALHOST:9000", "http://localhost:9000"),
            ("https://staging.test/", "https://staging.test"),
            ("http://[::1]:81", "http://[::1]:81"),
            ("tcp://127.0.0.1:80", "tcp://127.0.0.1:80"),
            ("tls://[::1]:6380", "tls://[::1]:6380"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "/x",
            "ftp://a:1",
            "http://u:p@a:1",
            "http://a:1/base",
            "http://a:0",
            "http://a:99999",
            "http://",
            "tcp://a",
            "tls://a:0",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_listed_targets_are_allowed_and_the_refusal_names_the_key() {
        let target = |text: &str| text.parse::<Target>().unwrap();
        let local = AllowedTargets::default();
        assert!(local.check(&target("http://localhost:1")).is_ok());
        assert!(local.check(&target("http://[::1]:1")).is_ok());
        let refusal = local.check(&target("http://prod.test:1")).unwrap_err();
        assert!(refusal.to_string().contains("playback.allowed_targets"));
        assert!(
            local
                .check(&target("http://localhost.evil.test:1"))
                .is_err()
        );
        let narrow = AllowedTargets::new(&["Staging:8080", "[::2]:90"]);
        assert!(narrow.check(&target("http://staging:8080")).is_ok());
        assert!(narrow.check(&target("http://staging:8081")).is_err());
        assert!(narrow.check(&target("http://[::2]:90")).is_ok());
    }
}
