//! Version 2 of the maps: the outside of an item, and under `sealed` the version 1 map, encrypted.
//!
//! `data` stands last, and everything before its content takes part in its tag: whoever changes a byte of the outside,
//! or puts the content of one item into another, is found out.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::form::{self, Bin, Illegal, OriginForm, TimingForm};
use super::{Decoded, SEALED_VERSION, encode};
use crate::record::seal::{NONCE_BYTES, TAG_BYTES, random};
use crate::record::{
    Clear, Item, Key, Keyring, Outside, Protocol, Record, SealError, Sealed, Side,
};

#[derive(Serialize, Deserialize)]
pub(super) struct SealedForm<'a> {
    v: u8,
    kind: &'a str,
    #[serde(borrow)]
    id: Bin<'a>,
    #[serde(borrow)]
    origin: OriginForm<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    record: Option<Box<ClearForm<'a>>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    side: Option<&'a str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(borrow)]
    sealed: LockForm<'a>,
}

#[derive(Serialize, Deserialize)]
struct ClearForm<'a> {
    service: &'a str,
    protocol: &'a str,
    method: &'a str,
    status: Option<u16>,
    end: &'a str,
    timing: TimingForm,
    request_bytes: u64,
    response_bytes: u64,
    request_chunks: u32,
    response_chunks: u32,
    batches: u32,
}

#[derive(Serialize, Deserialize)]
struct LockForm<'a> {
    key: &'a str,
    #[serde(borrow)]
    nonce: Bin<'a>,
    #[serde(borrow)]
    data: Bin<'a>,
}

impl SealedForm<'_> {
    /// The key's name.
    pub(super) const fn key(&self) -> &str {
        self.sealed.key
    }
}

/// Appends one item to `out`, sealed; a gap, which holds nothing, as it is.
pub fn seal(item: &Item, key: &Key, out: &mut Vec<u8>) {
    let mut content = Vec::new();
    encode(item, &mut content);
    let length = content.len();
    content.resize(length + TAG_BYTES, 0);
    let nonce: [u8; NONCE_BYTES] = random();
    let lock = LockForm {
        key: key.id(),
        nonce: Bin(&nonce),
        data: Bin(&content),
    };
    let Some(form) = form_of(item, lock) else {
        return encode(item, out);
    };
    let start = out.len();
    form.serialize(&mut rmp_serde::Serializer::new(&mut *out).with_struct_map())
        .expect("writing to memory cannot fail, and every type is ours");
    let data = out.len() - content.len();
    let (before, data) = out.split_at_mut(data);
    let (content, tag) = data.split_at_mut(length);
    tag.copy_from_slice(&key.seal(&nonce, &before[start..], content));
}

/// Opens what the keys open. What stays closed stays as it was, and the second value says why.
#[must_use]
pub fn open(decoded: Decoded, keys: &Keyring) -> (Decoded, Option<SealError>) {
    let Item::Sealed(sealed) = &decoded.item else {
        return (decoded, None);
    };
    let opened = match keys.key(&sealed.key) {
        None => Err(SealError::UnknownKey(sealed.key.clone())),
        Some(key) => {
            inside(&decoded.raw, sealed, key).ok_or_else(|| SealError::Refused(sealed.key.clone()))
        }
    };
    match opened {
        Ok(item) => (Decoded { item, ..decoded }, None),
        Err(error) => (decoded, Some(error)),
    }
}

/// The item within; `None` where the bytes do not open or are not what their outside says.
fn inside(raw: &Bytes, outside: &Sealed, key: &Key) -> Option<Item> {
    let form: SealedForm<'_> = super::read(raw).ok()?;
    let (nonce, data) = (form.sealed.nonce.0, form.sealed.data.0);
    let before = &raw[..raw.len().checked_sub(data.len())?];
    let content = Bytes::from(key.open(nonce, before, data)?);
    let item = super::decode(&content).ok()?;
    (outside_of(&item, &outside.key).as_ref() == Some(outside)).then_some(item)
}

/// What an item shows once it is sealed; `None` for what is not sealed.
fn outside_of(item: &Item, key: &std::sync::Arc<str>) -> Option<Sealed> {
    let (id, outside) = match item {
        Item::Record(record) => (record.id(), Outside::Record(Box::new(clear(record)))),
        Item::Chunk(chunk) => {
            let (side, index) = (chunk.side, chunk.index);
            (chunk.record, Outside::Chunk { side, index })
        }
        Item::Segments(batch) => (batch.record, Outside::Segments { index: batch.index }),
        Item::Gap(_) | Item::Sealed(_) => return None,
    };
    Some(Sealed {
        id,
        origin: item.origin().clone(),
        key: key.clone(),
        outside,
    })
}

fn clear(record: &Record) -> Clear {
    match record {
        Record::Exchange(exchange) => {
            let response = exchange.response.as_ref();
            Clear {
                service: exchange.service.clone(),
                protocol: exchange.protocol,
                method: exchange.request.method.clone(),
                status: response.map(|response| response.status),
                outcome: exchange.outcome.as_str().into(),
                timing: exchange.timing,
                request_bytes: exchange.request.body.bytes,
                response_bytes: response.map_or(0, |response| response.body.bytes),
                request_chunks: exchange.request.body.chunks,
                response_chunks: response.map_or(0, |response| response.body.chunks),
                batches: 0,
            }
        }
        Record::Stream(stream) => Clear {
            service: stream.service.clone(),
            protocol: stream.protocol,
            method: "".into(),
            status: None,
            outcome: stream.outcome.as_str().into(),
            timing: stream.timing,
            request_bytes: stream.client_bytes,
            response_bytes: stream.server_bytes,
            request_chunks: 0,
            response_chunks: 0,
            batches: stream.batches,
        },
    }
}

fn form_of<'a>(item: &'a Item, sealed: LockForm<'a>) -> Option<SealedForm<'a>> {
    let of_record = |record| Some(Box::new(clear_form(record)));
    let (kind, id, record, side, index) = match item {
        Item::Record(record @ Record::Exchange(exchange)) => {
            ("exchange", &exchange.id, of_record(record), None, None)
        }
        Item::Record(record @ Record::Stream(stream)) => {
            ("stream", &stream.id, of_record(record), None, None)
        }
        Item::Chunk(chunk) => {
            let side = form::side_name(chunk.side);
            ("chunk", &chunk.record, None, Some(side), Some(chunk.index))
        }
        Item::Segments(batch) => ("segments", &batch.record, None, None, Some(batch.index)),
        Item::Gap(_) | Item::Sealed(_) => return None,
    };
    Some(SealedForm {
        v: SEALED_VERSION,
        kind,
        id: Bin(id.as_bytes()),
        origin: item.origin().into(),
        record,
        side,
        index,
        sealed,
    })
}

fn clear_form(record: &Record) -> ClearForm<'_> {
    let facts = clear(record);
    let (service, method, end) = match record {
        Record::Exchange(exchange) => (
            &*exchange.service,
            &*exchange.request.method,
            exchange.outcome.as_str(),
        ),
        Record::Stream(stream) => (&*stream.service, "", stream.outcome.as_str()),
    };
    ClearForm {
        service,
        protocol: facts.protocol.as_str(),
        method,
        status: facts.status,
        end,
        timing: facts.timing.into(),
        request_bytes: facts.request_bytes,
        response_bytes: facts.response_bytes,
        request_chunks: facts.request_chunks,
        response_chunks: facts.response_chunks,
        batches: facts.batches,
    }
}

/// The outside of a sealed item.
pub(super) fn sealed(form: &SealedForm<'_>) -> Result<Item, Illegal> {
    let outside = match (form.kind, &form.record, form.side, form.index) {
        ("exchange" | "stream", Some(record), None, None) => Outside::Record(Box::new(Clear {
            service: record.service.into(),
            protocol: Protocol::from_name(record.protocol).ok_or("record.protocol")?,
            method: record.method.into(),
            status: record.status,
            outcome: record.end.into(),
            timing: form::timing(&record.timing),
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            request_chunks: record.request_chunks,
            response_chunks: record.response_chunks,
            batches: record.batches,
        })),
        ("chunk", None, Some(side), Some(index)) => {
            let side = match side {
                "request" => Side::Request,
                "response" => Side::Response,
                _ => return Err("side"),
            };
            Outside::Chunk { side, index }
        }
        ("segments", None, None, Some(index)) => Outside::Segments { index },
        _ => return Err("kind"),
    };
    Ok(Item::Sealed(Box::new(Sealed {
        id: form::record_id(form.id)?,
        origin: form::origin(&form.origin)?,
        key: form.sealed.key.into(),
        outside,
    })))
}
