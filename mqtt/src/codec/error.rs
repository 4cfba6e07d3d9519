//! What can be wrong with bytes that arrive, and with a packet that is to be sent.
//!
//! Every decode error ends the connection (section 4.8), so each names the rule that was broken, for whoever has to
//! find out which side is at fault.

use super::{Kind, MAX_REPEATED_PROPERTIES, ReasonCode, Version};
use crate::topic::TopicError;

/// Why bytes are not a legal packet.
///
/// ```
/// use bytes::BytesMut;
/// use qproxy_mqtt::codec::{DecodeError, Version, decode};
///
/// let mut buf = BytesMut::from(&b"\xf0\x00"[..]);
/// let error = decode(&mut buf, 1024, Version::V311).unwrap_err();
/// assert_eq!(error, DecodeError::PacketType(15));
/// assert_eq!(error.to_string(), "packet type 15 is reserved (section 2.2.1)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Packet types 0 and 15 do not exist.
    #[error("packet type {0} is reserved (section 2.2.1)")]
    PacketType(u8),
    /// The low four bits of the first byte.
    #[error("fixed header flags {flags:#06b} of {kind} are not the prescribed ones [MQTT-2.2.2-2]")]
    Flags {
        /// Packet they stand in.
        kind: Kind,
        /// The four bits.
        flags: u8,
    },
    /// A fifth byte would follow; or, in 5.0, it is not as short as it could be.
    #[error("remaining length is longer than it may be (section 2.2.3) [MQTT-1.5.5-1]")]
    RemainingLength,
    /// Announced larger than we take; known from the header alone.
    #[error("{kind} of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Packet announced.
        kind: Kind,
        /// Its whole size with header.
        size: usize,
        /// The limit in force.
        limit: usize,
    },
    /// The announced length cannot hold this type of packet.
    #[error("remaining length {found} is impossible for {kind} (section 3)")]
    Length {
        /// Packet announced.
        kind: Kind,
        /// Length announced.
        found: usize,
    },
    /// A field goes past the end of its packet.
    #[error("a field of {0} goes past the end of the packet (section 2.2.3)")]
    Truncated(Kind),
    /// More bytes than the packet has fields.
    #[error("{count} bytes after the last field of {kind} (section 2.2.3)")]
    Trailing {
        /// Packet they follow.
        kind: Kind,
        /// How many.
        count: usize,
    },
    /// Packet identifier 0.
    #[error("packet identifier of {0} is 0 [MQTT-2.3.1-1]")]
    PacketId(Kind),
    /// Ill-formed UTF-8, surrogates included.
    #[error("text in {0} is not UTF-8 [MQTT-1.5.3-1]")]
    Utf8(Kind),
    /// The null character in text.
    #[error("text in {0} has a null character [MQTT-1.5.3-2]")]
    Null(Kind),
    /// An illegal topic name or filter.
    #[error("bad topic in {kind}")]
    Topic {
        /// Packet it stands in.
        kind: Kind,
        /// What is wrong with it.
        source: TopicError,
    },
    /// QoS 3.
    #[error("{0} asks for QoS 3 [MQTT-3.3.1-4] [MQTT-3.8.3-4] [MQTT-3.1.2-14]")]
    QoS(Kind),
    /// DUP makes no sense where nothing is sent twice.
    #[error("DUP is set on a PUBLISH of QoS 0 [MQTT-3.3.1-2]")]
    Dup,
    /// Not "MQTT".
    #[error("protocol name is not MQTT [MQTT-3.1.2-1]")]
    ProtocolName,
    /// Not 4 or 5; a server says so in a CONNACK before it closes.
    #[error("protocol level {0} is not supported [MQTT-3.1.2-2]")]
    ProtocolLevel(u8),
    /// Bit 0 of the connect flags.
    #[error("reserved connect flag is set [MQTT-3.1.2-3]")]
    ConnectFlag,
    /// Will QoS or will retain without a will.
    #[error("will QoS or will retain is set without a will [MQTT-3.1.2-13] [MQTT-3.1.2-15]")]
    WillFlags,
    /// A password needs a user name.
    #[error("password without a user name [MQTT-3.1.2-22]")]
    PasswordAlone,
    /// Bits 7 to 1 of the acknowledge flags.
    #[error("reserved flags {0:#010b} of CONNACK are set (section 3.2.2.1)")]
    ConnAckFlags(u8),
    /// Codes from 6 up.
    #[error("return code {0} of CONNACK is reserved (section 3.2.2.3)")]
    ConnAckCode(u8),
    /// A refused connection has no session.
    #[error("session present is set on a refusing CONNACK [MQTT-3.2.2-4]")]
    SessionPresent,
    /// SUBSCRIBE, SUBACK or UNSUBSCRIBE about nothing.
    #[error("{0} has an empty list [MQTT-3.8.3-3] [MQTT-3.10.3-2]")]
    EmptyList(Kind),
    /// The upper six bits beside a requested QoS.
    #[error("reserved bits beside a requested QoS are set: {0:#010b} [MQTT-3.8.3-4]")]
    SubscribeBits(u8),
    /// In 3.1.1 not 0, 1, 2 or 0x80; in 5.0 not one of table 3-8.
    #[error("return code {0:#04x} of SUBACK is reserved [MQTT-3.9.3-2]")]
    SubAckCode(u8),

    /// A reason code that is not given out, or not for this packet.
    #[error("reason code {code:#04x} may not stand in {kind} (MQTT 5.0 section 2.4)")]
    Reason {
        /// Packet it stands in.
        kind: Kind,
        /// The byte.
        code: u8,
    },
    /// The property length is malformed, or goes past the end of the packet.
    #[error("property length of {0} is malformed (MQTT 5.0 section 2.2.2.1) [MQTT-1.5.5-1]")]
    PropertyLength(Kind),
    /// A property that is not given out, or not for this packet.
    #[error("property {id:#04x} may not stand in {kind} (MQTT 5.0 section 2.2.2.2)")]
    Property {
        /// Packet it stands in.
        kind: Kind,
        /// Its identifier.
        id: u8,
    },
    /// A property that may come once.
    #[error("property {id:#04x} stands twice in {kind} (MQTT 5.0 section 2.2.2.2)")]
    PropertyTwice {
        /// Packet it stands in.
        kind: Kind,
        /// Its identifier.
        id: u8,
    },
    /// A property that may come more than once comes more often than is taken.
    #[error("property {id:#04x} stands more than {MAX_REPEATED_PROPERTIES} times in {kind}")]
    TooManyProperties {
        /// Packet it stands in.
        kind: Kind,
        /// Its identifier.
        id: u8,
    },
    /// A value that is out of range, such as 0 where that would mean nothing.
    #[error("property {id:#04x} in {kind} has a value that is not allowed (MQTT 5.0 section 3)")]
    PropertyValue {
        /// Packet it stands in.
        kind: Kind,
        /// Its identifier.
        id: u8,
    },
    /// Authentication data, or an AUTH, without an authentication method.
    #[error("{0} has no authentication method (MQTT 5.0 sections 3.1.2.11.10 and 3.15.2.2.2)")]
    AuthMethod(Kind),
    /// No Local on a shared subscription.
    #[error("no local is set on a shared subscription [MQTT-3.8.3-4]")]
    SharedNoLocal,
}

impl DecodeError {
    /// What a side that speaks 5.0 says before it closes the connection (4.13).
    ///
    /// ```
    /// use qproxy_mqtt::codec::{DecodeError, ReasonCode};
    ///
    /// let error = DecodeError::ProtocolLevel(3);
    /// assert_eq!(error.reason(), ReasonCode::UnsupportedProtocolVersion);
    /// ```
    #[must_use]
    pub const fn reason(&self) -> ReasonCode {
        match self {
            Self::TooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::TooManyProperties { .. } => ReasonCode::QuotaExceeded,
            Self::ProtocolName | Self::ProtocolLevel(_) => ReasonCode::UnsupportedProtocolVersion,
            Self::Topic {
                kind: Kind::Subscribe | Kind::Unsubscribe,
                ..
            } => ReasonCode::TopicFilterInvalid,
            Self::Topic { .. } => ReasonCode::TopicNameInvalid,
            Self::EmptyList(_)
            | Self::PasswordAlone
            | Self::PacketId(_)
            | Self::PropertyTwice { .. }
            | Self::PropertyValue { .. }
            | Self::AuthMethod(_)
            | Self::SharedNoLocal => ReasonCode::ProtocolError,
            _ => ReasonCode::MalformedPacket,
        }
    }
}

/// Why a packet cannot be written. Nothing was written then.
///
/// ```
/// use bytes::BytesMut;
/// use qproxy_mqtt::codec::{EncodeError, Packet, Publish, Version, encode};
///
/// let packet = Packet::Publish(Publish {
///     topic: "lamp/+".into(),
///     ..Publish::default()
/// });
/// let mut buf = BytesMut::new();
/// let error = encode(&packet, Version::V311, &mut buf).unwrap_err();
/// assert!(matches!(error, EncodeError::Topic { .. }));
/// assert!(buf.is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A text or a binary field over 65,535 bytes.
    #[error("a field of {kind} has {size} bytes, over 65,535 (section 1.5.3)")]
    FieldTooLong {
        /// Packet it stands in.
        kind: Kind,
        /// Its length.
        size: usize,
    },
    /// Over what remaining length can say.
    #[error("{kind} of {size} bytes is over 268,435,455 (section 2.2.3)")]
    TooLarge {
        /// Packet.
        kind: Kind,
        /// Its remaining length.
        size: usize,
    },
    /// The null character in text.
    #[error("text in {0} has a null character [MQTT-1.5.3-2]")]
    Null(Kind),
    /// An illegal topic name or filter.
    #[error("bad topic in {kind}")]
    Topic {
        /// Packet it stands in.
        kind: Kind,
        /// What is wrong with it.
        source: TopicError,
    },
    /// A packet id where QoS is 0, or none where it is above; or DUP on QoS 0.
    #[error(
        "packet identifier or DUP does not fit the QoS of PUBLISH [MQTT-2.3.1-1] [MQTT-2.3.1-5] [MQTT-3.3.1-2]"
    )]
    PublishId,
    /// A password needs a user name.
    #[error("password without a user name [MQTT-3.1.2-22]")]
    PasswordAlone,
    /// Session present with a refusing code.
    #[error("session present is set on a refusing CONNACK [MQTT-3.2.2-4]")]
    SessionPresent,
    /// SUBSCRIBE, SUBACK or UNSUBSCRIBE about nothing.
    #[error("{0} has an empty list [MQTT-3.8.3-3] [MQTT-3.10.3-2]")]
    EmptyList(Kind),
    /// Authentication data, or an AUTH, without an authentication method.
    #[error("{0} has no authentication method (MQTT 5.0 sections 3.1.2.11.10 and 3.15.2.2.2)")]
    AuthMethod(Kind),
    /// A server that takes QoS 2 says so by leaving the property out (3.2.2.3.4).
    #[error("maximum QoS in {0} can only be 0 or 1")]
    MaxQoS(Kind),
    /// A reason code that is not for this packet.
    #[error("reason code \"{reason}\" may not stand in {kind} (MQTT 5.0 section 2.4)")]
    Reason {
        /// Packet it stands in.
        kind: Kind,
        /// The code.
        reason: ReasonCode,
    },
    /// No Local on a shared subscription.
    #[error("no local is set on a shared subscription [MQTT-3.8.3-4]")]
    SharedNoLocal,
    /// Something that this version of the protocol has no words for.
    #[error("cannot be said in MQTT {0}")]
    Version(Version),
}
