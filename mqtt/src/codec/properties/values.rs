//! The types of property values (1.5) and their ranges.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::super::decode::Body;
use super::super::{
    DecodeError, EncodeError, Kind, PayloadFormat, QoS, SubscriptionId, Text, UserProperty,
};
use super::{Read, Value, variable, variable_size, write_variable};

impl Read for u16 {
    fn read(body: &mut Body) -> Result<Option<Self>, DecodeError> {
        body.u16().map(Some)
    }
}

impl Value for u16 {
    fn size(&self) -> usize {
        2
    }

    fn write(&self, buf: &mut BytesMut) {
        buf.put_u16(*self);
    }
}

impl Read for NonZeroU16 {
    fn read(body: &mut Body) -> Result<Option<Self>, DecodeError> {
        body.u16().map(Self::new)
    }
}

impl Value for NonZeroU16 {
    fn size(&self) -> usize {
        2
    }

    fn write(&self, buf: &mut BytesMut) {
        buf.put_u16(self.get());
    }
}

impl Read for u32 {
    fn read(body: &mut Body) -> Result<Option<Self>, DecodeError> {
        let kind = body.kind;
        let value = body.bytes.try_get_u32();
        value.map(Some).map_err(|_| DecodeError::Truncated(kind))
    }
}

impl Value for u32 {
    fn size(&self) -> usize {
        4
    }

    fn write(&self, buf: &mut BytesMut) {
        buf.put_u32(*self);
    }
}

impl Read for NonZeroU32 {
    fn read(body: &mut Body) -> Result<Option<Self>, DecodeError> {
        Ok(u32::read(body)?.and_then(Self::new))
    }
}

impl Value for NonZeroU32 {
    fn size(&self) -> usize {
        4
    }

    fn write(&self, buf: &mut BytesMut) {
        buf.put_u32(self.get());
    }
}

impl Read for bool {
    fn read(body: &mut Body) -> Result<Option<Self>, DecodeError> {
        Ok(match body.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        })
    }
}

impl Value for bool {
    fn size(&self) -> usize {
        1
    }

    fn write(&self, buf: &mut BytesMut) {
        buf.put_u8(u8::from(*self));
    }
}

impl Read for PayloadFormat {
    fn read(body: &mut Body) -> Result<Option<Self>, DecodeError> {
        let utf8 = bool::read(body)?;
        Ok(utf8.map(|utf8| if utf8 { Self::Utf8 } else { Self::Bytes }))
    }
}

impl Value for PayloadFormat {
    fn size(&self) -> usize {
        1
    }

    fn write(&self, buf: &mut BytesMut) {
        buf.put_u8(u8::from(*self == Self::Utf8));
    }
}

/// Maximum QoS: 0 or 1; that 2 is taken is said by saying nothing (3.2.2.3.4).
impl Read for QoS {
    fn read(body: &mut Body) -> Result<Option<Self>, DecodeError> {
        Ok(match body.u8()? {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            _ => None,
        })
    }
}

impl Value for QoS {
    fn size(&self) -> usize {
        1
    }

    fn write(&self, buf: &mut BytesMut) {
        buf.put_u8(self.as_u8());
    }

    fn check(&self, kind: Kind) -> Result<(), EncodeError> {
        if *self == Self::ExactlyOnce {
            return Err(EncodeError::MaxQoS(kind));
        }
        Ok(())
    }
}

impl Read for SubscriptionId {
    fn read(body: &mut Body) -> Result<Option<Self>, DecodeError> {
        let value = variable(body)?.and_then(|value| u32::try_from(value).ok());
        Ok(value.and_then(Self::new))
    }
}

impl Value for SubscriptionId {
    fn size(&self) -> usize {
        variable_size(self.get() as usize)
    }

    fn write(&self, buf: &mut BytesMut) {
        write_variable(self.get() as usize, buf);
    }
}

impl Read for Text {
    fn read(body: &mut Body) -> Result<Option<Self>, DecodeError> {
        body.text().map(Some)
    }
}

impl Value for Text {
    fn size(&self) -> usize {
        2 + self.as_bytes().len()
    }

    fn write(&self, buf: &mut BytesMut) {
        write_field(self.as_bytes(), buf);
    }

    fn check(&self, kind: Kind) -> Result<(), EncodeError> {
        check_text(kind, self.as_bytes()).map(|_| ())
    }
}

impl Read for Bytes {
    fn read(body: &mut Body) -> Result<Option<Self>, DecodeError> {
        body.binary().map(Some)
    }
}

impl Value for Bytes {
    fn size(&self) -> usize {
        2 + self.len()
    }

    fn write(&self, buf: &mut BytesMut) {
        write_field(self, buf);
    }

    fn check(&self, kind: Kind) -> Result<(), EncodeError> {
        check_field(kind, self).map(|_| ())
    }
}

impl Read for UserProperty {
    fn read(body: &mut Body) -> Result<Option<Self>, DecodeError> {
        Ok(Some((body.text()?, body.text()?)))
    }
}

impl Value for UserProperty {
    fn size(&self) -> usize {
        self.0.size() + self.1.size()
    }

    fn write(&self, buf: &mut BytesMut) {
        self.0.write(buf);
        self.1.write(buf);
    }

    fn check(&self, kind: Kind) -> Result<(), EncodeError> {
        self.0.check(kind)?;
        self.1.check(kind)
    }
}

/// The size of a field with its two-byte length prefix.
pub(in super::super) fn check_field(kind: Kind, bytes: &[u8]) -> Result<usize, EncodeError> {
    let size = bytes.len();
    if size > usize::from(u16::MAX) {
        return Err(EncodeError::FieldTooLong { kind, size });
    }
    Ok(2 + size)
}

pub(in super::super) fn check_text(kind: Kind, text: &[u8]) -> Result<usize, EncodeError> {
    if text.contains(&0) {
        return Err(EncodeError::Null(kind));
    }
    check_field(kind, text)
}

/// The check has seen that it fits.
pub(in super::super) fn write_field(bytes: &[u8], buf: &mut BytesMut) {
    let length = u16::try_from(bytes.len()).expect("checked before the first byte is written");
    buf.put_u16(length);
    buf.put_slice(bytes);
}
