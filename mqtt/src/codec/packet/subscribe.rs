//! SUBSCRIBE, UNSUBSCRIBE and their answers.

use super::super::{ReasonCode, Text};
use super::{AckProperties, PacketId, QoS, SubscriptionId, UserProperty};

/// SUBSCRIBE (3.8).
///
/// ```
/// use bytes::BytesMut;
/// use qproxy_mqtt::codec::{Packet, PacketId, QoS, Subscribe, Subscription, Version, encode};
///
/// let subscribe = Subscribe {
///     id: PacketId::MIN,
///     filters: vec![Subscription::new("a", QoS::AtLeastOnce)],
///     properties: None,
/// };
/// let mut buf = BytesMut::new();
/// encode(&Packet::Subscribe(subscribe), Version::V311, &mut buf).unwrap();
/// assert_eq!(&buf[..], b"\x82\x06\x00\x01\x00\x01a\x01");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Answered by the SUBACK of the same id.
    pub id: PacketId,
    /// At least one [MQTT-3.8.3-3].
    pub filters: Vec<Subscription>,
    /// Of version 5.0.
    pub properties: Option<Box<SubscribeProperties>>,
}

/// The properties of SUBSCRIBE (3.8.2.1).
///
/// ```
/// use qproxy_mqtt::codec::{SubscribeProperties, SubscriptionId};
///
/// let properties = SubscribeProperties {
///     subscription_id: SubscriptionId::new(7),
///     ..SubscribeProperties::default()
/// };
/// assert_eq!(properties.subscription_id.map(SubscriptionId::get), Some(7));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscribeProperties {
    /// Comes back with each message that these filters bring.
    pub subscription_id: Option<SubscriptionId>,
    /// For the program at the other end.
    pub user_properties: Vec<UserProperty>,
}

/// One filter of a SUBSCRIBE with its options (3.8.3.1). All but the QoS is of version 5.0.
///
/// ```
/// use qproxy_mqtt::codec::{QoS, RetainHandling, Subscription};
///
/// let subscription = Subscription {
///     retain_handling: RetainHandling::Never,
///     ..Subscription::new("lamp/+", QoS::AtLeastOnce)
/// };
/// assert_eq!(subscription.filter, "lamp/+");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Which topics.
    pub filter: Text,
    /// The most the client wants.
    pub qos: QoS,
    /// Not what this client publishes itself; never with a shared filter [MQTT-3.8.3-4].
    pub no_local: bool,
    /// Leave the retain flag as it was published.
    pub retain_as_published: bool,
    /// Which retained messages come at the start.
    pub retain_handling: RetainHandling,
}

impl Subscription {
    /// With the options that 3.1.1 implies.
    #[must_use]
    pub fn new(filter: impl Into<Text>, qos: QoS) -> Self {
        Self {
            filter: filter.into(),
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }
}

/// Which retained messages come when a subscription is made (3.8.3.1).
///
/// ```
/// use qproxy_mqtt::codec::RetainHandling;
///
/// assert_eq!(RetainHandling::from_u8(1), Some(RetainHandling::SendIfNew));
/// assert_eq!(RetainHandling::from_u8(3), None);
/// assert_eq!(RetainHandling::default().as_u8(), 0);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum RetainHandling {
    /// 0: all that match.
    #[default]
    Send,
    /// 1: all that match, where the subscription is a new one.
    SendIfNew,
    /// 2: none.
    Never,
}

impl RetainHandling {
    /// The two-bit value on the wire.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::Send => 0,
            Self::SendIfNew => 1,
            Self::Never => 2,
        }
    }

    /// From the value on the wire; 3 is reserved.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Send),
            1 => Some(Self::SendIfNew),
            2 => Some(Self::Never),
            _ => None,
        }
    }
}

/// SUBACK (3.9).
///
/// ```
/// use bytes::BytesMut;
/// use qproxy_mqtt::codec::{Packet, QoS, ReasonCode, SubAck, Version, decode};
///
/// let mut buf = BytesMut::from(&b"\x90\x04\x00\x01\x01\x80"[..]);
/// let packet = decode(&mut buf, 1024, Version::V311).unwrap();
/// let Some(Packet::SubAck(SubAck { codes, .. })) = packet else {
///     panic!("not a SUBACK");
/// };
/// assert_eq!(codes, [ReasonCode::granted(QoS::AtLeastOnce), ReasonCode::UnspecifiedError]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    /// Of the SUBSCRIBE.
    pub id: PacketId,
    /// One for each filter, in the same order [MQTT-3.8.4-5]: a granted QoS or an error.
    pub codes: Vec<ReasonCode>,
    /// Of version 5.0.
    pub properties: Option<Box<AckProperties>>,
}

/// UNSUBSCRIBE (3.10).
///
/// ```
/// use bytes::BytesMut;
/// use qproxy_mqtt::codec::{Packet, PacketId, Unsubscribe, Version, encode};
///
/// let unsubscribe = Unsubscribe {
///     id: PacketId::MIN,
///     filters: vec!["a".into()],
///     user_properties: Vec::new(),
/// };
/// let mut buf = BytesMut::new();
/// encode(&Packet::Unsubscribe(unsubscribe), Version::V311, &mut buf).unwrap();
/// assert_eq!(&buf[..], b"\xa2\x05\x00\x01\x00\x01a");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Answered by the UNSUBACK of the same id.
    pub id: PacketId,
    /// At least one [MQTT-3.10.3-2].
    pub filters: Vec<Text>,
    /// Of version 5.0: for the program at the other end.
    pub user_properties: Vec<UserProperty>,
}

/// UNSUBACK (3.11).
///
/// ```
/// use qproxy_mqtt::codec::{PacketId, UnsubAck};
///
/// let unsuback = UnsubAck::from(PacketId::MIN);
/// assert!(unsuback.codes.is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck {
    /// Of the UNSUBSCRIBE.
    pub id: PacketId,
    /// Version 5.0 has one for each filter, in the same order; 3.1.1 none.
    pub codes: Vec<ReasonCode>,
    /// Of version 5.0.
    pub properties: Option<Box<AckProperties>>,
}

/// As 3.1.1 has it: nothing but the identifier.
impl From<PacketId> for UnsubAck {
    fn from(id: PacketId) -> Self {
        Self {
            id,
            codes: Vec::new(),
            properties: None,
        }
    }
}
