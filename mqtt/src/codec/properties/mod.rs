//! MQTT 5.0 properties, both ways (section 2.2.2): a length, then an identifier and a value each.
//!
//! Each packet's list of what may stand in it is one table, from which both reading and writing are made, so that
//! the two cannot drift apart. What is absent costs nothing: a packet without properties has no box for them.

mod values;

use bytes::{BufMut, BytesMut};

use super::decode::Body;
use super::packet::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, WillProperties,
};
use super::{DecodeError, EncodeError, Kind, MAX_REMAINING_LENGTH, UserProperty};

pub(super) use values::{check_field, check_text, write_field};

/// How often one property may come in a packet that is read, of those that may come more than once. Five bytes of a peer's
/// become a pair of texts that take more than ten times as much here: without a bound a packet of 16 MiB takes 200.
///
/// ```
/// use bytes::BytesMut;
/// use qproxy_mqtt::codec::{
///     DecodeError, MAX_REPEATED_PROPERTIES, Packet, Publish, PublishProperties, Version, decode, encode,
/// };
///
/// let pair = ("a".into(), "b".into());
/// let properties = PublishProperties {
///     user_properties: vec![pair; MAX_REPEATED_PROPERTIES + 1],
///     ..PublishProperties::default()
/// };
/// let publish = Publish {
///     topic: "lamp/1".into(),
///     properties: Some(Box::new(properties)),
///     ..Publish::default()
/// };
/// let mut buf = BytesMut::new();
/// encode(&Packet::Publish(publish), Version::V5, &mut buf).unwrap();
/// let error = decode(&mut buf, 1 << 20, Version::V5).unwrap_err();
/// assert!(matches!(error, DecodeError::TooManyProperties { .. }));
/// ```
pub const MAX_REPEATED_PROPERTIES: usize = 10_000;

/// The properties of one kind of packet.
pub(super) trait Block: Default {
    /// Takes one property; `false` where it may not stand here.
    fn take(&mut self, id: u8, body: &mut Body) -> Result<bool, DecodeError>;

    /// Calls `each` with every property that is there.
    fn each(&self, each: &mut dyn FnMut(u8, &dyn Value));
}

/// One property's value.
pub(super) trait Value {
    /// In bytes, without the identifier.
    fn size(&self) -> usize;

    fn write(&self, buf: &mut BytesMut);

    fn check(&self, _: Kind) -> Result<(), EncodeError> {
        Ok(())
    }
}

/// A value that can be read; `None` where it is out of its range.
trait Read: Sized {
    fn read(body: &mut Body) -> Result<Option<Self>, DecodeError>;
}

/// Where values go: an `Option` takes one, a `Vec` any number.
trait Slot {
    fn fill(&mut self, id: u8, body: &mut Body) -> Result<(), DecodeError>;
    fn each(&self, id: u8, each: &mut dyn FnMut(u8, &dyn Value));
}

impl<T: Read + Value> Slot for Option<T> {
    fn fill(&mut self, id: u8, body: &mut Body) -> Result<(), DecodeError> {
        let kind = body.kind;
        if self.is_some() {
            return Err(DecodeError::PropertyTwice { kind, id });
        }
        *self = T::read(body)?;
        if self.is_none() {
            return Err(DecodeError::PropertyValue { kind, id });
        }
        Ok(())
    }

    fn each(&self, id: u8, each: &mut dyn FnMut(u8, &dyn Value)) {
        if let Some(value) = self {
            each(id, value);
        }
    }
}

impl<T: Read + Value> Slot for Vec<T> {
    fn fill(&mut self, id: u8, body: &mut Body) -> Result<(), DecodeError> {
        let kind = body.kind;
        if self.len() >= MAX_REPEATED_PROPERTIES {
            return Err(DecodeError::TooManyProperties { kind, id });
        }
        let value = T::read(body)?;
        self.push(value.ok_or(DecodeError::PropertyValue { kind, id })?);
        Ok(())
    }

    fn each(&self, id: u8, each: &mut dyn FnMut(u8, &dyn Value)) {
        self.iter().for_each(|value| each(id, value));
    }
}

macro_rules! blocks {
    ($($block:ty { $($id:literal $name:ident,)+ })+) => {$(
        impl Block for $block {
            fn take(&mut self, id: u8, body: &mut Body) -> Result<bool, DecodeError> {
                match id {
                    $($id => self.$name.fill(id, body)?,)+
                    _ => return Ok(false),
                }
                Ok(true)
            }

            fn each(&self, each: &mut dyn FnMut(u8, &dyn Value)) {
                $(self.$name.each($id, each);)+
            }
        }
    )+};
}

blocks! {
    ConnectProperties {
        0x11 session_expiry,
        0x21 receive_max,
        0x27 max_packet_size,
        0x22 topic_alias_max,
        0x19 request_response_information,
        0x17 request_problem_information,
        0x26 user_properties,
        0x15 auth_method,
        0x16 auth_data,
    }
    WillProperties {
        0x18 delay,
        0x01 payload_format,
        0x02 message_expiry,
        0x03 content_type,
        0x08 response_topic,
        0x09 correlation_data,
        0x26 user_properties,
    }
    ConnAckProperties {
        0x11 session_expiry,
        0x21 receive_max,
        0x24 max_qos,
        0x25 retain_available,
        0x27 max_packet_size,
        0x12 assigned_client_id,
        0x22 topic_alias_max,
        0x1f reason_string,
        0x26 user_properties,
        0x28 wildcard_available,
        0x29 subscription_ids_available,
        0x2a shared_available,
        0x13 server_keep_alive,
        0x1a response_information,
        0x1c server_reference,
        0x15 auth_method,
        0x16 auth_data,
    }
    PublishProperties {
        0x01 payload_format,
        0x02 message_expiry,
        0x23 topic_alias,
        0x08 response_topic,
        0x09 correlation_data,
        0x26 user_properties,
        0x0b subscription_ids,
        0x03 content_type,
    }
    AckProperties {
        0x1f reason_string,
        0x26 user_properties,
    }
    SubscribeProperties {
        0x0b subscription_id,
        0x26 user_properties,
    }
    DisconnectProperties {
        0x11 session_expiry,
        0x1f reason_string,
        0x26 user_properties,
        0x1c server_reference,
    }
    AuthProperties {
        0x15 auth_method,
        0x16 auth_data,
        0x1f reason_string,
        0x26 user_properties,
    }
}

/// UNSUBSCRIBE has user properties and nothing else (3.10.2.1).
#[derive(Default)]
struct OnlyUser(Vec<UserProperty>);

impl Block for OnlyUser {
    fn take(&mut self, id: u8, body: &mut Body) -> Result<bool, DecodeError> {
        if id == 0x26 {
            self.0.fill(id, body)?;
        }
        Ok(id == 0x26)
    }

    fn each(&self, each: &mut dyn FnMut(u8, &dyn Value)) {
        self.0.each(0x26, each);
    }
}

/// Reads a packet's properties; `None` where there are none.
pub(super) fn read<B: Block>(body: &mut Body) -> Result<Option<Box<B>>, DecodeError> {
    let kind = body.kind;
    let length = variable(body)?.ok_or(DecodeError::PropertyLength(kind))?;
    if length == 0 {
        return Ok(None);
    }
    if length > body.bytes.len() {
        return Err(DecodeError::PropertyLength(kind));
    }
    let mut inner = Body {
        kind,
        bytes: body.bytes.split_to(length),
    };
    let mut block = Box::<B>::default();
    while !inner.is_empty() {
        // Identifiers are variable byte integers of which one byte is given out (2.2.2.2).
        let id = inner.u8()?;
        if !block.take(id, &mut inner)? {
            return Err(DecodeError::Property { kind, id });
        }
    }
    Ok(Some(block))
}

/// As [`read`], for UNSUBSCRIBE.
pub(super) fn read_user(body: &mut Body) -> Result<Vec<UserProperty>, DecodeError> {
    Ok(read::<OnlyUser>(body)?.map_or_else(Vec::new, |only| only.0))
}

/// The size of the properties and of their length, both in bytes, checked.
pub(super) fn check<B: Block>(kind: Kind, block: Option<&B>) -> Result<usize, EncodeError> {
    let Some(block) = block else { return Ok(1) };
    let mut result = Ok(());
    let mut size = 0;
    block.each(&mut |_, value| {
        if result.is_ok() {
            result = value.check(kind);
        }
        size += 1 + value.size();
    });
    result?;
    if size > MAX_REMAINING_LENGTH {
        return Err(EncodeError::TooLarge { kind, size });
    }
    Ok(variable_size(size) + size)
}

/// As [`check`], for UNSUBSCRIBE.
pub(super) fn check_user(kind: Kind, properties: &[UserProperty]) -> Result<usize, EncodeError> {
    for property in properties {
        property.check(kind)?;
    }
    let size = user_size(properties);
    if size > MAX_REMAINING_LENGTH {
        return Err(EncodeError::TooLarge { kind, size });
    }
    Ok(variable_size(size) + size)
}

/// Writes what [`check`] has seen.
pub(super) fn write<B: Block>(block: Option<&B>, buf: &mut BytesMut) {
    let Some(block) = block else {
        buf.put_u8(0);
        return;
    };
    let mut size = 0;
    block.each(&mut |_, value| size += 1 + value.size());
    write_variable(size, buf);
    block.each(&mut |id, value| {
        buf.put_u8(id);
        value.write(buf);
    });
}

/// As [`write`], for UNSUBSCRIBE.
pub(super) fn write_user(properties: &[UserProperty], buf: &mut BytesMut) {
    write_variable(user_size(properties), buf);
    for property in properties {
        buf.put_u8(0x26);
        property.write(buf);
    }
}

fn user_size(properties: &[UserProperty]) -> usize {
    properties.iter().map(|property| 1 + property.size()).sum()
}

/// How many bytes a variable byte integer takes (1.5.5).
pub(super) const fn variable_size(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

pub(super) fn write_variable(mut value: usize, buf: &mut BytesMut) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            buf.put_u8(low);
            return;
        }
        buf.put_u8(low | 0x80);
    }
}

/// `None` where it is longer than four bytes, or than it needs to be [MQTT-1.5.5-1].
fn variable(body: &mut Body) -> Result<Option<usize>, DecodeError> {
    let mut value = 0;
    for index in 0..4 {
        let byte = body.u8()?;
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let shortest = index == 0 || byte != 0;
            return Ok(shortest.then_some(value));
        }
    }
    Ok(None)
}
