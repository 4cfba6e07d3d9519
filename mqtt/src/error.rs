//! What can go wrong, by what the caller can do about it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::codec::{DecodeError, EncodeError, Text};
use crate::persistence::PersistenceError;
pub use crate::said::ServerReason;
use crate::session::{DeadPeer, Forbidden, Violation};
use crate::topic::TopicError;
use crate::transport::{ProxyError, WebSocketError};

/// Why a call on the client failed.
///
/// ```
/// use qproxy_mqtt::{Error, topic::validate_topic};
///
/// let error = Error::from(validate_topic("lamp/+").unwrap_err());
/// assert_eq!(error.to_string(), "bad topic");
/// assert!(std::error::Error::source(&error).is_some(), "the source says why");
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `connect` was not called, or `disconnect` was.
    #[error("the client is not connected; call connect first")]
    NotConnected,
    /// A setting that cannot work.
    #[error("bad configuration")]
    Config(#[from] ConfigError),
    /// The connection could not be made.
    #[error("could not connect")]
    Connect(#[from] ConnectError),
    /// A topic or filter that MQTT does not allow.
    #[error("bad topic")]
    Topic(#[from] TopicError),
    /// The packet would be over `max_packet_size`.
    #[error("message of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size as a packet.
        size: usize,
        /// `max_packet_size`.
        limit: usize,
    },
    /// The queue is full and the policy is to refuse.
    #[error("the queue of outgoing messages is full")]
    QueueFull,
    /// Thrown out of the full queue for a younger message.
    #[error("displaced from the full queue by a younger message")]
    Displaced,
    /// A QoS 0 publish whose connection broke before it was written.
    #[error("the connection was lost before the message was written")]
    ConnectionLost,
    /// `publish_timeout` or `request_timeout` has passed. The message may still be delivered, the subscription made.
    #[error("not acknowledged within {0:?}")]
    Timeout(Duration),
    /// The answer stands behind received messages that the program does not take. The message may still be
    /// delivered, the subscription still be made.
    #[error("no answer: for {0:?} nobody has taken the received messages in front of it")]
    Stalled(Duration),
    /// The server does not subscribe the client to this filter.
    #[error("the server refused the subscription to {filter}")]
    SubscribeRefused {
        /// The filter.
        filter: Text,
        /// Why; MQTT 3.1.1 has one code for every reason.
        source: ServerReason,
    },
    /// The server does not take the client off this filter.
    #[error("the server refused to unsubscribe from {filter}")]
    UnsubscribeRefused {
        /// The filter.
        filter: Text,
        /// Why.
        source: ServerReason,
    },
    /// The server took the message and refused it (MQTT 5.0).
    #[error("the server refused the message")]
    PublishRefused(#[source] ServerReason),
    /// The server had said that it does not take such a thing; nothing was sent (MQTT 5.0).
    #[error("not sent")]
    Forbidden(#[from] Forbidden),
    /// The time in which the message is of use passed while it waited; it was not sent.
    #[error("the message expired while it waited")]
    Expired,
    /// The server lost the session with the message in flight, and the policy is to fail. It may have arrived.
    #[error("the server lost the session with the message in flight")]
    SessionLost,
    /// A property, or an option of a subscription, that cannot be written; nothing was sent.
    #[error("cannot be sent")]
    Unsendable(#[from] EncodeError),
    /// An option that MQTT 3.1.1 cannot carry.
    #[error("{0} needs MQTT 5.0; set protocol")]
    NeedsV5(&'static str),
    /// The client has stopped; the message may or may not have been delivered.
    #[error("the client stopped")]
    Stopped,
    /// The server accepts this client again and again only to close the connection at once.
    #[error(
        "the server closed {0} connections in a row shortly after accepting them: another client with the same client id?"
    )]
    TakenOver(u32),
    /// `drain_timeout` passed with messages left.
    #[error("{left} messages were not delivered within {timeout:?}")]
    Undelivered {
        /// How many.
        left: usize,
        /// `drain_timeout`.
        timeout: Duration,
    },
    /// A query without an answer.
    #[error("query failed")]
    Query(#[from] QueryError),
    /// `persistence` could not be read, or did not keep the message; it is not sent then.
    #[error("the message is not saved")]
    NotSaved(#[from] PersistenceError),
}

/// Why a query has no answer.
///
/// ```
/// use qproxy_mqtt::error::{Error, QueryError};
///
/// let error = Error::from(QueryError::TooMany(1000));
/// assert!(matches!(error, Error::Query(QueryError::TooMany(_))));
/// assert_eq!(QueryError::TooMany(1000).to_string(), "1000 queries are open already");
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Nobody answered in time. MQTT 3.1.1 cannot tell whether anybody listens.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The server has no subscriber for the question (MQTT 5.0, where the server tells).
    #[error("nobody listens on {0}")]
    NobodyListens(Text),
    /// The responder has too much to do.
    #[error("the responder is busy")]
    Busy,
    /// The responder answered with an error; this is its payload.
    #[error("the responder answered with an error of {} bytes", .0.len())]
    Failed(Bytes),
    /// Too many queries open in this client.
    #[error("{0} queries are open already")]
    TooMany(usize),
    /// A part of a long answer was lost on its way.
    #[error("a part of the answer is missing")]
    Incomplete,
    /// The answer is larger than `max_response_bytes`.
    #[error("the answer is over {0} bytes")]
    TooLarge(usize),
}

/// A setting that cannot work.
///
/// ```
/// use qproxy_mqtt::error::{ConfigError, ConnectError};
///
/// let error = ConnectError::from(ConfigError::Host);
/// assert!(matches!(error, ConnectError::Config(ConfigError::Host)));
/// assert_eq!(ConfigError::Host.to_string(), "host is empty");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// `host` is empty.
    #[error("host is empty")]
    Host,
    /// A setting that MQTT 3.1.1 cannot carry.
    #[error("{0} needs protocol to be MQTT 5.0")]
    NeedsV5(&'static str),
    /// A lasting session needs a name, in MQTT 3.1.1.
    #[error("client_id is empty without clean_session [MQTT-3.1.3-7]")]
    ClientId,
    /// What outlives the process needs a session that outlives the connection.
    #[error("persistence with clean_session: the server would forget what it is to know again")]
    PersistenceAlone,
    /// What outlives the process needs a session that the next process can name.
    #[error("persistence with an empty client_id: no later process would find the session again")]
    PersistenceUnnamed,
    /// A password needs a user name.
    #[error("token without app_id [MQTT-3.1.2-22]")]
    TokenAlone,
    /// A limit that lets nothing through.
    #[error("windows, receive_maximum, queue_messages and inbound_messages have to be at least 1")]
    Zero,
    /// Outside of 64 to 268,435,460.
    #[error("max_packet_size {0} is not between 64 and 268435460")]
    PacketSize(usize),
    /// The topic levels for queries.
    #[error("query topic")]
    Query(#[source] TopicError),
    /// A protocol for ALPN that TLS cannot carry.
    #[error("the ALPN protocol {0:?} does not have 1 to 255 bytes")]
    Alpn(String),
    /// Client id, user name, password or will that CONNECT cannot carry.
    #[error("cannot be sent in CONNECT")]
    Connect(#[source] EncodeError),
}

/// Why a connection could not be made. `server` is its `host:port`, and the proxy where there is one.
///
/// ```
/// use qproxy_mqtt::{codec::ReasonCode, error::ConnectError};
///
/// let busy = ConnectError::Refused(ReasonCode::ServerBusy.into());
/// assert!(!busy.is_permanent());
/// let refused = ConnectError::Refused(ReasonCode::NotAuthorized.into());
/// assert!(refused.is_permanent());
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name has no address.
    #[error("could not resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said; `None` where it knew the name but had no address.
        source: Option<Arc<io::Error>>,
    },
    /// TCP failed; the last address tried.
    #[error("could not reach {server} at {address}: does it run, and is the port right?")]
    Tcp {
        /// The server or the proxy, as it is configured.
        server: String,
        /// Where to.
        address: SocketAddr,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The proxy did not let us through.
    #[error("proxy")]
    Proxy(#[from] ProxyError),
    /// TLS could not be set up.
    #[error("TLS")]
    Tls(#[from] TlsError),
    /// The WebSocket could not be opened.
    #[error("WebSocket")]
    WebSocket(#[from] WebSocketError),
    /// `connect_timeout` passed.
    #[error("{server}: {stage} took longer than {timeout:?}")]
    Timeout {
        /// Where to.
        server: String,
        /// What was being done.
        stage: &'static str,
        /// `connect_timeout`.
        timeout: Duration,
    },
    /// The server said no.
    #[error("the server refused the connection")]
    Refused(#[source] ServerReason),
    /// The connection broke before CONNACK.
    #[error(
        "{server} closed the connection before it answered: is that a port for MQTT in this form?"
    )]
    Closed {
        /// Where to.
        server: String,
        /// What the system said, if it said anything.
        source: Option<Arc<io::Error>>,
    },
    /// The answer was not a CONNACK.
    #[error("the answer to CONNECT is not the MQTT that was asked for")]
    Protocol(#[source] DecodeError),
    /// A packet other than CONNACK came first.
    #[error("the answer to CONNECT is not CONNACK [MQTT-3.2.0-1]")]
    NotConnAck,
    /// The server accepted on terms that the protocol does not allow.
    #[error("the server broke the protocol")]
    Violation(#[from] Violation),
    /// CONNECT cannot be written.
    #[error("bad configuration")]
    Config(#[from] ConfigError),
}

impl ConnectError {
    /// Whether another attempt with the same settings is hopeless.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Refused(said) => !said.is_temporary(),
            Self::Config(_) => true,
            Self::Proxy(error) => error.is_permanent(),
            Self::Tls(error) => !matches!(error, TlsError::Io { .. }),
            Self::WebSocket(error) => error.is_permanent(),
            _ => false,
        }
    }
}

/// Why TLS could not be set up.
///
/// ```
/// use qproxy_mqtt::error::{ConnectError, TlsError};
///
/// let error = TlsError::ServerName("a b".to_owned());
/// assert_eq!(
///     error.to_string(),
///     r#""a b" is not a name or address that a certificate can have"#
/// );
/// assert!(ConnectError::from(error).is_permanent());
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A PEM file cannot be read, or has not in it what it should.
    #[error("could not read {what} from {}: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Why it was not found.
        reason: String,
    },
    /// The name cannot stand in a certificate.
    #[error("{0:?} is not a name or address that a certificate can have")]
    ServerName(String),
    /// The server's certificate is not trusted.
    #[error("the server's certificate for {name} is not accepted: {hint}")]
    Certificate {
        /// The name asked for.
        name: String,
        /// What to look at.
        hint: &'static str,
        /// The exact reason.
        source: rustls::Error,
    },
    /// Keys, certificates or the handshake.
    #[error("handshake with {name} failed")]
    Handshake {
        /// The name asked for.
        name: String,
        /// The exact reason.
        source: rustls::Error,
    },
    /// The settings do not fit together.
    #[error("bad TLS settings")]
    Settings(#[source] rustls::Error),
    /// The server speaks none of the protocols in `alpn`.
    #[error("{name} speaks none of the protocols in `alpn`")]
    Alpn {
        /// The name asked for.
        name: String,
        /// The exact reason.
        source: rustls::Error,
    },
    /// The connection broke during the handshake.
    #[error("{name} closed the connection during the TLS handshake: is that a port for TLS?")]
    Io {
        /// The name asked for.
        name: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

/// Why a connection ended that had been accepted.
///
/// ```
/// use qproxy_mqtt::{codec::ReasonCode, error::Disconnected};
///
/// let ended = Disconnected::Server(ReasonCode::ServerShuttingDown.into());
/// let source = std::error::Error::source(&ended).map(ToString::to_string);
/// assert_eq!(source.as_deref(), Some("server shutting down"));
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Disconnected {
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// Reading or writing failed.
    #[error("the connection failed")]
    Io(#[source] Arc<io::Error>),
    /// Frames that are not for MQTT, or a close that gives its reason.
    #[error("WebSocket")]
    WebSocket(#[source] WebSocketError),
    /// Bytes that are not MQTT.
    #[error("the server sent a malformed packet")]
    Malformed(#[from] DecodeError),
    /// Packets that make no sense.
    #[error("the server broke the protocol")]
    Violation(#[from] Violation),
    /// The server said goodbye, and why (MQTT 5.0).
    #[error("the server ended the connection")]
    Server(#[source] ServerReason),
    /// Nothing came any more.
    #[error("the server is silent")]
    Dead(#[from] DeadPeer),
    /// `persistence` failed: nothing may leave that is not saved. It is tried again before the next connection.
    #[error("the session could not be saved")]
    NotSaved(#[source] PersistenceError),
    /// The program asked for it.
    #[error("disconnected in order")]
    Requested,
}

impl Disconnected {
    /// Transports report through the traits of tokio; what is not of the system is taken out again.
    pub(crate) fn from_io(error: io::Error) -> Self {
        match WebSocketError::from_io(&error) {
            None => Self::Io(Arc::new(error)),
            Some(error) => Self::WebSocket(error),
        }
    }
}
