//! Why connections end, and what an MQTT 5 client is told before.

use std::fmt;

use qproxy_mqtt::codec::{DecodeError, ReasonCode};

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client sent DISCONNECT; its will is not published.
    Disconnected,
    /// The client sent DISCONNECT with another reason than success; its will is published.
    Left(ReasonCode),
    /// The socket was closed or failed without DISCONNECT.
    Gone,
    /// CONNACK said no.
    Refused(ReasonCode),
    /// The bytes are no MQTT.
    Malformed(DecodeError),
    /// A legal packet at the wrong time or in the wrong direction.
    Protocol(&'static str),
    /// A limit of this broker, by its field in [`Limits`](crate::Limits).
    Limit(&'static str),
    /// Against what CONNACK announced, which MQTT 5 has reason codes for.
    Breach(ReasonCode, &'static str),
    /// The same client id connected again.
    TakenOver,
    /// Nothing came for 1.5 times the keep alive (MQTT 3.1.1 section 3.1.2.10).
    KeepAlive,
    /// The TLS handshake failed, or another machine did not begin one.
    Handshake,
    /// No CONNECT came in time.
    ConnectTimeout,
    /// The socket took no byte for too long.
    WriteTimeout,
    /// The broker stops.
    Shutdown,
    /// The program around the broker asked for it, with this reason.
    Dismissed(ReasonCode),
    /// A fault script or a test asked for it.
    Fault,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected => formatter.write_str("client disconnected"),
            Self::Left(reason) => write!(formatter, "client disconnected: {reason}"),
            Self::Gone => formatter.write_str("connection lost"),
            Self::Refused(code) => write!(formatter, "refused: {code}"),
            Self::Malformed(error) => write!(formatter, "malformed packet: {error}"),
            Self::Protocol(what) => write!(formatter, "protocol error: {what}"),
            Self::Limit(name) => write!(formatter, "over the limit {name}"),
            Self::Breach(reason, what) => write!(formatter, "{reason}: {what}"),
            Self::TakenOver => formatter.write_str("taken over by a new connection"),
            Self::KeepAlive => formatter.write_str("keep alive timed out"),
            Self::Handshake => formatter.write_str("TLS handshake failed"),
            Self::ConnectTimeout => formatter.write_str("no CONNECT in time"),
            Self::WriteTimeout => formatter.write_str("socket took nothing in time"),
            Self::Shutdown => formatter.write_str("broker stops"),
            Self::Dismissed(reason) => write!(formatter, "dismissed: {reason}"),
            Self::Fault => formatter.write_str("closed by a fault script"),
        }
    }
}

impl CloseReason {
    /// What an MQTT 5 client is told in DISCONNECT before its connection is closed (section 3.14.2.1); `None` where
    /// it has left itself, cannot hear, or is to see a failing network.
    pub(super) fn farewell(&self) -> Option<ReasonCode> {
        Some(match self {
            Self::Malformed(error) => error.reason(),
            Self::Protocol(_) => ReasonCode::ProtocolError,
            Self::Limit(_) => ReasonCode::QuotaExceeded,
            Self::Breach(reason, _) => *reason,
            Self::TakenOver => ReasonCode::SessionTakenOver,
            Self::KeepAlive => ReasonCode::KeepAliveTimeout,
            Self::Shutdown => ReasonCode::ServerShuttingDown,
            Self::Dismissed(reason) => *reason,
            Self::Disconnected
            | Self::Left(_)
            | Self::Gone
            | Self::Refused(_)
            | Self::Handshake
            | Self::ConnectTimeout
            | Self::WriteTimeout
            | Self::Fault => return None,
        })
    }
}
