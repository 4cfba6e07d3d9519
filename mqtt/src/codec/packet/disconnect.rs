//! DISCONNECT and AUTH.

use std::fmt;

use bytes::Bytes;

use super::super::{ReasonCode, Text};
use super::UserProperty;
use super::properties::Hidden;

/// DISCONNECT (3.14). In 3.1.1 it says nothing but that the client leaves.
///
/// ```
/// use bytes::BytesMut;
/// use qproxy_mqtt::codec::{Disconnect, Packet, ReasonCode, Version, encode};
///
/// let goodbye = Packet::Disconnect(Disconnect::from(ReasonCode::ServerShuttingDown));
/// let mut buf = BytesMut::new();
/// encode(&goodbye, Version::V5, &mut buf).unwrap();
/// assert_eq!(buf[2], 0x8b);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disconnect {
    /// Why; [`ReasonCode::Success`] is a normal end.
    pub reason: ReasonCode,
    /// Of version 5.0.
    pub properties: Option<Box<DisconnectProperties>>,
}

impl From<ReasonCode> for Disconnect {
    fn from(reason: ReasonCode) -> Self {
        Self {
            reason,
            properties: None,
        }
    }
}

/// The properties of DISCONNECT (3.14.2.2).
///
/// ```
/// use qproxy_mqtt::codec::{Disconnect, DisconnectProperties, ReasonCode};
/// use qproxy_mqtt::error::ServerReason;
///
/// let properties = DisconnectProperties {
///     server_reference: Some("other.example:1883".into()),
///     ..DisconnectProperties::default()
/// };
/// let said = ServerReason::from(&Disconnect {
///     reason: ReasonCode::ServerMoved,
///     properties: Some(Box::new(properties)),
/// });
/// assert_eq!(said.to_string(), "server moved (go to other.example:1883)");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DisconnectProperties {
    /// From the client only: seconds the session is to outlive the connection.
    pub session_expiry: Option<u32>,
    /// For a person to read.
    pub reason_string: Option<Text>,
    /// For the program at the other end.
    pub user_properties: Vec<UserProperty>,
    /// From the server only: another server to use.
    pub server_reference: Option<Text>,
}

/// AUTH (MQTT 5.0 section 3.15).
///
/// ```
/// use bytes::BytesMut;
/// use qproxy_mqtt::codec::{Auth, Packet, Version, decode};
///
/// let mut short = BytesMut::from(&b"\xf0\x00"[..]);
/// let packet = decode(&mut short, 1024, Version::V5);
/// assert_eq!(packet, Ok(Some(Packet::Auth(Auth::default()))));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Auth {
    /// Success, continue or re-authenticate.
    pub reason: ReasonCode,
    /// Absent only in the short form of success.
    pub properties: Option<Box<AuthProperties>>,
}

/// The properties of AUTH (3.15.2.2).
///
/// ```
/// use qproxy_mqtt::codec::AuthProperties;
///
/// let properties = AuthProperties {
///     auth_method: Some("SCRAM-SHA-256".into()),
///     auth_data: Some("secret".into()),
///     ..AuthProperties::default()
/// };
/// assert!(!format!("{properties:?}").contains("secret"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthProperties {
    /// That of CONNECT.
    pub auth_method: Option<Text>,
    /// Only with a method.
    pub auth_data: Option<Bytes>,
    /// For a person to read.
    pub reason_string: Option<Text>,
    /// For the program at the other end.
    pub user_properties: Vec<UserProperty>,
}

impl fmt::Debug for AuthProperties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AuthProperties")
            .field("auth_method", &self.auth_method)
            .field("auth_data", &Hidden(&self.auth_data))
            .field("reason_string", &self.reason_string)
            .field("user_properties", &self.user_properties)
            .finish()
    }
}
