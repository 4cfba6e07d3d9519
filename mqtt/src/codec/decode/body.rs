//! The fields that packets are made of (1.5), taken one after the other.

use bytes::{Buf, Bytes};

use super::super::{DecodeError, Kind, PacketId, Text};
use crate::topic;

/// What follows the fixed header; each look takes from its front.
pub(in super::super) struct Body {
    pub(in super::super) kind: Kind,
    pub(in super::super) bytes: Bytes,
}

impl Body {
    pub(in super::super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.bytes
            .try_get_u8()
            .map_err(|_| DecodeError::Truncated(self.kind))
    }

    pub(in super::super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.bytes
            .try_get_u16()
            .map_err(|_| DecodeError::Truncated(self.kind))
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or(DecodeError::PacketId(self.kind))
    }

    pub(in super::super) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let length = usize::from(self.u16()?);
        if length > self.bytes.len() {
            return Err(DecodeError::Truncated(self.kind));
        }
        Ok(self.bytes.split_to(length))
    }

    pub(in super::super) fn text(&mut self) -> Result<Text, DecodeError> {
        let bytes = self.binary()?;
        if bytes.contains(&0) {
            return Err(DecodeError::Null(self.kind));
        }
        Text::from_utf8(bytes).ok_or(DecodeError::Utf8(self.kind))
    }

    pub(super) fn topic(&mut self) -> Result<Text, DecodeError> {
        let text = self.text()?;
        self.check_topic(&text)?;
        Ok(text)
    }

    pub(super) fn check_topic(&self, name: &Text) -> Result<(), DecodeError> {
        let kind = self.kind;
        topic::validate_name(name.as_bytes()).map_err(|source| DecodeError::Topic { kind, source })
    }

    pub(super) fn filter(&mut self) -> Result<Text, DecodeError> {
        let text = self.text()?;
        let kind = self.kind;
        topic::validate_filter(&text).map_err(|source| DecodeError::Topic { kind, source })?;
        Ok(text)
    }

    /// A filter of version 5.0, where shared ones have a form to keep (4.8.2).
    pub(super) fn filter_v5(&mut self) -> Result<Text, DecodeError> {
        let filter = self.filter()?;
        let kind = self.kind;
        topic::validate_share(&filter).map_err(|source| DecodeError::Topic { kind, source })?;
        Ok(filter)
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(DecodeError::Trailing {
            kind: self.kind,
            count: self.bytes.len(),
        })
    }
}
