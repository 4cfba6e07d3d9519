//! What can go wrong between the TCP connection and the first byte of MQTT, by whom to ask about it.

use std::io;
use std::sync::Arc;

/// Why a proxy did not let us through. `proxy` is its address, `server` where it was to connect to.
///
/// ```
/// use qproxy_mqtt::{error::ConnectError, transport::ProxyError};
///
/// let error = ConnectError::from(ProxyError::NameTooLong { length: 300 });
/// assert!(error.is_permanent());
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The proxy wants a user and a password.
    #[error("the proxy {proxy} wants credentials: write them before its host, `user:password@`")]
    CredentialsWanted {
        /// The proxy.
        proxy: String,
    },
    /// It does not take ours.
    #[error("the proxy {proxy} does not accept our user and password")]
    CredentialsRefused {
        /// The proxy.
        proxy: String,
    },
    /// It said no to this server, or could not reach it.
    #[error("the proxy {proxy} does not connect to {server}: {reason}")]
    Refused {
        /// The proxy.
        proxy: String,
        /// The MQTT server, `host:port`.
        server: String,
        /// Its status line (HTTP), or what its code means (SOCKS5).
        reason: String,
    },
    /// It answered something that its protocol does not have.
    #[error("{proxy} does not answer as such a proxy does ({what}): are scheme and port right?")]
    Malformed {
        /// The proxy.
        proxy: String,
        /// What was wrong.
        what: &'static str,
    },
    /// The head of its answer is larger than we read.
    #[error("the answer of the proxy {proxy} has a head of over {limit} bytes")]
    TooLong {
        /// The proxy.
        proxy: String,
        /// What we read at most.
        limit: usize,
    },
    /// SOCKS5 cannot carry a name of this length.
    #[error("the name of the server has {length} bytes, and SOCKS5 carries 255 at most")]
    NameTooLong {
        /// Bytes.
        length: usize,
    },
    /// The connection broke before it had answered.
    #[error("the proxy {proxy} closed the connection before it had answered for {server}")]
    Closed {
        /// The proxy.
        proxy: String,
        /// The MQTT server.
        server: String,
        /// What the system said, if it said anything.
        source: Option<Arc<io::Error>>,
    },
}

impl ProxyError {
    pub(crate) fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::CredentialsWanted { .. }
                | Self::CredentialsRefused { .. }
                | Self::NameTooLong { .. }
        )
    }
}

/// Why there is no WebSocket, or no longer.
///
/// ```
/// use qproxy_mqtt::transport::WebSocketError;
///
/// let error = WebSocketError::TooLarge {
///     size: 2000,
///     limit: 1000,
/// };
/// assert_eq!(
///     error.to_string(),
///     "the server sent a WebSocket message of 2000 bytes, over the limit of 1000"
/// );
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// Another answer than 101.
    #[error("{server}{path} answered HTTP {status} instead of opening a WebSocket: {hint}")]
    Status {
        /// The server, `host:port`, and the proxy before it.
        server: String,
        /// The path asked for, without its query.
        path: String,
        /// The status code.
        status: u16,
        /// What to look at.
        hint: &'static str,
    },
    /// The server does not speak MQTT on this WebSocket [MQTT-6.0.0-4].
    #[error("{server}{path} opened a WebSocket that is not for MQTT: it chose {chosen}")]
    Subprotocol {
        /// The server.
        server: String,
        /// The path asked for, without its query.
        path: String,
        /// What it chose.
        chosen: &'static str,
    },
    /// The answer is no WebSocket handshake.
    #[error("{server} did not answer as a WebSocket server does ({reason}): is the port right?")]
    Handshake {
        /// The server.
        server: String,
        /// What was wrong.
        reason: String,
    },
    /// MQTT in text messages [MQTT-6.0.0-1].
    #[error("the server sent a WebSocket text message, and MQTT travels in binary ones")]
    Text,
    /// A message over the limit.
    #[error("the server sent a WebSocket message of {size} bytes, over the limit of {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// `max_packet_size`, or 64 KiB where that is less.
        limit: usize,
    },
    /// A close frame that gives a reason.
    #[error("the server closed the WebSocket with code {code} ({reason:?})")]
    Closed {
        /// The code (RFC 6455, 7.4).
        code: u16,
        /// The text behind it.
        reason: String,
    },
    /// Frames that are not legal.
    #[error("the server broke the WebSocket protocol: {0}")]
    Protocol(String),
}

impl WebSocketError {
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                (400..500).contains(status) && ![408, 425, 429].contains(status)
            }
            Self::Subprotocol { .. } => true,
            _ => false,
        }
    }

    /// To travel through the traits of tokio; [`WebSocketError::from_io`] takes it out again.
    #[cfg(feature = "websocket")]
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, self)
    }

    pub(crate) fn from_io(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Self>().cloned()
    }
}
