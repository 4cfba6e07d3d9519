//! Where on the server the WebSocket is, and what its handshake carries.

use std::fmt;

use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};

use super::TransportError;

/// Headers that the handshake sets.
const RESERVED: [&str; 4] = ["host", "connection", "upgrade", "content-length"];
const RESERVED_PREFIX: &str = "sec-websocket-";

/// A path (default `/mqtt`) and further headers of the handshake.
///
/// ```
/// # use qproxy_mqtt::transport::{Transport, TransportError, WebSocketOptions};
/// let options = WebSocketOptions::default()
///     .with_path("/ws?tenant=1")?
///     .with_header("Origin", "https://app.example")?;
/// assert!(options.clone().with_path("no-slash").is_err());
/// assert!(options.clone().with_header("Upgrade", "h2c").is_err());
/// let transport = Transport::WebSocket(options);
/// # Ok::<(), TransportError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct WebSocketOptions {
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            path: "/mqtt".to_owned(),
            headers: Vec::new(),
        }
    }
}

impl WebSocketOptions {
    /// Another path, with a query where there is one, which neither prints nor stands in errors.
    ///
    /// # Errors
    /// It does not start with `/`, or has characters that a request line cannot have.
    pub fn with_path(self, path: impl Into<String>) -> Result<Self, TransportError> {
        let path = path.into();
        let legal = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        if !path.starts_with('/') || !legal {
            return Err(TransportError::Path(without_query(&path).to_owned()));
        }
        Ok(Self { path, ..self })
    }

    /// A header more, such as `Authorization` or `Origin`. Values do not print.
    ///
    /// # Errors
    /// It is no legal header, or one that the handshake sets.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, TransportError> {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| TransportError::HeaderName(name.to_owned()))?;
        if RESERVED.contains(&parsed.as_str()) || parsed.as_str().starts_with(RESERVED_PREFIX) {
            return Err(TransportError::HeaderReserved(name.to_owned()));
        }
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| TransportError::HeaderValue(name.to_owned()))?;
        value.set_sensitive(true);
        self.headers.push((parsed, value));
        Ok(self)
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The path as it may be shown: queries carry tokens.
    pub(crate) fn shown_path(&self) -> &str {
        without_query(&self.path)
    }

    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }
}

fn without_query(path: &str) -> &str {
    path.split_once('?').map_or(path, |(path, _)| path)
}

impl fmt::Debug for WebSocketOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        formatter
            .debug_struct("WebSocketOptions")
            .field("path", &self.shown_path())
            .field("headers", &names)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_cannot_carry_is_refused() {
        let options = WebSocketOptions::default;
        for path in ["", "mqtt", "/a b", "/a\r\nX: y", "/é", "/a#b"] {
            let refused = options().with_path(path);
            assert!(matches!(refused, Err(TransportError::Path(_))), "{path:?}");
        }
        assert!(options().with_path("/a/b?token=1").is_ok());
        let header = |name, value| options().with_header(name, value).map(drop).unwrap_err();
        assert!(matches!(header("a b", "c"), TransportError::HeaderName(_)));
        assert!(matches!(
            header("a", "b\r\nc: d"),
            TransportError::HeaderValue(_)
        ));
        for name in ["Host", "sec-websocket-protocol", "Upgrade"] {
            assert!(
                matches!(header(name, "x"), TransportError::HeaderReserved(_)),
                "{name}"
            );
        }
    }

    #[test]
    fn the_query_of_the_path_does_not_print() {
        let options = WebSocketOptions::default;
        let good = options().with_path("/a?token=hunter2").unwrap();
        let bad = options().with_path("/a?token=hunter2 ").unwrap_err();
        for printed in [format!("{good:?}"), format!("{bad:?}"), bad.to_string()] {
            assert!(
                printed.contains("/a") && !printed.contains("hunter2"),
                "{printed}"
            );
        }
        assert_eq!(good.path(), "/a?token=hunter2");
    }

    #[test]
    fn values_of_headers_do_not_print() {
        let options = WebSocketOptions::default()
            .with_header("Authorization", "hunter2")
            .unwrap();
        let printed = format!("{options:?}");
        assert!(
            printed.contains("authorization") && !printed.contains("hunter2"),
            "{printed}"
        );
    }
}
