//! A proxy between the client and the server, as settings: which protocol it speaks, where it is, who we are to it.

use std::fmt;
use std::str::FromStr;

use super::TransportError;

/// The longest user name, and the longest password, that SOCKS5 can carry, in bytes (RFC 1929).
const MAX_CREDENTIAL_BYTES: usize = 255;

/// What a proxy speaks.
///
/// ```
/// use qproxy_mqtt::transport::{Proxy, ProxyKind};
///
/// let proxy: Proxy = "socks5://proxy.example:1080".parse()?;
/// assert_eq!(proxy.kind(), ProxyKind::Socks5);
/// # Ok::<(), qproxy_mqtt::transport::TransportError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP/1.1 with the method CONNECT (RFC 9110, 9.3.6).
    Http,
    /// SOCKS version 5 (RFC 1928).
    Socks5,
}

impl ProxyKind {
    fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Socks5 => "socks5",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 8080,
            Self::Socks5 => 1080,
        }
    }
}

/// A proxy. It resolves the server's name, so that names which only exist behind it can be used.
///
/// Parsed from `http://host:port` or `socks5://user:password@host:port`; in user and password `%` escapes stand for
/// the characters that a URL cannot have there. `Display` writes the same without the credentials.
///
/// ```
/// use qproxy_mqtt::transport::{Proxy, ProxyKind};
///
/// let proxy = Proxy::new(ProxyKind::Http, "proxy.example", 3128)?.with_credentials("me", "secret")?;
/// assert_eq!(proxy.to_string(), "http://proxy.example:3128");
/// let parsed: Proxy = "http://me:secret@proxy.example:3128".parse()?;
/// assert_eq!(parsed, proxy);
/// assert_eq!(parsed.kind(), ProxyKind::Http);
/// # Ok::<(), qproxy_mqtt::transport::TransportError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: ProxyKind,
    host: String,
    port: u16,
    credentials: Option<Credentials>,
}

/// Who we are to the proxy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Proxy {
    /// A proxy that asks for no credentials.
    ///
    /// # Errors
    /// The host is empty, or holds white space or control characters.
    pub fn new(
        kind: ProxyKind,
        host: impl Into<String>,
        port: u16,
    ) -> Result<Self, TransportError> {
        let host = host.into();
        if host.is_empty() {
            return Err(TransportError::Proxy("the host is missing"));
        }
        if !host.chars().all(|c| !c.is_whitespace() && !c.is_control()) {
            return Err(TransportError::Proxy(
                "the host holds characters that no name has",
            ));
        }
        if port == 0 {
            return Err(TransportError::Proxy("the port is 0"));
        }
        Ok(Self {
            kind,
            host,
            port,
            credentials: None,
        })
    }

    /// With user and password: as Basic (RFC 7617) to an HTTP proxy, as RFC 1929 has it to a SOCKS5 one.
    ///
    /// # Errors
    /// One of them is empty or over 255 bytes (SOCKS5), or the user holds a colon (HTTP), or a control character.
    pub fn with_credentials(
        self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Result<Self, TransportError> {
        let (user, password) = (user.into(), password.into());
        let refused = |reason| Err(TransportError::Credentials(reason));
        let lengths = 1..=MAX_CREDENTIAL_BYTES;
        match self.kind {
            ProxyKind::Socks5
                if !(lengths.contains(&user.len()) && lengths.contains(&password.len())) =>
            {
                return refused("SOCKS5 takes 1 to 255 bytes each");
            }
            ProxyKind::Http if user.contains(':') => {
                return refused("a colon in the user name cannot be told from the one behind it");
            }
            _ => {}
        }
        if user.chars().chain(password.chars()).any(char::is_control) {
            return refused("control characters are not allowed");
        }
        Ok(Self {
            credentials: Some(Credentials { user, password }),
            ..self
        })
    }

    /// What it speaks.
    #[must_use]
    pub fn kind(&self) -> ProxyKind {
        self.kind
    }

    pub(crate) fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }
}

impl FromStr for Proxy {
    type Err = TransportError;

    fn from_str(text: &str) -> Result<Self, TransportError> {
        let refused = TransportError::Proxy;
        let (scheme, rest) = text
            .split_once("://")
            .ok_or(refused("the scheme is missing"))?;
        let kind = match scheme.to_ascii_lowercase().as_str() {
            "http" => ProxyKind::Http,
            // Names are always resolved by the proxy, which is what curl calls `socks5h`.
            "socks5" | "socks5h" => ProxyKind::Socks5,
            "https" => return Err(refused("TLS towards the proxy itself is not supported")),
            _ => return Err(refused("the scheme is neither of them")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(refused("there is something behind the port"));
        }
        let (credentials, address) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((credentials, address)) => (Some(credentials), address),
        };
        let (host, port) = host_and_port(address)?;
        let proxy = Self::new(kind, host, port.unwrap_or(kind.default_port()))?;
        let Some(credentials) = credentials else {
            return Ok(proxy);
        };
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        proxy.with_credentials(unescape(user)?, unescape(password)?)
    }
}

fn host_and_port(address: &str) -> Result<(&str, Option<u16>), TransportError> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let end = TransportError::Proxy("the `]` behind the IPv6 address is missing");
            let (host, rest) = rest.split_once(']').ok_or(end)?;
            match rest.strip_prefix(':') {
                None if rest.is_empty() => (host, None),
                None => return Err(TransportError::Proxy("`:port` has to follow the `]`")),
                port => (host, port),
            }
        }
        None => match address.split_once(':') {
            None => (address, None),
            Some((host, port)) => (host, Some(port)),
        },
    };
    let port = port.map(str::parse).transpose();
    port.map(|port| (host, port))
        .map_err(|_| TransportError::Proxy("the port is no number up to 65535"))
}

fn unescape(text: &str) -> Result<String, TransportError> {
    let refused = TransportError::Credentials("a `%` is not followed by two hexadecimal digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next()), digit(rest.next()));
        let value = high
            .zip(low)
            .and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(value.ok_or(refused.clone())?);
    }
    String::from_utf8(bytes).map_err(|_| TransportError::Credentials("they are not UTF-8"))
}

impl fmt::Display for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind, host, port, ..
        } = self;
        let scheme = kind.scheme();
        if host.contains(':') {
            write!(formatter, "{scheme}://[{host}]:{port}")
        } else {
            write!(formatter, "{scheme}://{host}:{port}")
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = self
            .credentials
            .as_ref()
            .map_or("", |_| " with credentials");
        write!(formatter, "Proxy({self}{credentials})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Proxy {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_read_as_urls() {
        let proxy = parsed("socks5://me:p%40ss%3a@[::1]:9");
        assert_eq!(
            (proxy.kind(), proxy.address()),
            (ProxyKind::Socks5, ("::1", 9))
        );
        let credentials = proxy.credentials().unwrap();
        assert_eq!(
            (&*credentials.user, &*credentials.password),
            ("me", "p@ss:")
        );
        assert_eq!(proxy.to_string(), "socks5://[::1]:9");
        assert_eq!(parsed("HTTP://proxy/").address(), ("proxy", 8080));
        assert_eq!(parsed("socks5h://proxy").address(), ("proxy", 1080));
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_never_repeated() {
        for text in [
            "proxy:1080",
            "ftp://u:hunter2@proxy",
            "https://u:hunter2@proxy",
            "http://u:hunter2@",
            "http://u:hunter2@proxy:port",
            "http://u:hunter2@proxy:0",
            "http://u:hunter2@proxy:80/path",
            "http://u:hunter2@[::1",
            "http://u:hunter2%z@proxy",
            "socks5://:hunter2@proxy",
            "http://u:hunter2%0d%0a@proxy",
            "http://a%3ab:hunter2@proxy",
        ] {
            let error = Proxy::from_str(text).map(drop).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn credentials_do_not_print() {
        let proxy = parsed("http://u:hunter2@proxy:3128");
        assert_eq!(format!("{proxy}"), "http://proxy:3128");
        assert_eq!(
            format!("{proxy:?}"),
            "Proxy(http://proxy:3128 with credentials)"
        );
    }
}
