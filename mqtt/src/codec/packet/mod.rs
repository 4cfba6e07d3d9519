//! The control packets (section 3), as the program sees them.
//!
//! Values only: nothing here knows how a packet is written. Secrets and payloads do not show in `Debug`. What only
//! version 5.0 has stands in a box that is absent otherwise, so that a PUBLISH without properties costs nothing more.

mod connect;
mod publish;
mod subscribe;
mod disconnect;
mod properties;

use std::fmt;
use std::num::NonZeroU16;

pub use connect::{ConnAck, ConnAckProperties, Connect, ConnectProperties, Will, WillProperties};
pub use disconnect::{Auth, AuthProperties, Disconnect, DisconnectProperties};
pub use properties::{PayloadFormat, SubscriptionId, UserProperty};
pub use publish::{Ack, AckProperties, Publish, PublishProperties};
pub use subscribe::{
    RetainHandling, SubAck, Subscribe, SubscribeProperties, Subscription, UnsubAck, Unsubscribe,
};

/// A packet identifier: never 0 [MQTT-2.3.1-1].
///
/// ```
/// use qproxy_mqtt::codec::PacketId;
///
/// assert_eq!(PacketId::new(0), None);
/// assert_eq!(PacketId::new(7).map(PacketId::get), Some(7));
/// ```
pub type PacketId = NonZeroU16;

/// Quality of service: how hard the two sides try (section 4.3).
///
/// ```
/// use qproxy_mqtt::QoS;
///
/// assert_eq!(QoS::from_u8(2), Some(QoS::ExactlyOnce));
/// assert_eq!(QoS::from_u8(3), None);
/// assert_eq!(QoS::AtLeastOnce.as_u8(), 1);
/// assert!(QoS::AtMostOnce < QoS::AtLeastOnce);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// 0: sent once, never acknowledged; may be lost.
    #[default]
    AtMostOnce,
    /// 1: sent until acknowledged; may arrive twice.
    AtLeastOnce,
    /// 2: arrives exactly once, for two round trips.
    ExactlyOnce,
}

impl QoS {
    /// The two-bit value on the wire.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }

    /// From the value on the wire; 3 and above are no QoS.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// The fifteen packet types, for messages and counters.
///
/// ```
/// use qproxy_mqtt::codec::Kind;
///
/// assert_eq!(Kind::PubAck.name(), "PUBACK");
/// assert_eq!(Kind::PubAck.to_string(), Kind::PubAck.name());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of section 2.2.1")]
pub enum Kind {
    Connect,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    /// Of version 5.0 only.
    Auth,
}

impl Kind {
    /// The name in capitals, as the specification writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Any control packet.
///
/// ```
/// use qproxy_mqtt::codec::{Ack, Kind, Packet, PacketId};
///
/// let packet = Packet::PubAck(Ack::from(PacketId::MIN));
/// assert_eq!(packet.kind(), Kind::PubAck);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Client asks to connect (3.1). Boxed: it is large and comes once.
    Connect(Box<Connect>),
    /// Server's answer (3.2).
    ConnAck(ConnAck),
    /// A message, either way (3.3).
    Publish(Publish),
    /// QoS 1 acknowledged (3.4).
    PubAck(Ack),
    /// QoS 2 received (3.5).
    PubRec(Ack),
    /// QoS 2 released (3.6).
    PubRel(Ack),
    /// QoS 2 complete (3.7).
    PubComp(Ack),
    /// Client asks for topics (3.8).
    Subscribe(Subscribe),
    /// Server's answer (3.9).
    SubAck(SubAck),
    /// Client gives topics up (3.10).
    Unsubscribe(Unsubscribe),
    /// Server's answer (3.11).
    UnsubAck(UnsubAck),
    /// Are you there? (3.12)
    PingReq,
    /// Yes (3.13).
    PingResp,
    /// The sender ends the connection; in 3.1.1 only the client does so (3.14).
    Disconnect(Disconnect),
    /// A step of extended authentication, either way (3.15); of version 5.0 only.
    Auth(Auth),
}

impl Packet {
    /// Which of the fifteen it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Connect(_) => Kind::Connect,
            Self::ConnAck(_) => Kind::ConnAck,
            Self::Publish(_) => Kind::Publish,
            Self::PubAck(_) => Kind::PubAck,
            Self::PubRec(_) => Kind::PubRec,
            Self::PubRel(_) => Kind::PubRel,
            Self::PubComp(_) => Kind::PubComp,
            Self::Subscribe(_) => Kind::Subscribe,
            Self::SubAck(_) => Kind::SubAck,
            Self::Unsubscribe(_) => Kind::Unsubscribe,
            Self::UnsubAck(_) => Kind::UnsubAck,
            Self::PingReq => Kind::PingReq,
            Self::PingResp => Kind::PingResp,
            Self::Disconnect(_) => Kind::Disconnect,
            Self::Auth(_) => Kind::Auth,
        }
    }
}
