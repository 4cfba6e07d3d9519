//! Bytes to packets, strictly.
//!
//! Two steps: the fixed header is judged as soon as it is there (type, flags, size limit, lengths that cannot be),
//! then the body once it has arrived whole. Nothing is consumed before that, and nothing is reserved for what is
//! only announced. A remaining length written with more bytes than needed is taken: 3.1.1 does not forbid it.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    Ack, ConnAck, Connect, DecodeError, Disconnect, Kind, Packet, PacketId, Publish, QoS,
    ReasonCode, SubAck, Subscribe, Subscription, Text, UnsubAck, Unsubscribe, Version, Will,
};
use crate::topic;

/// Takes the next packet from the front of `buf`; `None` while it is not there as a whole.
///
/// `max_packet_size` limits the whole packet with its fixed header, in bytes. `version` is what CONNECT agreed on;
/// a CONNECT itself is decoded in the version that it names.
///
/// # Errors
/// The bytes break the protocol; the connection has to be closed and `buf` thrown away.
pub fn decode(
    buf: &mut BytesMut,
    max_packet_size: usize,
    version: Version,
) -> Result<Option<Packet>, DecodeError> {
    if version == Version::V5 {
        return Err(DecodeError::ProtocolLevel(version.level()));
    }
    let Some(header) = Header::peek(buf, max_packet_size)? else {
        return Ok(None);
    };
    if buf.len() < header.size() {
        return Ok(None);
    }
    let packet = match header.kind {
        Kind::PingReq => Packet::PingReq,
        Kind::PingResp => Packet::PingResp,
        Kind::Disconnect => Packet::Disconnect(Disconnect::default()),
        Kind::PubAck => Packet::PubAck(header.ack(buf)?),
        Kind::PubRec => Packet::PubRec(header.ack(buf)?),
        Kind::PubRel => Packet::PubRel(header.ack(buf)?),
        Kind::PubComp => Packet::PubComp(header.ack(buf)?),
        Kind::UnsubAck => Packet::UnsubAck(UnsubAck {
            id: header.ack(buf)?.id,
            codes: Vec::new(),
            properties: None,
        }),
        Kind::Auth => return Err(DecodeError::PacketType(15)),
        Kind::ConnAck => Packet::ConnAck(connack(buf[header.length], buf[header.length + 1])?),
        kind @ (Kind::Connect
        | Kind::Publish
        | Kind::Subscribe
        | Kind::SubAck
        | Kind::Unsubscribe) => {
            let mut bytes = buf.split_to(header.size()).freeze();
            bytes.advance(header.length);
            let body = Body { kind, bytes };
            return Ok(Some(match kind {
                Kind::Connect => Packet::Connect(Box::new(connect(body)?)),
                Kind::Subscribe => Packet::Subscribe(subscribe(body)?),
                Kind::SubAck => Packet::SubAck(suback(body)?),
                Kind::Unsubscribe => Packet::Unsubscribe(unsubscribe(body)?),
                _ => Packet::Publish(publish(body, header.flags)?),
            }));
        }
    };
    buf.advance(header.size());
    Ok(Some(packet))
}

/// The fixed header (section 2.2), judged.
struct Header {
    kind: Kind,
    flags: u8,
    /// Of the header itself: 2 to 5.
    length: usize,
    /// Of what follows.
    remaining: usize,
}

impl Header {
    fn peek(buf: &[u8], max_packet_size: usize) -> Result<Option<Self>, DecodeError> {
        let Some(&first) = buf.first() else {
            return Ok(None);
        };
        let flags = first & 0x0f;
        let kind = kind(first >> 4)?;
        check_flags(kind, flags)?;
        let mut remaining = 0;
        for (index, byte) in (0_usize..).zip(&buf[1..]).take(4) {
            remaining |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                let header = Self {
                    kind,
                    flags,
                    length: index + 2,
                    remaining,
                };
                header.check_size(max_packet_size)?;
                return Ok(Some(header));
            }
        }
        if buf.len() > 4 {
            Err(DecodeError::RemainingLength)
        } else {
            Ok(None)
        }
    }

    /// Of the whole packet.
    fn size(&self) -> usize {
        self.length + self.remaining
    }

    fn check_size(&self, limit: usize) -> Result<(), DecodeError> {
        let kind = self.kind;
        if self.size() > limit {
            return Err(DecodeError::TooLarge {
                kind,
                size: self.size(),
                limit,
            });
        }
        let possible = match kind {
            Kind::PingReq | Kind::PingResp | Kind::Disconnect | Kind::Auth => self.remaining == 0,
            Kind::ConnAck
            | Kind::PubAck
            | Kind::PubRec
            | Kind::PubRel
            | Kind::PubComp
            | Kind::UnsubAck => self.remaining == 2,
            Kind::Connect | Kind::Publish | Kind::Subscribe | Kind::SubAck | Kind::Unsubscribe => {
                self.remaining >= 2
            }
        };
        if possible {
            Ok(())
        } else {
            Err(DecodeError::Length {
                kind,
                found: self.remaining,
            })
        }
    }

    /// The two bytes of a packet that is only an identifier, without splitting the buffer.
    fn ack(&self, buf: &[u8]) -> Result<Ack, DecodeError> {
        let id = u16::from_be_bytes([buf[self.length], buf[self.length + 1]]);
        PacketId::new(id)
            .map(Ack::from)
            .ok_or(DecodeError::PacketId(self.kind))
    }
}

fn kind(number: u8) -> Result<Kind, DecodeError> {
    Ok(match number {
        1 => Kind::Connect,
        2 => Kind::ConnAck,
        3 => Kind::Publish,
        4 => Kind::PubAck,
        5 => Kind::PubRec,
        6 => Kind::PubRel,
        7 => Kind::PubComp,
        8 => Kind::Subscribe,
        9 => Kind::SubAck,
        10 => Kind::Unsubscribe,
        11 => Kind::UnsubAck,
        12 => Kind::PingReq,
        13 => Kind::PingResp,
        14 => Kind::Disconnect,
        other => return Err(DecodeError::PacketType(other)),
    })
}

fn check_flags(kind: Kind, flags: u8) -> Result<(), DecodeError> {
    let prescribed = match kind {
        Kind::Publish => return check_publish_flags(flags),
        Kind::PubRel | Kind::Subscribe | Kind::Unsubscribe => 0b0010,
        _ => 0,
    };
    if flags == prescribed {
        Ok(())
    } else {
        Err(DecodeError::Flags { kind, flags })
    }
}

fn check_publish_flags(flags: u8) -> Result<(), DecodeError> {
    match QoS::from_u8(flags >> 1 & 0b11) {
        None => Err(DecodeError::QoS(Kind::Publish)),
        Some(QoS::AtMostOnce) if flags & 0b1000 != 0 => Err(DecodeError::Dup),
        Some(_) => Ok(()),
    }
}

/// What follows the fixed header; each look takes from its front.
struct Body {
    kind: Kind,
    bytes: Bytes,
}

impl Body {
    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.bytes
            .try_get_u8()
            .map_err(|_| DecodeError::Truncated(self.kind))
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.bytes
            .try_get_u16()
            .map_err(|_| DecodeError::Truncated(self.kind))
    }

    fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or(DecodeError::PacketId(self.kind))
    }

    fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let length = usize::from(self.u16()?);
        if length > self.bytes.len() {
            return Err(DecodeError::Truncated(self.kind));
        }
        Ok(self.bytes.split_to(length))
    }

    fn text(&mut self) -> Result<Text, DecodeError> {
        let bytes = self.binary()?;
        if bytes.contains(&0) {
            return Err(DecodeError::Null(self.kind));
        }
        Text::from_utf8(bytes).ok_or(DecodeError::Utf8(self.kind))
    }

    fn topic(&mut self) -> Result<Text, DecodeError> {
        let text = self.text()?;
        let kind = self.kind;
        topic::validate_topic(&text).map_err(|source| DecodeError::Topic { kind, source })?;
        Ok(text)
    }

    fn filter(&mut self) -> Result<Text, DecodeError> {
        let text = self.text()?;
        let kind = self.kind;
        topic::validate_filter(&text).map_err(|source| DecodeError::Topic { kind, source })?;
        Ok(text)
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn finish(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(DecodeError::Trailing {
            kind: self.kind,
            count: self.bytes.len(),
        })
    }
}

fn connect(mut body: Body) -> Result<Connect, DecodeError> {
    if body.binary()?.as_ref() != b"MQTT" {
        return Err(DecodeError::ProtocolName);
    }
    let level = body.u8()?;
    if level != 4 {
        return Err(DecodeError::ProtocolLevel(level));
    }
    let flags = ConnectFlags::parse(body.u8()?)?;
    let keep_alive = body.u16()?;
    let client_id = body.text()?;
    let will = match flags.will {
        None => None,
        Some((qos, retain)) => {
            let topic = body.topic()?;
            Some(Will {
                topic,
                payload: body.binary()?,
                qos,
                retain,
                properties: None,
            })
        }
    };
    let username = flags.username.then(|| body.text()).transpose()?;
    let password = flags.password.then(|| body.binary()).transpose()?;
    body.finish()?;
    let clean_session = flags.clean_session;
    Ok(Connect {
        client_id,
        clean_session,
        keep_alive,
        will,
        username,
        password,
        version: Version::V311,
        properties: None,
    })
}

/// The byte of section 3.1.2.3, checked against itself.
struct ConnectFlags {
    clean_session: bool,
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

impl ConnectFlags {
    fn parse(byte: u8) -> Result<Self, DecodeError> {
        let bit = |index: u8| byte >> index & 1 == 1;
        if bit(0) {
            return Err(DecodeError::ConnectFlag);
        }
        let qos = QoS::from_u8(byte >> 3 & 0b11);
        let will = match (bit(2), qos, bit(5)) {
            (false, Some(QoS::AtMostOnce), false) => None,
            (false, _, _) => return Err(DecodeError::WillFlags),
            (true, None, _) => return Err(DecodeError::QoS(Kind::Connect)),
            (true, Some(qos), retain) => Some((qos, retain)),
        };
        let (username, password) = (bit(7), bit(6));
        if password && !username {
            return Err(DecodeError::PasswordAlone);
        }
        Ok(Self {
            clean_session: bit(1),
            will,
            username,
            password,
        })
    }
}

fn connack(flags: u8, code: u8) -> Result<ConnAck, DecodeError> {
    if flags > 1 {
        return Err(DecodeError::ConnAckFlags(flags));
    }
    let session_present = flags == 1;
    let code = ReasonCode::from_connect_return(code).ok_or(DecodeError::ConnAckCode(code))?;
    if session_present && code != ReasonCode::Success {
        return Err(DecodeError::SessionPresent);
    }
    Ok(ConnAck {
        session_present,
        code,
        properties: None,
    })
}

fn publish(mut body: Body, flags: u8) -> Result<Publish, DecodeError> {
    let qos = QoS::from_u8(flags >> 1 & 0b11).ok_or(DecodeError::QoS(Kind::Publish))?;
    let topic = body.topic()?;
    let id = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Some(body.packet_id()?),
    };
    let (dup, retain) = (flags & 0b1000 != 0, flags & 1 != 0);
    Ok(Publish {
        dup,
        qos,
        retain,
        topic,
        id,
        payload: body.bytes,
        properties: None,
    })
}

fn subscribe(mut body: Body) -> Result<Subscribe, DecodeError> {
    let id = body.packet_id()?;
    let mut filters = Vec::new();
    while !body.is_empty() {
        let filter = body.filter()?;
        let options = body.u8()?;
        if options & !0b11 != 0 {
            return Err(DecodeError::SubscribeBits(options));
        }
        let qos = QoS::from_u8(options).ok_or(DecodeError::QoS(Kind::Subscribe))?;
        filters.push(Subscription::new(filter, qos));
    }
    if filters.is_empty() {
        return Err(DecodeError::EmptyList(Kind::Subscribe));
    }
    Ok(Subscribe {
        id,
        filters,
        properties: None,
    })
}

fn suback(mut body: Body) -> Result<SubAck, DecodeError> {
    let id = body.packet_id()?;
    if body.is_empty() {
        return Err(DecodeError::EmptyList(Kind::SubAck));
    }
    let code =
        |&byte: &u8| ReasonCode::from_subscribe_return(byte).ok_or(DecodeError::SubAckCode(byte));
    let codes = body.bytes.iter().map(code).collect::<Result<_, _>>()?;
    Ok(SubAck {
        id,
        codes,
        properties: None,
    })
}

fn unsubscribe(mut body: Body) -> Result<Unsubscribe, DecodeError> {
    let id = body.packet_id()?;
    let mut filters = Vec::new();
    while !body.is_empty() {
        filters.push(body.filter()?);
    }
    if filters.is_empty() {
        return Err(DecodeError::EmptyList(Kind::Unsubscribe));
    }
    Ok(Unsubscribe {
        id,
        filters,
        user_properties: Vec::new(),
    })
}
