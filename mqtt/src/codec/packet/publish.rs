//! PUBLISH and the packets that acknowledge it.

use std::fmt;
use std::num::NonZeroU16;

use bytes::Bytes;

use super::super::{ReasonCode, Text};
use super::properties::Hidden;
use super::{PacketId, PayloadFormat, QoS, SubscriptionId, UserProperty};

/// PUBLISH (3.3).
///
/// ```
/// use qproxy_mqtt::codec::{PacketId, Publish, QoS};
///
/// let publish = Publish {
///     qos: QoS::AtLeastOnce,
///     topic: "lamp/1".into(),
///     id: PacketId::new(1),
///     payload: "secret".into(),
///     ..Publish::default()
/// };
/// assert!(!format!("{publish:?}").contains("secret"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Publish {
    /// Sent before, in an earlier connection (3.3.1.1).
    pub dup: bool,
    /// How it is acknowledged.
    pub qos: QoS,
    /// To be kept by the server; or, from the server, was kept (3.3.1.3).
    pub retain: bool,
    /// Where to. Empty only where a topic alias stands for it.
    pub topic: Text,
    /// Present exactly where `qos` is above 0 [MQTT-2.3.1-5].
    pub id: Option<PacketId>,
    /// The message; a slice of the read buffer where it was decoded.
    pub payload: Bytes,
    /// Of version 5.0.
    pub properties: Option<Box<PublishProperties>>,
}

impl fmt::Debug for Publish {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Publish")
            .field("dup", &self.dup)
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("topic", &self.topic)
            .field("id", &self.id)
            .field("payload_bytes", &self.payload.len())
            .field("properties", &self.properties)
            .finish()
    }
}

/// The properties of PUBLISH (3.3.2.3).
///
/// ```
/// use qproxy_mqtt::codec::{Publish, PublishProperties};
///
/// let properties = PublishProperties {
///     message_expiry: Some(60),
///     ..PublishProperties::default()
/// };
/// let publish = Publish {
///     topic: "lamp/1".into(),
///     properties: Some(Box::new(properties)),
///     ..Publish::default()
/// };
/// assert_eq!(publish.properties.and_then(|it| it.message_expiry), Some(60));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PublishProperties {
    /// What the payload is said to be.
    pub payload_format: Option<PayloadFormat>,
    /// Seconds after which the message is of no use.
    pub message_expiry: Option<u32>,
    /// A number that stands for the topic from now on, on this connection.
    pub topic_alias: Option<NonZeroU16>,
    /// Where an answer is expected.
    pub response_topic: Option<Text>,
    /// Given back with the answer.
    pub correlation_data: Option<Bytes>,
    /// For whoever receives the message, in their order.
    pub user_properties: Vec<UserProperty>,
    /// From the server only: of the subscriptions that brought the message.
    pub subscription_ids: Vec<SubscriptionId>,
    /// What the payload is, in words of the programs' own.
    pub content_type: Option<Text>,
}

impl fmt::Debug for PublishProperties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PublishProperties")
            .field("payload_format", &self.payload_format)
            .field("message_expiry", &self.message_expiry)
            .field("topic_alias", &self.topic_alias)
            .field("response_topic", &self.response_topic)
            .field("correlation_data", &Hidden(&self.correlation_data))
            .field("user_properties", &self.user_properties)
            .field("subscription_ids", &self.subscription_ids)
            .field("content_type", &self.content_type)
            .finish()
    }
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP (3.4 to 3.7).
///
/// ```
/// use qproxy_mqtt::codec::{Ack, PacketId, ReasonCode};
///
/// let id = PacketId::MIN;
/// assert_eq!(Ack::from(id), Ack::new(id, ReasonCode::Success));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// What is acknowledged.
    pub id: PacketId,
    /// In 3.1.1 always [`ReasonCode::Success`].
    pub reason: ReasonCode,
    /// Of version 5.0.
    pub properties: Option<Box<AckProperties>>,
}

/// All went well.
impl From<PacketId> for Ack {
    fn from(id: PacketId) -> Self {
        Self::new(id, ReasonCode::Success)
    }
}

impl Ack {
    /// Without properties.
    #[must_use]
    pub const fn new(id: PacketId, reason: ReasonCode) -> Self {
        Self {
            id,
            reason,
            properties: None,
        }
    }
}

/// The properties of every acknowledgement (3.4.2.2, 3.9.2.1, 3.11.2.1).
///
/// ```
/// use qproxy_mqtt::codec::{Ack, AckProperties, PacketId, ReasonCode};
///
/// let properties = AckProperties {
///     reason_string: Some("over quota".into()),
///     ..AckProperties::default()
/// };
/// let ack = Ack {
///     properties: Some(Box::new(properties)),
///     ..Ack::new(PacketId::MIN, ReasonCode::QuotaExceeded)
/// };
/// assert!(ack.reason.is_error());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AckProperties {
    /// For a person to read.
    pub reason_string: Option<Text>,
    /// For the program at the other end.
    pub user_properties: Vec<UserProperty>,
}
