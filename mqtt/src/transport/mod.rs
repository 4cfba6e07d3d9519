//! How the bytes of MQTT travel: over TCP or in WebSocket frames, straight or through a proxy.
//!
//! TLS is a matter of its own (`tls` of [`MqttConfig`](crate::MqttConfig)) and goes with each of them: what stands
//! here combines freely, and each type is checked as it is made, so that no combination has to be refused later.
//! Secrets show neither in `Debug` nor in `Display`.

mod error;
mod proxy;
#[cfg(feature = "websocket")]
mod websocket;

pub use error::{ProxyError, WebSocketError};
pub use proxy::{Proxy, ProxyKind};
#[cfg(feature = "websocket")]
pub use websocket::WebSocketOptions;

pub(crate) use proxy::Credentials;

/// What carries the MQTT packets.
///
/// ```
/// use qproxy_mqtt::{MqttConfig, transport::Transport};
///
/// assert_eq!(MqttConfig::default().transport, Transport::Tcp);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// The bare stream: TCP, or TLS over it.
    #[default]
    Tcp,
    /// Binary WebSocket messages (section 6): `ws`, or with `tls` set `wss`.
    #[cfg(feature = "websocket")]
    WebSocket(WebSocketOptions),
}

/// Why a transport, or a proxy, cannot be as it was asked for.
///
/// ```
/// use qproxy_mqtt::transport::{Proxy, TransportError};
///
/// let error = "ftp://proxy.example:3128".parse::<Proxy>().unwrap_err();
/// assert!(matches!(error, TransportError::Proxy(_)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The path of a WebSocket, shown without its query.
    #[error("path {0:?} has to start with `/` and to consist of visible ASCII characters")]
    Path(String),
    /// The name of a header.
    #[error("{0:?} is no name of an HTTP header")]
    HeaderName(String),
    /// The value of a header; it may be a secret.
    #[error("the value of the header {0:?} holds control characters")]
    HeaderValue(String),
    /// A header that the handshake sets by itself.
    #[error("the header {0:?} belongs to the WebSocket handshake")]
    HeaderReserved(String),
    /// The address of a proxy. It is not repeated, for it may hold a password.
    #[error(
        "a proxy is written `http://host:port` or `socks5://host:port`, with `user:password@` before the host \
         where it wants them: {0}"
    )]
    Proxy(&'static str),
    /// Credentials that the proxy's protocol cannot carry.
    #[error("user and password for a proxy: {0}")]
    Credentials(&'static str),
}
