//! Bytes to packets, strictly.
//!
//! Two steps: the fixed header is judged as soon as it is there (type, flags, size limit, lengths that cannot be),
//! then the body once it has arrived whole. Nothing is consumed before that, and nothing is reserved for what is
//! only announced. A remaining length written with more bytes than needed is taken in 3.1.1, which does not forbid it.
//!
//! The versions share the order of the fields; in 5.0 properties stand between them.

mod body;
mod connect;
mod fields;

use bytes::{Buf, BytesMut};

use super::{Ack, DecodeError, Disconnect, Kind, Packet, PacketId, QoS, Version};

pub(super) use body::Body;

/// Takes the next packet from the front of `buf`; `None` while it is not there as a whole.
///
/// `max_packet_size` limits the whole packet with its fixed header, in bytes. `version` is what CONNECT agreed on;
/// a CONNECT itself is decoded in the version that it names.
///
/// ```
/// use bytes::BytesMut;
/// use qproxy_mqtt::codec::{DecodeError, Packet, Version, decode};
///
/// let mut buf = BytesMut::from(&b"\xd0\x00\x40\x02\x00"[..]);
/// assert_eq!(decode(&mut buf, 1024, Version::V311)?, Some(Packet::PingResp));
/// assert_eq!(decode(&mut buf, 1024, Version::V311)?, None, "a byte of PUBACK is missing");
/// assert_eq!(buf.len(), 3);
/// # Ok::<(), DecodeError>(())
/// ```
///
/// # Errors
/// The bytes break the protocol; the connection has to be closed and `buf` thrown away.
pub fn decode(
    buf: &mut BytesMut,
    max_packet_size: usize,
    version: Version,
) -> Result<Option<Packet>, DecodeError> {
    let Some(header) = Header::peek(buf, max_packet_size, version)? else {
        return Ok(None);
    };
    if buf.len() < header.size() {
        return Ok(None);
    }
    let packet = match header.kind {
        Kind::PingReq => Packet::PingReq,
        Kind::PingResp => Packet::PingResp,
        Kind::Disconnect if header.remaining == 0 => Packet::Disconnect(Disconnect::default()),
        // Most acknowledgements are no more than an identifier: no need to split the buffer for them.
        Kind::PubAck if header.remaining == 2 => Packet::PubAck(header.ack(buf)?),
        Kind::PubRec if header.remaining == 2 => Packet::PubRec(header.ack(buf)?),
        Kind::PubRel if header.remaining == 2 => Packet::PubRel(header.ack(buf)?),
        Kind::PubComp if header.remaining == 2 => Packet::PubComp(header.ack(buf)?),
        kind => {
            let mut bytes = buf.split_to(header.size()).freeze();
            bytes.advance(header.length);
            return fields::packet(Body { kind, bytes }, &header, version).map(Some);
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
    /// Whether the remaining length is written as short as it can be, which 5.0 asks for [MQTT-1.5.5-1].
    shortest: bool,
}

impl Header {
    fn peek(
        buf: &[u8],
        max_packet_size: usize,
        version: Version,
    ) -> Result<Option<Self>, DecodeError> {
        let Some(&first) = buf.first() else {
            return Ok(None);
        };
        let flags = first & 0x0f;
        let kind = kind(first >> 4, version)?;
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
                    shortest: index == 0 || *byte != 0,
                };
                header.check_size(max_packet_size, version)?;
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

    fn check_size(&self, limit: usize, version: Version) -> Result<(), DecodeError> {
        let kind = self.kind;
        if version == Version::V5 && !self.shortest {
            return Err(DecodeError::RemainingLength);
        }
        if self.size() > limit {
            return Err(DecodeError::TooLarge {
                kind,
                size: self.size(),
                limit,
            });
        }
        let possible = match (kind, version) {
            (Kind::PingReq | Kind::PingResp, _) | (Kind::Disconnect, Version::V311) => {
                self.remaining == 0
            }
            (Kind::Disconnect | Kind::Auth, _) => true,
            (
                Kind::ConnAck
                | Kind::PubAck
                | Kind::PubRec
                | Kind::PubRel
                | Kind::PubComp
                | Kind::UnsubAck,
                Version::V311,
            ) => self.remaining == 2,
            _ => self.remaining >= 2,
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

fn kind(number: u8, version: Version) -> Result<Kind, DecodeError> {
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
        15 if version == Version::V5 => Kind::Auth,
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
