//! How changes stand in the journal: length and CRC-32 of what follows, then a byte for the kind, then its parts. A
//! publish stands there as the packet that MQTT 5.0 has for it: all of 3.1.1 has a place in that.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, BytesMut};

use crate::codec::{
    self, EncodeError, MAX_REMAINING_LENGTH, Packet, PacketId, Publish, QoS, Version,
};

use super::Change;

/// Length and checksum, in bytes.
pub(super) const FRAME: usize = 8;
/// No change takes more, in bytes.
pub(super) const MAX_CHANGE: usize = MAX_REMAINING_LENGTH + 64;
/// Stands for the id that a publish does not have yet: MQTT wants one there.
const NO_ID: PacketId = PacketId::MIN;

pub(super) fn encode(change: &Change, buf: &mut BytesMut) -> Result<(), EncodeError> {
    let start = buf.len();
    buf.put_bytes(0, FRAME);
    match change {
        Change::Accepted {
            number,
            publish,
            expires,
        } => {
            buf.put_u8(if expires.is_some() { 9 } else { 1 });
            buf.put_u64_le(*number);
            if let Some(expires) = expires {
                buf.put_u64_le(milliseconds(*expires));
            }
            let mut publish = publish.clone();
            publish.dup = false;
            publish.id = (publish.qos != QoS::AtMostOnce).then_some(NO_ID);
            if let Err(error) = codec::encode(&Packet::Publish(publish), Version::V5, buf) {
                buf.truncate(start);
                return Err(error);
            }
        }
        Change::Withdrawn { number } => {
            buf.put_u8(2);
            buf.put_u64_le(*number);
        }
        Change::Sent { number, id } => {
            buf.put_u8(3);
            buf.put_u64_le(*number);
            buf.put_u16_le(id.get());
        }
        Change::Released { id } => put_id(4, *id, buf),
        Change::Completed { id } => put_id(5, *id, buf),
        Change::Received { id } => put_id(6, *id, buf),
        Change::Forgotten { id } => put_id(7, *id, buf),
        Change::AllForgotten => buf.put_u8(8),
    }
    seal(&mut buf[start..]);
    Ok(())
}

/// What a publish takes as the change that accepts it, in bytes.
pub(super) fn size(publish: &Publish, expires: Option<SystemTime>) -> u64 {
    let mut publish = publish.clone();
    publish.id = (publish.qos != QoS::AtMostOnce).then_some(NO_ID);
    // What cannot be written is in no journal.
    let packet = codec::encoded_len(&Packet::Publish(publish), Version::V5).unwrap_or(0);
    let expires = if expires.is_some() { 8 } else { 0 };
    (FRAME + 1 + 8 + expires + packet) as u64
}

/// Since 1970; what is over before that is over.
fn milliseconds(expires: SystemTime) -> u64 {
    let since = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `None` for a time that the system cannot say.
fn expiry(milliseconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
}

fn put_id(kind: u8, id: PacketId, buf: &mut BytesMut) {
    buf.put_u8(kind);
    buf.put_u16_le(id.get());
}

/// Writes length and checksum before the body.
pub(super) fn seal(framed: &mut [u8]) {
    let (frame, body) = framed.split_at_mut(FRAME);
    let length = u32::try_from(body.len()).expect("a change is smaller than a packet can be");
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
}

/// What `seal` wrote: the length of the body, and its checksum.
pub(super) fn unseal(frame: [u8; FRAME]) -> (usize, u32) {
    let [a, b, c, d, e, f, g, h] = frame;
    let length = u32::from_le_bytes([a, b, c, d]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    (length, u32::from_le_bytes([e, f, g, h]))
}

/// `None` for what no version of this wrote.
pub(super) fn decode(body: &[u8]) -> Option<Change> {
    let (&kind, mut rest) = body.split_first()?;
    let change = match kind {
        1 | 9 => {
            let number = rest.try_get_u64_le().ok()?;
            let expires = match kind {
                9 => Some(expiry(rest.try_get_u64_le().ok()?)?),
                _ => None,
            };
            let mut packet = BytesMut::from(rest);
            rest = &[];
            let limit = MAX_REMAINING_LENGTH + 5;
            let Ok(Some(Packet::Publish(mut publish))) =
                codec::decode(&mut packet, limit, Version::V5)
            else {
                return None;
            };
            if !packet.is_empty() {
                return None;
            }
            publish.id = None;
            Change::Accepted {
                number,
                publish,
                expires,
            }
        }
        2 => Change::Withdrawn {
            number: rest.try_get_u64_le().ok()?,
        },
        3 => Change::Sent {
            number: rest.try_get_u64_le().ok()?,
            id: id(&mut rest)?,
        },
        4 => Change::Released { id: id(&mut rest)? },
        5 => Change::Completed { id: id(&mut rest)? },
        6 => Change::Received { id: id(&mut rest)? },
        7 => Change::Forgotten { id: id(&mut rest)? },
        8 => Change::AllForgotten,
        _ => return None,
    };
    rest.is_empty().then_some(change)
}

fn id(rest: &mut &[u8]) -> Option<PacketId> {
    PacketId::new(rest.try_get_u16_le().ok()?)
}
