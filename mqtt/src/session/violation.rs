//! The server broke the protocol (section 4.8; 4.13 in MQTT 5.0): what it did, and what it is told.

use crate::codec::{Kind, ReasonCode};

/// Why a connection has to be closed.
///
/// ```
/// use qproxy_mqtt::codec::{Kind, ReasonCode};
/// use qproxy_mqtt::session::Violation;
///
/// let violation = Violation::Unexpected(Kind::Connect);
/// assert_eq!(violation.reason(), ReasonCode::ProtocolError);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A packet that only a client may send, or a second CONNACK; AUTH, which this client never asks for.
    #[error("server sent {0}, which it must not at this point [MQTT-4.8.0-1]")]
    Unexpected(Kind),
    /// Another number of codes than filters were asked for.
    #[error("{kind} has {found} codes for {expected} filters [MQTT-3.8.4-5]")]
    CodeCount {
        /// SUBACK or UNSUBACK.
        kind: Kind,
        /// Filters asked for.
        expected: usize,
        /// Codes received.
        found: usize,
    },
    /// More than all packet ids can be open at once.
    #[error("server has more than 65,535 messages unacknowledged (section 2.3.1)")]
    TooManyUnacknowledged,
    /// More than we said we take.
    #[error("server has more than {0} messages unacknowledged [MQTT-3.3.4-9]")]
    ReceiveMaximum(u16),
    /// A session of a client that asked for a new one.
    #[error("server has a session where Clean Start was asked for [MQTT-3.2.2-2]")]
    SessionPresent,
    /// A topic alias over what we said we take.
    #[error("topic alias {alias} is over {max} [MQTT-3.1.2-26]")]
    TopicAlias {
        /// What came.
        alias: u16,
        /// `topic_alias_maximum`.
        max: u16,
    },
    /// A topic alias that stands for nothing on this connection.
    #[error("topic alias {0} stands for no topic (section 3.3.2.3.4)")]
    UnknownTopicAlias(u16),
}

impl Violation {
    /// What MQTT 5.0 calls it in the DISCONNECT that answers it.
    #[must_use]
    pub const fn reason(&self) -> ReasonCode {
        match self {
            Self::Unexpected(_)
            | Self::CodeCount { .. }
            | Self::SessionPresent
            | Self::UnknownTopicAlias(_) => ReasonCode::ProtocolError,
            Self::TooManyUnacknowledged | Self::ReceiveMaximum(_) => {
                ReasonCode::ReceiveMaximumExceeded
            }
            Self::TopicAlias { .. } => ReasonCode::TopicAliasInvalid,
        }
    }
}
