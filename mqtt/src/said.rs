//! What a server says when it refuses something or ends the connection.

use std::fmt;

use crate::codec::{AckProperties, ConnAck, Disconnect, ReasonCode, Text};

/// A reason code, in MQTT 5.0 perhaps with words and with another server to use.
///
/// An error in itself, the source of those that a call returns: printed with all its causes, such an error ends with
/// the server's own words.
///
/// ```
/// use qproxy_mqtt::{codec::ReasonCode, error::ServerReason};
///
/// let said = ServerReason::from(ReasonCode::ServerBusy);
/// assert_eq!(said, ReasonCode::ServerBusy);
/// assert_eq!(said.to_string(), "server busy");
/// assert!(said.is_temporary());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerReason {
    /// The code.
    pub reason: ReasonCode,
    /// For a person to read.
    pub text: Option<Text>,
    /// Where to go instead (section 4.13). This client goes on with its own list of servers; whether to follow is for
    /// the program to decide.
    pub server_reference: Option<Text>,
}

impl ServerReason {
    pub(crate) fn new(reason: ReasonCode, text: Option<Text>) -> Self {
        Self {
            reason,
            text,
            server_reference: None,
        }
    }

    pub(crate) fn of_ack(reason: ReasonCode, said: Option<&AckProperties>) -> Self {
        let text = said.and_then(|said| said.reason_string.as_ref());
        Self::new(reason, text.map(Text::detached))
    }

    /// Whether the same attempt may succeed later.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(
            self.reason,
            ReasonCode::ServerUnavailable
                | ReasonCode::ServerBusy
                | ReasonCode::UnspecifiedError
                | ReasonCode::ImplementationSpecificError
                | ReasonCode::QuotaExceeded
                | ReasonCode::UseAnotherServer
                | ReasonCode::ConnectionRateExceeded
        )
    }
}

impl From<ReasonCode> for ServerReason {
    fn from(reason: ReasonCode) -> Self {
        Self::new(reason, None)
    }
}

impl From<&ConnAck> for ServerReason {
    fn from(connack: &ConnAck) -> Self {
        let said = connack.properties.as_ref();
        let text = said.and_then(|said| said.reason_string.as_ref());
        let other = said.and_then(|said| said.server_reference.as_ref());
        Self {
            reason: connack.code,
            text: text.map(Text::detached),
            server_reference: other.map(Text::detached),
        }
    }
}

impl From<&Disconnect> for ServerReason {
    fn from(disconnect: &Disconnect) -> Self {
        let said = disconnect.properties.as_ref();
        let text = said.and_then(|said| said.reason_string.as_ref());
        let other = said.and_then(|said| said.server_reference.as_ref());
        Self {
            reason: disconnect.reason,
            text: text.map(Text::detached),
            server_reference: other.map(Text::detached),
        }
    }
}

impl PartialEq<ReasonCode> for ServerReason {
    fn eq(&self, other: &ReasonCode) -> bool {
        self.reason == *other
    }
}

impl fmt::Display for ServerReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.reason)?;
        if let Some(text) = &self.text {
            write!(formatter, ": {text}")?;
        }
        if let Some(server) = &self.server_reference {
            write!(formatter, " (go to {server})")?;
        }
        Ok(())
    }
}

impl std::error::Error for ServerReason {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::DisconnectProperties;

    #[test]
    fn a_goodbye_prints_the_reason_the_words_and_the_other_server() {
        let properties = DisconnectProperties {
            reason_string: Some("maintenance".into()),
            server_reference: Some("other.example:1883".into()),
            ..DisconnectProperties::default()
        };
        let said = ServerReason::from(&Disconnect {
            reason: ReasonCode::ServerMoved,
            properties: Some(Box::new(properties)),
        });
        assert_eq!(
            said.to_string(),
            "server moved: maintenance (go to other.example:1883)"
        );
        assert!(!said.is_temporary());
    }
}
