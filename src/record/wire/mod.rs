//! The form in which items travel and are kept: MessagePack maps with string keys, one after another.
//!
//! Every map has `v` (the version, 1) and `kind`. A reader skips keys that it does not know, so that keys can
//! be added; a change that an old reader would misread raises `v`. `docs/wire.md` is the reference.
//!
//! Decoding never copies a body: it is a slice of the message it came in.

mod extent;
mod form;
mod flow;
mod upgrade;
mod sealed;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Item;

pub use sealed::{open, seal};

/// The version of an item whose content anyone can read.
pub const VERSION: u8 = 1;
/// The version of an item whose content is sealed.
pub const SEALED_VERSION: u8 = 2;

/// A map nested deeper than this is not one of ours.
const MAX_DEPTH: usize = 16;

/// Why bytes are no item.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The bytes end early or are no MessagePack.
    #[error("no whole MessagePack value at byte {at}")]
    Broken {
        /// Where the item starts in the message.
        at: usize,
    },
    /// A key is missing or has the wrong type.
    #[error("the MessagePack value at byte {at} is not an item")]
    Malformed {
        /// Where the item starts in the message.
        at: usize,
        /// What the reader found.
        #[source]
        source: rmp_serde::decode::Error,
    },
    /// A version from the future.
    #[error(
        "the item at byte {at} has version {version}, this program reads up to {SEALED_VERSION}"
    )]
    Version {
        /// Where the item starts in the message.
        at: usize,
        /// Its version.
        version: u8,
    },
    /// A value that the model does not have.
    #[error("the item at byte {at} has an illegal value for `{key}`")]
    Value {
        /// Where the item starts in the message.
        at: usize,
        /// The key.
        key: &'static str,
    },
}

/// An item and the bytes it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The item; its bodies are slices of the message.
    pub item: Item,
    /// Its own bytes within the message; of a sealed item that was opened still the sealed ones.
    pub raw: Bytes,
    /// The name of the key under which they are sealed.
    pub sealed: Option<Arc<str>>,
}

/// Appends one item to `out`, for anyone to read. What is sealed already cannot be written again from its outside:
/// of that nothing is appended.
pub fn encode(item: &Item, out: &mut Vec<u8>) {
    let Some(form) = form::Out::of(item) else {
        return;
    };
    let mut serializer = rmp_serde::Serializer::new(out).with_struct_map();
    form.serialize(&mut serializer)
        .expect("writing to memory cannot fail, and every type is ours");
}

/// Reads every item of a message, in order; stops after the first that cannot be read.
pub fn decode_all(message: &Bytes) -> impl Iterator<Item = Result<Decoded, WireError>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= message.len() {
            return None;
        }
        let result = decode_at(message, at);
        at = match &result {
            Ok(decoded) => at + decoded.raw.len(),
            Err(_) => message.len(),
        };
        Some(result)
    })
}

/// Reads the one item that `message` holds.
///
/// # Errors
/// [`WireError`] where there is none.
pub fn decode(message: &Bytes) -> Result<Item, WireError> {
    decode_one(message).map(|decoded| decoded.item)
}

/// As [`decode`], with the item's own bytes.
///
/// # Errors
/// [`WireError`] where there is none.
pub fn decode_one(message: &Bytes) -> Result<Decoded, WireError> {
    decode_at(message, 0)
}

#[derive(Deserialize)]
struct Head<'a> {
    v: u8,
    #[serde(borrow)]
    kind: &'a str,
}

fn decode_at(message: &Bytes, at: usize) -> Result<Decoded, WireError> {
    let length = extent::of_value(&message[at..]).ok_or(WireError::Broken { at })?;
    let raw = message.slice(at..at + length);
    let malformed = |source| WireError::Malformed { at, source };
    let head = match peek(&raw) {
        Some(head) => head,
        None => read::<Head<'_>>(&raw).map_err(malformed)?,
    };
    if head.v == SEALED_VERSION {
        let form: sealed::SealedForm<'_> = read(&raw).map_err(malformed)?;
        let item = sealed::sealed(&form).map_err(|key| WireError::Value { at, key })?;
        let sealed = Some(form.key().into());
        return Ok(Decoded { item, raw, sealed });
    }
    if head.v != VERSION {
        return Err(WireError::Version {
            at,
            version: head.v,
        });
    }
    let item = match head.kind {
        "exchange" => form::exchange(read(&raw).map_err(malformed)?, message),
        "stream" => form::stream(read(&raw).map_err(malformed)?),
        "chunk" => form::chunk(&read(&raw).map_err(malformed)?, message),
        "segments" => form::segments(read(&raw).map_err(malformed)?, message),
        "gap" => form::gap(&read(&raw).map_err(malformed)?),
        _ => Err("kind"),
    };
    let item = item.map_err(|key| WireError::Value { at, key })?;
    Ok(Decoded {
        item,
        raw,
        sealed: None,
    })
}

/// The head where it stands first, as we write it: everything else need not be walked through for it.
fn peek(mut bytes: &[u8]) -> Option<Head<'_>> {
    let bytes = &mut bytes;
    rmp::decode::read_map_len(bytes).ok()?;
    let version_first = text(bytes)? == "v";
    let v = rmp::decode::read_int(bytes).ok()?;
    let kind_second = text(bytes)? == "kind";
    let kind = text(bytes)?;
    (version_first && kind_second).then_some(Head { v, kind })
}

/// The text that stands first; what follows it is left in `bytes`.
fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let (text, rest) = rmp::decode::read_str_from_slice(*bytes).ok()?;
    *bytes = rest;
    Some(text)
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, rmp_serde::decode::Error> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut reader)
}

#[cfg(test)]
mod tests;
