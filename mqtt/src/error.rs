//! What can go wrong, by what the caller can do about it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::codec::{DecodeError, EncodeError, ReasonCode, Text};
use crate::session::{DeadPeer, Violation};
use crate::topic::TopicError;

/// Why a call on the client failed.
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
    /// `publish_timeout` has passed. The message may still be delivered.
    #[error("not acknowledged within {0:?}")]
    Timeout(Duration),
    /// The answer stands behind received messages that the program does not take. The message may still be
    /// delivered, the subscription still be made.
    #[error("no answer: for {0:?} nobody has taken the received messages in front of it")]
    Stalled(Duration),
    /// The server granted none of it.
    #[error("the server refused the subscription to {0}")]
    SubscribeRefused(Text),
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
}

/// Why a query has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Nobody answered in time. MQTT 3.1.1 cannot tell whether anybody listens.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The responder has too much to do.
    #[error("the responder is busy")]
    Busy,
    /// The responder answered with an error; this is its payload.
    #[error("the responder answered with an error of {} bytes", .0.len())]
    Failed(Bytes),
    /// Too many queries open in this client.
    #[error("{0} queries are open already")]
    TooMany(usize),
    /// The answer is larger than `max_response_bytes`.
    #[error("the answer is over {0} bytes")]
    TooLarge(usize),
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// `host` is empty.
    #[error("host is empty")]
    Host,
    /// A lasting session needs a name.
    #[error("client_id is empty without clean_session [MQTT-3.1.3-7]")]
    ClientId,
    /// A password needs a user name.
    #[error("token without app_id [MQTT-3.1.2-22]")]
    TokenAlone,
    /// A limit that lets nothing through.
    #[error("windows, queue_messages and inbound_messages have to be at least 1")]
    Zero,
    /// Outside of 64 to 268,435,460.
    #[error("max_packet_size {0} is not between 64 and 268435460")]
    PacketSize(usize),
    /// The topic levels for queries.
    #[error("query topic")]
    Query(#[source] TopicError),
    /// Client id, user name, password or will that CONNECT cannot carry.
    #[error("cannot be sent in CONNECT")]
    Connect(#[source] EncodeError),
}

/// Why a connection could not be made.
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
    #[error("could not reach {address}")]
    Tcp {
        /// Where to.
        address: SocketAddr,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// TLS could not be set up.
    #[error("TLS")]
    Tls(#[from] TlsError),
    /// `connect_timeout` passed.
    #[error("{stage} took longer than {timeout:?}")]
    Timeout {
        /// What was being done.
        stage: &'static str,
        /// `connect_timeout`.
        timeout: Duration,
    },
    /// The server said no.
    #[error("the server refused the connection: {0}")]
    Refused(ReasonCode),
    /// The connection broke before CONNACK.
    #[error("the server closed the connection before it answered CONNECT")]
    Closed(#[source] Option<Arc<io::Error>>),
    /// The answer was not a CONNACK.
    #[error("the answer to CONNECT is not MQTT 3.1.1")]
    Protocol(#[source] DecodeError),
    /// A packet other than CONNACK came first.
    #[error("the answer to CONNECT is not CONNACK [MQTT-3.2.0-1]")]
    NotConnAck,
    /// CONNECT cannot be written.
    #[error("bad configuration")]
    Config(#[from] ConfigError),
}

impl ConnectError {
    /// Whether another attempt with the same settings is hopeless.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Refused(code) => *code != ReasonCode::ServerUnavailable,
            Self::Config(_) => true,
            Self::Tls(error) => !matches!(error, TlsError::Io(_)),
            _ => false,
        }
    }
}

/// Why TLS could not be set up.
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
    /// The connection broke during the handshake.
    #[error("the connection broke during the handshake")]
    Io(#[source] Arc<io::Error>),
}

/// Why a connection ended that had been accepted.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Disconnected {
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// Reading or writing failed.
    #[error("the connection failed")]
    Io(#[source] Arc<io::Error>),
    /// Bytes that are not MQTT.
    #[error("the server sent a malformed packet")]
    Malformed(#[from] DecodeError),
    /// Packets that make no sense.
    #[error("the server broke the protocol")]
    Violation(#[from] Violation),
    /// Nothing came any more.
    #[error("the server is silent")]
    Dead(#[from] DeadPeer),
    /// The program asked for it.
    #[error("disconnected in order")]
    Requested,
}
