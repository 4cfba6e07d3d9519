//! Packets to bytes.
//!
//! Appends to a buffer that many packets share. A packet is checked before its first byte is written, so an error
//! leaves the buffer as it was.

use bytes::{BufMut, BytesMut};

use super::{
    ConnAck, Connect, EncodeError, Kind, MAX_REMAINING_LENGTH, Packet, PacketId, Publish, QoS,
    ReasonCode, SubAck, Subscribe, Unsubscribe, Version,
};
use crate::topic::{self, TopicError};

/// Appends `packet` to `buf`.
///
/// # Errors
/// The packet cannot be expressed or is not allowed; nothing was appended.
pub fn encode(packet: &Packet, version: Version, buf: &mut BytesMut) -> Result<(), EncodeError> {
    let remaining = check(packet, version)?;
    match packet {
        Packet::Connect(connect) => write_connect(connect, remaining, buf),
        Packet::ConnAck(connack) => write_connack(connack, buf),
        Packet::Publish(publish) => {
            write_publish_head(publish, remaining, buf);
            buf.put_slice(&publish.payload);
        }
        Packet::PubAck(ack) => write_ack(0x40, ack.id, buf),
        Packet::PubRec(ack) => write_ack(0x50, ack.id, buf),
        Packet::PubRel(ack) => write_ack(0x62, ack.id, buf),
        Packet::PubComp(ack) => write_ack(0x70, ack.id, buf),
        Packet::Subscribe(subscribe) => write_subscribe(subscribe, remaining, buf),
        Packet::SubAck(suback) => write_suback(suback, remaining, buf),
        Packet::Unsubscribe(unsubscribe) => write_unsubscribe(unsubscribe, remaining, buf),
        Packet::UnsubAck(ack) => write_ack(0xb0, ack.id, buf),
        Packet::PingReq => buf.put_slice(&[0xc0, 0]),
        Packet::PingResp => buf.put_slice(&[0xd0, 0]),
        Packet::Disconnect(_) => buf.put_slice(&[0xe0, 0]),
        Packet::Auth(_) => unreachable!("check refuses it"),
    }
    Ok(())
}

/// Appends everything of a PUBLISH but its payload, which the caller has to write next, from where it lies.
///
/// # Errors
/// As [`encode`].
pub fn encode_publish_head(
    publish: &Publish,
    version: Version,
    buf: &mut BytesMut,
) -> Result<(), EncodeError> {
    spoken(version)?;
    let remaining = check_publish(publish)?;
    write_publish_head(publish, remaining, buf);
    Ok(())
}

/// The size of `packet` on the wire in bytes, fixed header included.
///
/// # Errors
/// As [`encode`].
pub fn encoded_len(packet: &Packet, version: Version) -> Result<usize, EncodeError> {
    let remaining = check(packet, version)?;
    Ok(1 + length_bytes(remaining) + remaining)
}

const fn length_bytes(remaining: usize) -> usize {
    match remaining {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

fn spoken(version: Version) -> Result<(), EncodeError> {
    match version {
        Version::V311 => Ok(()),
        Version::V5 => Err(EncodeError::Version(version)),
    }
}

/// Checks the packet and computes its remaining length.
fn check(packet: &Packet, version: Version) -> Result<usize, EncodeError> {
    spoken(version)?;
    match packet {
        Packet::Connect(connect) => check_connect(connect),
        Packet::ConnAck(connack) => {
            if connack.session_present && connack.code != ReasonCode::Success {
                return Err(EncodeError::SessionPresent);
            }
            Ok(2)
        }
        Packet::Publish(publish) => check_publish(publish),
        Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::UnsubAck(_) => Ok(2),
        Packet::Subscribe(subscribe) => {
            let filters = subscribe.filters.iter();
            check_filters(
                Kind::Subscribe,
                filters.map(|wanted| (wanted.filter.as_str(), 1)),
            )
        }
        Packet::Unsubscribe(unsubscribe) => {
            let filters = unsubscribe.filters.iter();
            check_filters(
                Kind::Unsubscribe,
                filters.map(|filter| (filter.as_str(), 0)),
            )
        }
        Packet::SubAck(suback) if suback.codes.is_empty() => {
            Err(EncodeError::EmptyList(Kind::SubAck))
        }
        Packet::SubAck(suback) => check_total(Kind::SubAck, 2 + suback.codes.len()),
        Packet::PingReq | Packet::PingResp | Packet::Disconnect(_) => Ok(0),
        Packet::Auth(_) => Err(EncodeError::Version(version)),
    }
}

fn check_total(kind: Kind, size: usize) -> Result<usize, EncodeError> {
    if size > MAX_REMAINING_LENGTH {
        return Err(EncodeError::TooLarge { kind, size });
    }
    Ok(size)
}

/// The size of a field with its two-byte length prefix.
fn check_field(kind: Kind, bytes: &[u8]) -> Result<usize, EncodeError> {
    let size = bytes.len();
    if size > usize::from(u16::MAX) {
        return Err(EncodeError::FieldTooLong { kind, size });
    }
    Ok(2 + size)
}

fn check_text(kind: Kind, text: &[u8]) -> Result<usize, EncodeError> {
    if text.contains(&0) {
        return Err(EncodeError::Null(kind));
    }
    check_field(kind, text)
}

fn check_topic(kind: Kind, result: Result<(), TopicError>) -> Result<(), EncodeError> {
    result.map_err(|source| EncodeError::Topic { kind, source })
}

fn check_connect(connect: &Connect) -> Result<usize, EncodeError> {
    let kind = Kind::Connect;
    let mut size = 10 + check_text(kind, connect.client_id.as_bytes())?;
    if let Some(will) = &connect.will {
        check_topic(kind, topic::validate_topic(&will.topic))?;
        size += 2 + will.topic.len() + check_field(kind, &will.payload)?;
    }
    match (&connect.username, &connect.password) {
        (None, Some(_)) => return Err(EncodeError::PasswordAlone),
        (username, password) => {
            if let Some(username) = username {
                size += check_text(kind, username.as_bytes())?;
            }
            if let Some(password) = password {
                size += check_field(kind, password)?;
            }
        }
    }
    Ok(size)
}

fn check_publish(publish: &Publish) -> Result<usize, EncodeError> {
    let acknowledged = publish.qos != QoS::AtMostOnce;
    if publish.id.is_some() != acknowledged || (publish.dup && !acknowledged) {
        return Err(EncodeError::PublishId);
    }
    check_topic(Kind::Publish, topic::validate_topic(&publish.topic))?;
    let head = 2 + publish.topic.as_bytes().len() + if acknowledged { 2 } else { 0 };
    check_total(Kind::Publish, head + publish.payload.len())
}

fn check_filters<'a>(
    kind: Kind,
    filters: impl Iterator<Item = (&'a str, usize)>,
) -> Result<usize, EncodeError> {
    let mut size = 2;
    for (filter, extra) in filters {
        check_topic(kind, topic::validate_filter(filter))?;
        size += 2 + filter.len() + extra;
    }
    if size == 2 {
        return Err(EncodeError::EmptyList(kind));
    }
    check_total(kind, size)
}

fn write_header(first: u8, mut remaining: usize, buf: &mut BytesMut) {
    buf.put_u8(first);
    loop {
        let low = (remaining & 0x7f) as u8;
        remaining >>= 7;
        if remaining == 0 {
            buf.put_u8(low);
            return;
        }
        buf.put_u8(low | 0x80);
    }
}

/// `check` has seen that it fits.
fn write_field(bytes: &[u8], buf: &mut BytesMut) {
    let length = u16::try_from(bytes.len()).expect("checked before the first byte is written");
    buf.put_u16(length);
    buf.put_slice(bytes);
}

fn write_ack(first: u8, id: PacketId, buf: &mut BytesMut) {
    let [high, low] = id.get().to_be_bytes();
    buf.put_slice(&[first, 2, high, low]);
}

fn write_connect(connect: &Connect, remaining: usize, buf: &mut BytesMut) {
    let mut flags = u8::from(connect.clean_session) << 1;
    if let Some(will) = &connect.will {
        flags |= 0b100 | will.qos.as_u8() << 3 | u8::from(will.retain) << 5;
    }
    flags |= u8::from(connect.password.is_some()) << 6;
    flags |= u8::from(connect.username.is_some()) << 7;
    write_header(0x10, remaining, buf);
    write_field(b"MQTT", buf);
    buf.put_u8(4);
    buf.put_u8(flags);
    buf.put_u16(connect.keep_alive);
    write_field(connect.client_id.as_bytes(), buf);
    if let Some(will) = &connect.will {
        write_field(will.topic.as_bytes(), buf);
        write_field(&will.payload, buf);
    }
    if let Some(username) = &connect.username {
        write_field(username.as_bytes(), buf);
    }
    if let Some(password) = &connect.password {
        write_field(password, buf);
    }
}

fn write_connack(connack: &ConnAck, buf: &mut BytesMut) {
    buf.put_slice(&[
        0x20,
        2,
        u8::from(connack.session_present),
        connack.code.as_connect_return(),
    ]);
}

fn write_publish_head(publish: &Publish, remaining: usize, buf: &mut BytesMut) {
    let flags = u8::from(publish.dup) << 3 | publish.qos.as_u8() << 1 | u8::from(publish.retain);
    write_header(0x30 | flags, remaining, buf);
    write_field(publish.topic.as_bytes(), buf);
    if let Some(id) = publish.id {
        buf.put_u16(id.get());
    }
}

fn write_subscribe(subscribe: &Subscribe, remaining: usize, buf: &mut BytesMut) {
    write_header(0x82, remaining, buf);
    buf.put_u16(subscribe.id.get());
    for wanted in &subscribe.filters {
        write_field(wanted.filter.as_bytes(), buf);
        buf.put_u8(wanted.qos.as_u8());
    }
}

fn write_suback(suback: &SubAck, remaining: usize, buf: &mut BytesMut) {
    write_header(0x90, remaining, buf);
    buf.put_u16(suback.id.get());
    buf.extend(suback.codes.iter().map(|code| code.as_subscribe_return()));
}

fn write_unsubscribe(unsubscribe: &Unsubscribe, remaining: usize, buf: &mut BytesMut) {
    write_header(0xa2, remaining, buf);
    buf.put_u16(unsubscribe.id.get());
    for filter in &unsubscribe.filters {
        write_field(filter.as_bytes(), buf);
    }
}
