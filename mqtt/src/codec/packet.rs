//! The control packets (section 3), as the program sees them.
//!
//! Values only: nothing here knows how a packet is written. Secrets and payloads do not show in `Debug`.

use std::fmt;
use std::num::NonZeroU16;

use bytes::Bytes;

use super::Text;

/// A packet identifier: never 0 [MQTT-2.3.1-1].
pub type PacketId = NonZeroU16;

/// Quality of service: how hard the two sides try (section 4.3).
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

/// The fourteen packet types, for messages and counters.
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
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Any control packet.
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
    UnsubAck(Ack),
    /// Are you there? (3.12)
    PingReq,
    /// Yes (3.13).
    PingResp,
    /// Client leaves in order (3.14).
    Disconnect,
}

impl Packet {
    /// Which of the fourteen it is.
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
            Self::Disconnect => Kind::Disconnect,
        }
    }
}

/// The packets that are a packet identifier: PUBACK, PUBREC, PUBREL, PUBCOMP, UNSUBACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// What is acknowledged.
    pub id: PacketId,
}

impl From<PacketId> for Ack {
    fn from(id: PacketId) -> Self {
        Self { id }
    }
}

/// CONNECT (3.1).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Connect {
    /// May be empty, with `clean_session`, for the server to choose one.
    pub client_id: Text,
    /// Start from nothing and keep nothing (3.1.2.4).
    pub clean_session: bool,
    /// Longest silence of the client in seconds; 0 switches it off (3.1.2.10).
    pub keep_alive: u16,
    /// Published by the server where the client leaves without DISCONNECT.
    pub will: Option<Will>,
    /// User name.
    pub username: Option<Text>,
    /// Password, any bytes; never without a user name [MQTT-3.1.2-22].
    pub password: Option<Bytes>,
}

impl fmt::Debug for Connect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connect")
            .field("client_id", &self.client_id)
            .field("clean_session", &self.clean_session)
            .field("keep_alive", &self.keep_alive)
            .field("will", &self.will)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .finish()
    }
}

/// The last will (3.1.2.5).
#[derive(Clone, PartialEq, Eq)]
pub struct Will {
    /// Where it is published.
    pub topic: Text,
    /// What is published; at most 65,535 bytes.
    pub payload: Bytes,
    /// With which QoS.
    pub qos: QoS,
    /// Whether the server keeps it.
    pub retain: bool,
}

impl fmt::Debug for Will {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Will")
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .finish()
    }
}

/// CONNACK (3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnAck {
    /// The server still has the session of this client id.
    pub session_present: bool,
    /// Accepted, or why not.
    pub code: ConnectCode,
}

/// The return code of CONNACK (3.2.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectCode {
    /// 0
    Accepted,
    /// 1: the server does not speak this protocol level.
    UnacceptableProtocolVersion,
    /// 2: the client id is not allowed.
    IdentifierRejected,
    /// 3: the service is not available at present.
    ServerUnavailable,
    /// 4: bad user name or password.
    BadCredentials,
    /// 5: not authorised.
    NotAuthorized,
}

impl ConnectCode {
    /// The byte on the wire.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::UnacceptableProtocolVersion => 1,
            Self::IdentifierRejected => 2,
            Self::ServerUnavailable => 3,
            Self::BadCredentials => 4,
            Self::NotAuthorized => 5,
        }
    }

    /// From the byte on the wire; 6 and above are reserved.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Accepted),
            1 => Some(Self::UnacceptableProtocolVersion),
            2 => Some(Self::IdentifierRejected),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadCredentials),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }
}

impl fmt::Display for ConnectCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Accepted => "accepted",
            Self::UnacceptableProtocolVersion => "protocol version not accepted",
            Self::IdentifierRejected => "client id rejected",
            Self::ServerUnavailable => "server unavailable",
            Self::BadCredentials => "bad user name or password",
            Self::NotAuthorized => "not authorised",
        })
    }
}

/// PUBLISH (3.3).
#[derive(Clone, PartialEq, Eq)]
pub struct Publish {
    /// Sent before, in an earlier connection (3.3.1.1).
    pub dup: bool,
    /// How it is acknowledged.
    pub qos: QoS,
    /// To be kept by the server; or, from the server, was kept (3.3.1.3).
    pub retain: bool,
    /// Where to.
    pub topic: Text,
    /// Present exactly where `qos` is above 0 [MQTT-2.3.1-5].
    pub id: Option<PacketId>,
    /// The message; a slice of the read buffer where it was decoded.
    pub payload: Bytes,
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
            .finish()
    }
}

/// SUBSCRIBE (3.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Answered by the SUBACK of the same id.
    pub id: PacketId,
    /// At least one [MQTT-3.8.3-3].
    pub filters: Vec<Subscription>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Which topics.
    pub filter: Text,
    /// The most the client wants.
    pub qos: QoS,
}

/// SUBACK (3.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    /// Of the SUBSCRIBE.
    pub id: PacketId,
    /// One for each filter, in the same order [MQTT-3.8.4-5].
    pub codes: Vec<SubscribeCode>,
}

/// What became of one filter of a SUBSCRIBE (3.9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeCode {
    /// Subscribed, with at most this QoS.
    Granted(QoS),
    /// Refused.
    Failure,
}

impl SubscribeCode {
    /// The byte on the wire.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::Granted(qos) => qos.as_u8(),
            Self::Failure => 0x80,
        }
    }

    /// From the byte on the wire; others are reserved [MQTT-3.9.3-2].
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match (value, QoS::from_u8(value)) {
            (0x80, _) => Some(Self::Failure),
            (_, Some(qos)) => Some(Self::Granted(qos)),
            _ => None,
        }
    }
}

/// UNSUBSCRIBE (3.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Answered by the UNSUBACK of the same id.
    pub id: PacketId,
    /// At least one [MQTT-3.10.3-2].
    pub filters: Vec<Text>,
}
