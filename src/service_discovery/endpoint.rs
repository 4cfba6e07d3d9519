//! Where a service listens, as a person writes it: `http://localhost:8081/base` or `localhost:8083`.
//!
//! Checked once, at the edge; what can be refused is refused with the part that is wrong. User names in an
//! address are refused, because addresses are logged and recorded.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

/// How an endpoint is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Without TLS; HTTP/1.1.
    Http,
    /// With TLS; HTTP/2 or HTTP/1.1, as the service says by ALPN (RFC 7301).
    Https,
    /// HTTP/2 without TLS, with prior knowledge (RFC 9113 section 3.3).
    H2c,
    /// HTTP/2 with TLS, and nothing else.
    H2,
}

impl Scheme {
    /// The name used in URLs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::H2 => "h2",
        }
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Https | Self::H2)
    }

    /// The port where none is written (RFC 9110 section 4.2).
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http | Self::H2c => 80,
            Self::Https | Self::H2 => 443,
        }
    }
}

/// One place where a service listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    scheme: Scheme,
    host: Arc<str>,
    port: u16,
    path: Arc<str>,
}

/// A text that names no endpoint, with the part that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Another protocol.
    #[error("`{text}`: the scheme `{scheme}` is not http, https, h2c or h2")]
    Scheme {
        /// The whole text.
        text: String,
        /// Its scheme.
        scheme: String,
    },
    /// `http://:80`, or nothing at all.
    #[error("`{0}` names no host")]
    NoHost(String),
    /// A host with a character or a length that no host has.
    #[error("`{text}`: `{host}` is no host name, IPv4 address or IPv6 address in brackets")]
    Host {
        /// The whole text.
        text: String,
        /// The part.
        host: String,
    },
    /// Without a scheme there is no default for the port.
    #[error("`{0}` has no port: write host:port, or a URL that starts with http:// or https://")]
    NoPort(String),
    /// Not 1 to 65535.
    #[error("`{text}`: the port `{port}` is not a number from 1 to 65535")]
    Port {
        /// The whole text.
        text: String,
        /// The part.
        port: String,
    },
    /// A user name would end up in logs and records.
    #[error("the endpoint has a user name or password in it: send credentials in a header instead")]
    Credentials,
    /// A query, a fragment, a space or a control character.
    #[error("`{0}` has a query, a fragment or a blank, which an endpoint cannot have")]
    Rest(String),
}

impl Endpoint {
    /// How it is spoken to.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Name or address, an IPv6 address without its brackets.
    #[must_use]
    pub const fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// The port, 1 to 65535.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What stands before every target that is sent there; empty, or `/...` without a slash at the end.
    #[must_use]
    pub const fn path_prefix(&self) -> &Arc<str> {
        &self.path
    }

    /// `host:port`, an IPv6 address in brackets: for `Host`, for connecting, and for logs.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Always with scheme and port.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}{}",
            self.scheme.as_str(),
            self.authority(),
            self.path
        )
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some((name, rest)) => (Some(scheme(name, text)?), rest),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(InvalidEndpoint::Credentials);
        }
        if rest.contains(['?', '#']) || rest.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(InvalidEndpoint::Rest(text.to_owned()));
        }
        let (host, port) = split_port(authority);
        let port = match port {
            Some(port) => number(port, text)?,
            None if host.is_empty() => return Err(InvalidEndpoint::NoHost(text.to_owned())),
            None => scheme
                .map(Scheme::default_port)
                .ok_or_else(|| InvalidEndpoint::NoPort(text.to_owned()))?,
        };
        Ok(Self {
            scheme: scheme.unwrap_or(Scheme::Http),
            host: checked_host(host, text)?.into(),
            port,
            path: path.trim_end_matches('/').into(),
        })
    }
}

fn scheme(name: &str, text: &str) -> Result<Scheme, InvalidEndpoint> {
    [Scheme::Http, Scheme::Https, Scheme::H2c, Scheme::H2]
        .into_iter()
        .find(|scheme| name.eq_ignore_ascii_case(scheme.as_str()))
        .ok_or_else(|| InvalidEndpoint::Scheme {
            text: text.to_owned(),
            scheme: name.to_owned(),
        })
}

/// Splits at the last colon outside brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn number(port: &str, text: &str) -> Result<u16, InvalidEndpoint> {
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let number = port.parse().ok().filter(|number| digits && *number != 0);
    number.ok_or_else(|| InvalidEndpoint::Port {
        text: text.to_owned(),
        port: port.to_owned(),
    })
}

fn checked_host<'a>(host: &'a str, text: &str) -> Result<&'a str, InvalidEndpoint> {
    if host.is_empty() {
        return Err(InvalidEndpoint::NoHost(text.to_owned()));
    }
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    match bracketed {
        Some(address) if address.parse::<Ipv6Addr>().is_ok() => Ok(address),
        None if host.len() <= 253 && host.bytes().all(legal) => Ok(host),
        _ => Err(InvalidEndpoint::Host {
            text: text.to_owned(),
            host: host.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, InvalidEndpoint> {
        text.parse::<Endpoint>()
            .map(|endpoint| endpoint.to_string())
    }

    #[test]
    fn reads_what_people_write_and_prints_it_whole() {
        for (text, whole) in [
            ("http://localhost:8081", "http://localhost:8081"),
            ("localhost:8083", "http://localhost:8083"),
            ("HTTPS://shop.example", "https://shop.example:443"),
            ("h2c://shop.example", "h2c://shop.example:80"),
            ("h2://shop.example", "h2://shop.example:443"),
            ("http://shop.example/", "http://shop.example:80"),
            ("http://10.0.0.1:1/base/v2/", "http://10.0.0.1:1/base/v2"),
            ("[::1]:80", "http://[::1]:80"),
            ("https://[::1]", "https://[::1]:443"),
            ("db_1:65535", "http://db_1:65535"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(whole), "{text}");
            assert_eq!(read(whole).as_deref(), Ok(whole), "{whole}");
        }
        let endpoint: Endpoint = "https://[::1]:8/a".parse().unwrap();
        assert_eq!(&**endpoint.host(), "::1");
        assert_eq!(&**endpoint.path_prefix(), "/a");
    }

    #[test]
    fn names_the_part_that_is_wrong() {
        for (text, part) in [
            ("ftp://x:1", "scheme `ftp`"),
            ("", "no host"),
            ("http://", "no host"),
            (":80", "no host"),
            ("http:///a", "no host"),
            ("localhost", "no port"),
            ("localhost:", "port ``"),
            ("localhost:0", "port `0`"),
            ("localhost:+80", "port `+80`"),
            ("localhost:70000", "port `70000`"),
            ("http://::1:80", "`::1`"),
            ("http://[::x]:80", "`[::x]`"),
            ("http://é:80", "`é`"),
            ("http://a b:80", "blank"),
            ("http://a:80/x?y", "query"),
            ("http://a:80/#y", "fragment"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn refuses_credentials_without_repeating_them() {
        let message = read("http://me:secret@host:80").unwrap_err().to_string();
        assert!(message.contains("password") && !message.contains("secret"));
    }
}
