//! CONNECT and CONNACK, with the last will.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use super::super::{ReasonCode, Text, Version};
use super::properties::Hidden;
use super::{PayloadFormat, QoS, UserProperty};

/// CONNECT (3.1).
///
/// ```
/// use bytes::BytesMut;
/// use qproxy_mqtt::codec::{Connect, Packet, Version, decode, encode};
///
/// let connect = Connect {
///     client_id: "lamp-1".into(),
///     clean_session: true,
///     ..Connect::default()
/// };
/// let packet = Packet::Connect(Box::new(connect));
/// let mut buf = BytesMut::new();
/// encode(&packet, Version::V311, &mut buf).unwrap();
/// assert_eq!(decode(&mut buf, 1024, Version::V311), Ok(Some(packet)));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Connect {
    /// Of this packet and of all that follow on the connection.
    pub version: Version,
    /// May be empty for the server to choose one; in 3.1.1 only with `clean_session`.
    pub client_id: Text,
    /// Start from nothing (3.1.2.4); in 3.1.1 also keep nothing afterwards. Version 5.0 calls it Clean Start.
    pub clean_session: bool,
    /// Longest silence of the client in seconds; 0 switches it off (3.1.2.10).
    pub keep_alive: u16,
    /// Published by the server where the client leaves without DISCONNECT.
    pub will: Option<Will>,
    /// User name.
    pub username: Option<Text>,
    /// Password, any bytes; in 3.1.1 never without a user name [MQTT-3.1.2-22].
    pub password: Option<Bytes>,
    /// Of version 5.0.
    pub properties: Option<Box<ConnectProperties>>,
}

impl fmt::Debug for Connect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connect")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_session", &self.clean_session)
            .field("keep_alive", &self.keep_alive)
            .field("will", &self.will)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("properties", &self.properties)
            .finish()
    }
}

/// The properties of CONNECT (3.1.2.11). What is `None` or empty is not sent; the specification says what it means.
///
/// ```
/// use qproxy_mqtt::codec::{Connect, ConnectProperties, Version};
///
/// let properties = ConnectProperties {
///     session_expiry: Some(3600),
///     auth_data: Some("secret".into()),
///     ..ConnectProperties::default()
/// };
/// let connect = Connect {
///     version: Version::V5,
///     properties: Some(Box::new(properties)),
///     ..Connect::default()
/// };
/// assert!(!format!("{connect:?}").contains("secret"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConnectProperties {
    /// Seconds the session outlives the connection; `u32::MAX`: for ever.
    pub session_expiry: Option<u32>,
    /// PUBLISH of QoS 1 and 2 that the client takes at once.
    pub receive_max: Option<NonZeroU16>,
    /// Largest packet the client takes, in bytes.
    pub max_packet_size: Option<NonZeroU32>,
    /// Highest topic alias the client takes; 0: none.
    pub topic_alias_max: Option<u16>,
    /// Asks for response information in CONNACK.
    pub request_response_information: Option<bool>,
    /// `false`: no reason string and no user properties except where they cannot be done without.
    pub request_problem_information: Option<bool>,
    /// For the program at the other end.
    pub user_properties: Vec<UserProperty>,
    /// Extended authentication (4.12).
    pub auth_method: Option<Text>,
    /// Only with a method.
    pub auth_data: Option<Bytes>,
}

impl fmt::Debug for ConnectProperties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConnectProperties")
            .field("session_expiry", &self.session_expiry)
            .field("receive_max", &self.receive_max)
            .field("max_packet_size", &self.max_packet_size)
            .field("topic_alias_max", &self.topic_alias_max)
            .field(
                "request_response_information",
                &self.request_response_information,
            )
            .field(
                "request_problem_information",
                &self.request_problem_information,
            )
            .field("user_properties", &self.user_properties)
            .field("auth_method", &self.auth_method)
            .field("auth_data", &Hidden(&self.auth_data))
            .finish()
    }
}

/// The last will (3.1.2.5).
///
/// ```
/// use qproxy_mqtt::{MqttConfig, QoS, codec::Will};
///
/// let will = Will {
///     topic: "lamp/1/state".into(),
///     payload: "gone".into(),
///     qos: QoS::AtLeastOnce,
///     ..Will::default()
/// };
/// let config = MqttConfig {
///     will: Some(will),
///     ..MqttConfig::default()
/// };
/// assert!(config.will.is_some_and(|will| !will.retain));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Will {
    /// Where it is published.
    pub topic: Text,
    /// What is published; at most 65,535 bytes.
    pub payload: Bytes,
    /// With which QoS.
    pub qos: QoS,
    /// Whether the server keeps it.
    pub retain: bool,
    /// Of version 5.0.
    pub properties: Option<Box<WillProperties>>,
}

impl fmt::Debug for Will {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Will")
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("properties", &self.properties)
            .finish()
    }
}

/// The properties of a will (3.1.3.2).
///
/// ```
/// use qproxy_mqtt::codec::{Will, WillProperties};
///
/// let properties = WillProperties {
///     delay: Some(30),
///     ..WillProperties::default()
/// };
/// let will = Will {
///     properties: Some(Box::new(properties)),
///     ..Will::default()
/// };
/// assert_eq!(will.properties.and_then(|it| it.delay), Some(30));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WillProperties {
    /// Seconds the server waits for the client to come back before it publishes the will.
    pub delay: Option<u32>,
    /// What the payload is said to be.
    pub payload_format: Option<PayloadFormat>,
    /// Seconds after which the message is of no use.
    pub message_expiry: Option<u32>,
    /// What the payload is, in words of the programs' own.
    pub content_type: Option<Text>,
    /// Where an answer is expected.
    pub response_topic: Option<Text>,
    /// Given back with the answer.
    pub correlation_data: Option<Bytes>,
    /// For whoever receives the message.
    pub user_properties: Vec<UserProperty>,
}

impl fmt::Debug for WillProperties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WillProperties")
            .field("delay", &self.delay)
            .field("payload_format", &self.payload_format)
            .field("message_expiry", &self.message_expiry)
            .field("content_type", &self.content_type)
            .field("response_topic", &self.response_topic)
            .field("correlation_data", &Hidden(&self.correlation_data))
            .field("user_properties", &self.user_properties)
            .finish()
    }
}

/// CONNACK (3.2).
///
/// ```
/// use bytes::BytesMut;
/// use qproxy_mqtt::codec::{ConnAck, Packet, ReasonCode, Version, encode};
///
/// let refusal = ConnAck {
///     code: ReasonCode::NotAuthorized,
///     ..ConnAck::default()
/// };
/// let mut buf = BytesMut::new();
/// encode(&Packet::ConnAck(refusal), Version::V311, &mut buf).unwrap();
/// assert_eq!(&buf[..], b"\x20\x02\x00\x05", "5 is the number that 3.1.1 has for it");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnAck {
    /// The server still has the session of this client id.
    pub session_present: bool,
    /// [`ReasonCode::Success`], or why not.
    pub code: ReasonCode,
    /// Of version 5.0.
    pub properties: Option<Box<ConnAckProperties>>,
}

/// The properties of CONNACK (3.2.2.3).
///
/// ```
/// use qproxy_mqtt::codec::{ConnAck, ConnAckProperties};
/// use qproxy_mqtt::session::{Offered, Terms};
///
/// let properties = ConnAckProperties {
///     retain_available: Some(false),
///     ..ConnAckProperties::default()
/// };
/// let connack = ConnAck {
///     properties: Some(Box::new(properties)),
///     ..ConnAck::default()
/// };
/// assert_eq!(Terms::from(&connack).retain, Offered::No);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConnAckProperties {
    /// Seconds the session outlives the connection, where the server does not do as asked.
    pub session_expiry: Option<u32>,
    /// PUBLISH of QoS 1 and 2 that the server takes at once.
    pub receive_max: Option<NonZeroU16>,
    /// Highest QoS the server takes: 0 or 1; `None` is 2.
    pub max_qos: Option<QoS>,
    /// Whether the server keeps retained messages.
    pub retain_available: Option<bool>,
    /// Largest packet the server takes, in bytes.
    pub max_packet_size: Option<NonZeroU32>,
    /// The client id where the client left the choice to the server.
    pub assigned_client_id: Option<Text>,
    /// Highest topic alias the server takes; 0: none.
    pub topic_alias_max: Option<u16>,
    /// For a person to read.
    pub reason_string: Option<Text>,
    /// For the program at the other end.
    pub user_properties: Vec<UserProperty>,
    /// Whether filters may have wildcards.
    pub wildcard_available: Option<bool>,
    /// Whether subscriptions may be numbered.
    pub subscription_ids_available: Option<bool>,
    /// Whether subscriptions may be shared.
    pub shared_available: Option<bool>,
    /// Seconds; overrides the keep alive of CONNECT.
    pub server_keep_alive: Option<u16>,
    /// What a client makes its response topics from.
    pub response_information: Option<Text>,
    /// Another server to use.
    pub server_reference: Option<Text>,
    /// Extended authentication (4.12).
    pub auth_method: Option<Text>,
    /// Only with a method.
    pub auth_data: Option<Bytes>,
}

impl fmt::Debug for ConnAckProperties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConnAckProperties")
            .field("session_expiry", &self.session_expiry)
            .field("receive_max", &self.receive_max)
            .field("max_qos", &self.max_qos)
            .field("retain_available", &self.retain_available)
            .field("max_packet_size", &self.max_packet_size)
            .field("assigned_client_id", &self.assigned_client_id)
            .field("topic_alias_max", &self.topic_alias_max)
            .field("reason_string", &self.reason_string)
            .field("user_properties", &self.user_properties)
            .field("wildcard_available", &self.wildcard_available)
            .field(
                "subscription_ids_available",
                &self.subscription_ids_available,
            )
            .field("shared_available", &self.shared_available)
            .field("server_keep_alive", &self.server_keep_alive)
            .field("response_information", &self.response_information)
            .field("server_reference", &self.server_reference)
            .field("auth_method", &self.auth_method)
            .field("auth_data", &Hidden(&self.auth_data))
            .finish()
    }
}
