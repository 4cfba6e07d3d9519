//! Packets to bytes.
//!
//! Appends to a buffer that many packets share. A packet is checked before its first byte is written, so an error
//! leaves the buffer as it was. What 3.1.1 has no words for is left out there: properties, reasons of
//! acknowledgements, subscription options but the QoS. A program that asked for them has to be told before.

mod check;
mod write;

use bytes::{BufMut, BytesMut};

use super::properties::variable_size;
use super::{EncodeError, Packet, Publish, Version};

/// Appends `packet` to `buf`. A CONNECT is written in the version that it names.
///
/// ```
/// use bytes::BytesMut;
/// use qproxy_mqtt::codec::{EncodeError, Packet, Publish, Version, encode, encoded_len};
///
/// let packet = Packet::Publish(Publish {
///     topic: "a".into(),
///     payload: "on".into(),
///     ..Publish::default()
/// });
/// let mut buf = BytesMut::new();
/// encode(&packet, Version::V311, &mut buf)?;
/// assert_eq!(&buf[..], b"\x30\x05\x00\x01aon");
/// assert_eq!(encoded_len(&packet, Version::V311)?, buf.len());
/// # Ok::<(), EncodeError>(())
/// ```
///
/// # Errors
/// The packet cannot be expressed or is not allowed; nothing was appended.
pub fn encode(packet: &Packet, version: Version, buf: &mut BytesMut) -> Result<(), EncodeError> {
    let remaining = check::packet(packet, version)?;
    match packet {
        Packet::Connect(connect) => write::connect(connect, remaining, buf),
        Packet::ConnAck(connack) => write::connack(connack, version, remaining, buf),
        Packet::Publish(publish) => {
            write::publish_head(publish, version, remaining, buf);
            buf.put_slice(&publish.payload);
        }
        Packet::PubAck(ack) => write::ack(0x40, ack, remaining, buf),
        Packet::PubRec(ack) => write::ack(0x50, ack, remaining, buf),
        Packet::PubRel(ack) => write::ack(0x62, ack, remaining, buf),
        Packet::PubComp(ack) => write::ack(0x70, ack, remaining, buf),
        Packet::Subscribe(subscribe) => write::subscribe(subscribe, version, remaining, buf),
        Packet::SubAck(suback) => write::suback(suback, version, remaining, buf),
        Packet::Unsubscribe(it) => write::unsubscribe(it, version, remaining, buf),
        Packet::UnsubAck(unsuback) => write::unsuback(unsuback, version, remaining, buf),
        Packet::PingReq => buf.put_slice(&[0xc0, 0]),
        Packet::PingResp => buf.put_slice(&[0xd0, 0]),
        Packet::Disconnect(disconnect) => write::disconnect(disconnect, remaining, buf),
        Packet::Auth(auth) => write::auth(auth, remaining, buf),
    }
    Ok(())
}

/// Appends everything of a PUBLISH but its payload, which the caller has to write next, from where it lies.
///
/// ```
/// use bytes::BytesMut;
/// use qproxy_mqtt::codec::{EncodeError, Publish, Version, encode_publish_head};
///
/// let publish = Publish {
///     topic: "a".into(),
///     payload: "on".into(),
///     ..Publish::default()
/// };
/// let mut head = BytesMut::new();
/// encode_publish_head(&publish, Version::V311, &mut head)?;
/// assert_eq!(&head[..], b"\x30\x05\x00\x01a", "the payload is counted, and not there");
/// # Ok::<(), EncodeError>(())
/// ```
///
/// # Errors
/// As [`encode`].
pub fn encode_publish_head(
    publish: &Publish,
    version: Version,
    buf: &mut BytesMut,
) -> Result<(), EncodeError> {
    let remaining = check::publish(publish, version)?;
    write::publish_head(publish, version, remaining, buf);
    Ok(())
}

/// The size of `packet` on the wire in bytes, fixed header included.
///
/// ```
/// use qproxy_mqtt::codec::{Packet, Version, encoded_len};
///
/// assert_eq!(encoded_len(&Packet::PingReq, Version::V5), Ok(2));
/// ```
///
/// # Errors
/// As [`encode`].
pub fn encoded_len(packet: &Packet, version: Version) -> Result<usize, EncodeError> {
    let remaining = check::packet(packet, version)?;
    Ok(1 + variable_size(remaining) + remaining)
}
