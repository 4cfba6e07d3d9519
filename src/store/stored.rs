//! The compact form in which both backends keep a record's [`Summary`] beside it.
//!
//! A MessagePack array that starts with its version. Filters run over the borrowed form, so that a listing
//! allocates only for what it returns.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Arrival, Filter, Query, Summary, query::View};
use crate::record::{
    Epoch, Fingerprint, Item, Key, Keyring, NodeId, Origin, Outside, Protocol, RecordId, Sequence,
};

/// The version of a summary that says everything.
const VERSION: u8 = 1;
/// The version of a summary of a sealed record: host and target, and what was spoken on a stream, stand sealed behind
/// the rest.
const SEALED_VERSION: u8 = 2;

/// A summary as it is kept, without the id; the order of the fields is the format.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored<'a> {
    version: u8,
    fingerprint: Option<(u64, u64)>,
    node: &'a str,
    epoch: u64,
    seq: u64,
    service: &'a str,
    protocol: &'a str,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    host: Cow<'a, str>,
    #[serde(borrow)]
    target: Cow<'a, str>,
    status: Option<u16>,
    outcome: &'a str,
    started_us: i64,
    duration_us: u64,
    request_bytes: u64,
    response_bytes: u64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    sealed: Option<Covered<'a>>,
}

/// Host and target under a key; of a stream also what was spoken.
#[derive(Debug, Serialize, Deserialize)]
struct Covered<'a> {
    key: &'a str,
    /// Empty where the record was not open when it was stored.
    text: Bytes,
}

/// What a store keeps beside a record, and under which fingerprint it is found.
pub(super) struct Beside {
    pub(super) id: RecordId,
    pub(super) origin: Origin,
    pub(super) summary: Vec<u8>,
    pub(super) fingerprint: Option<Fingerprint>,
}

/// What is kept beside an arrival; `None` for what is no record.
pub(super) fn beside(arrival: &Arrival, keys: &Keyring) -> Option<Beside> {
    let key = arrival
        .decoded
        .sealed
        .as_deref()
        .and_then(|id| keys.key(id));
    let summary = match &arrival.decoded.item {
        Item::Record(record) => Summary::from(record),
        Item::Sealed(sealed) => match &sealed.outside {
            Outside::Record(clear) => Summary::of_sealed(sealed, clear),
            Outside::Chunk { .. } | Outside::Segments { .. } => return None,
        },
        Item::Chunk(_) | Item::Segments(_) | Item::Gap(_) => return None,
    };
    let fingerprint = match (arrival.fingerprint, key) {
        (Some(plain), Some(key)) => Some(key.fingerprint(plain)),
        (plain, _) => plain,
    };
    Some(Beside {
        id: summary.id,
        origin: summary.origin.clone(),
        summary: encode(&summary, fingerprint, key),
        fingerprint,
    })
}

/// Why bytes are no summary.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// No such MessagePack.
    #[error("the summary is malformed")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// A version from the future.
    #[error("the summary has version {0}, this program reads up to {SEALED_VERSION}")]
    Version(u8),
    /// A node name that cannot be.
    #[error("the summary names no node")]
    Node(#[from] crate::record::InvalidNode),
}

/// Encodes a summary and the fingerprint under which the record is looked up; with a key host and target are sealed.
fn encode(summary: &Summary, fingerprint: Option<Fingerprint>, key: Option<&Key>) -> Vec<u8> {
    let sealed = match (key, &summary.sealed) {
        (_, Some(id)) => Some(Covered {
            key: id,
            text: Bytes::new(),
        }),
        (Some(key), None) => Some(Covered {
            key: key.id(),
            text: key.cover(summary.id, &texts(summary)).into(),
        }),
        (None, None) => None,
    };
    let open = |text| match sealed {
        Some(_) => Cow::Borrowed(""),
        None => Cow::Borrowed(text),
    };
    // The method of an exchange is in its topic, what was spoken on a stream is not.
    let method = if is_stream(&summary.protocol) {
        open(&summary.method)
    } else {
        Cow::Borrowed(&*summary.method)
    };
    let stored = Stored {
        version: if sealed.is_some() {
            SEALED_VERSION
        } else {
            VERSION
        },
        fingerprint: fingerprint.map(|print| halves(print.0)),
        node: summary.origin.node.as_str(),
        epoch: summary.origin.epoch.0,
        seq: summary.origin.seq.0,
        service: &summary.service,
        protocol: &summary.protocol,
        method,
        host: open(&summary.host),
        target: open(&summary.target),
        status: summary.status,
        outcome: &summary.outcome,
        started_us: summary.started_us,
        duration_us: summary.duration_us,
        request_bytes: summary.request_bytes,
        response_bytes: summary.response_bytes,
        sealed,
    };
    rmp_serde::to_vec(&stored).expect("writing to memory cannot fail, and every type is ours")
}

impl<'a> Stored<'a> {
    /// Reads what [`encode`] wrote.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let stored: Self = rmp_serde::from_slice(bytes)?;
        match (stored.version, &stored.sealed) {
            (VERSION, None) | (SEALED_VERSION, Some(_)) => Ok(stored),
            (version, _) => Err(Unreadable::Version(version)),
        }
    }

    /// Reads what [`encode`] wrote about a record, and opens what of it these keys open.
    pub(super) fn open(bytes: &'a [u8], id: RecordId, keys: &Keyring) -> Result<Self, Unreadable> {
        let mut stored = Self::read(bytes)?;
        let texts = stored.sealed.as_ref().and_then(|covered| {
            let text = keys.key(covered.key)?.uncover(id, &covered.text)?;
            let text = String::from_utf8(text).ok()?;
            let (host, target) = text.split_once('\0')?;
            // Those of streams that were stored before had no method.
            let (target, method) = match target.split_once('\0') {
                Some((target, method)) if is_stream(stored.protocol) => (target, Some(method)),
                _ => (target, None),
            };
            Some((
                host.to_owned(),
                target.to_owned(),
                method.map(str::to_owned),
            ))
        });
        if let Some((host, target, method)) = texts {
            if let Some(method) = method {
                stored.method = method.into();
            }
            stored.host = host.into();
            stored.target = target.into();
            stored.sealed = None;
        }
        Ok(stored)
    }

    /// The fingerprint under which the record is looked up.
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
            .map(|(high, low)| Fingerprint(u128::from(high) << 64 | u128::from(low)))
    }

    /// Whether a query wants it; the window counts by the exact start.
    pub(super) fn wanted(&self, query: &Query) -> bool {
        query.start_us.is_none_or(|start| start <= self.started_us)
            && query.end_us.is_none_or(|end| self.started_us < end)
            && self.matches(&query.filter)
    }

    fn matches(&self, filter: &Filter) -> bool {
        filter.accepts(&View {
            node: self.node,
            service: self.service,
            protocol: self.protocol,
            method: &self.method,
            host: &self.host,
            target: &self.target,
            status: self.status,
            outcome: self.outcome,
        })
    }

    /// Where the record comes from.
    pub(super) fn origin(&self) -> Result<Origin, Unreadable> {
        Ok(Origin {
            node: NodeId::new(self.node)?,
            epoch: Epoch(self.epoch),
            seq: Sequence(self.seq),
        })
    }

    /// The summary itself.
    pub(super) fn summary(&self, id: RecordId) -> Result<Summary, Unreadable> {
        Ok(Summary {
            id,
            origin: self.origin()?,
            service: self.service.into(),
            protocol: self.protocol.into(),
            method: self.method.as_ref().into(),
            host: self.host.as_ref().into(),
            target: self.target.as_ref().into(),
            status: self.status,
            outcome: self.outcome.into(),
            started_us: self.started_us,
            duration_us: self.duration_us,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            sealed: self.sealed.as_ref().map(|covered| covered.key.into()),
        })
    }
}

/// Host and target in one; neither a host nor a target can have a zero in it, and what has one all the same stays whole
/// in the target.
fn texts(summary: &Summary) -> Vec<u8> {
    let host = summary.host.replace('\0', " ");
    if is_stream(&summary.protocol) {
        let target = summary.target.replace('\0', " ");
        return format!("{host}\0{target}\0{}", summary.method).into_bytes();
    }
    format!("{host}\0{}", summary.target).into_bytes()
}

/// Whether records of this protocol are streams.
fn is_stream(protocol: &str) -> bool {
    let streams = [Protocol::Tcp, Protocol::WebSocket];
    streams.iter().any(|stream| stream.as_str() == protocol)
}

fn halves(value: u128) -> (u64, u64) {
    let low = value & u128::from(u64::MAX);
    let half = |part| u64::try_from(part).expect("half of 128 bits");
    (half(value >> 64), half(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary {
            id: RecordId::from_u128(9),
            origin: Origin {
                node: NodeId::new("az1").unwrap(),
                epoch: Epoch(u64::MAX),
                seq: Sequence(3),
            },
            service: "shop".into(),
            protocol: "http".into(),
            method: "GET".into(),
            host: "shop".into(),
            target: "/é?x=1".into(),
            status: None,
            outcome: "ok".into(),
            started_us: -5,
            duration_us: 7,
            request_bytes: 0,
            response_bytes: u64::MAX,
            sealed: None,
        }
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let print = Fingerprint(u128::MAX - 77);
        let bytes = encode(&summary(), Some(print), None);
        let stored = Stored::read(&bytes).unwrap();
        assert_eq!(stored.fingerprint(), Some(print));
        assert_eq!(stored.summary(RecordId::from_u128(9)).unwrap(), summary());
    }

    #[test]
    fn refuses_the_future_and_what_is_cut_short() {
        let mut bytes = encode(&summary(), None, None);
        for end in 0..bytes.len() {
            assert!(
                matches!(Stored::read(&bytes[..end]), Err(Unreadable::Malformed(_))),
                "{end}"
            );
        }
        // An array of 16 has a head of three bytes; the version follows.
        assert_eq!(bytes[3], VERSION);
        for version in [SEALED_VERSION, SEALED_VERSION + 1] {
            bytes[3] = version;
            let read = Stored::read(&bytes);
            assert!(matches!(read, Err(Unreadable::Version(v)) if v == version));
        }
    }

    #[test]
    fn host_and_target_of_a_sealed_record_show_only_with_the_key() {
        let key = Key::parse("k", &Key::generate()).unwrap();
        let id = summary().id;
        let bytes = encode(&summary(), None, Some(&key));
        assert_eq!(bytes, encode(&summary(), None, Some(&key)));
        let shows = |word: &str| bytes.windows(word.len()).any(|w| w == word.as_bytes());
        assert!(!shows("/é?x=1") && shows("az1"));
        let closed = Summary {
            host: "".into(),
            target: "".into(),
            sealed: Some("k".into()),
            ..summary()
        };
        let read = |keys: &Keyring| Stored::open(&bytes, id, keys).unwrap().summary(id).unwrap();
        assert_eq!(read(&Keyring::default()), closed);
        let other = Key::parse("k", &Key::generate()).unwrap();
        assert_eq!(read(&Keyring::new(vec![other])), closed);
        assert_eq!(read(&Keyring::new(vec![key])), summary());
    }

    #[test]
    fn what_was_spoken_on_a_sealed_stream_shows_only_with_the_key() {
        let secret = Key::generate();
        let [key, same] = [(); 2].map(|()| Key::parse("k", &secret).unwrap());
        let keys = Keyring::new(vec![same]);
        for method in ["redis", ""] {
            let stream = Summary {
                protocol: "tcp".into(),
                method: method.into(),
                ..summary()
            };
            let bytes = encode(&stream, None, Some(&key));
            assert!(!bytes.windows(5).any(|w| w == b"redis"));
            let read = |keys: &Keyring| {
                let stored = Stored::open(&bytes, stream.id, keys).unwrap();
                stored.summary(stream.id).unwrap()
            };
            assert_eq!(read(&keys), stream);
            assert_eq!(&*read(&Keyring::default()).method, "");
        }
        // One that was stored when streams had no method.
        let cover = |text: &[u8]| key.cover(summary().id, text);
        let mut old = encode(
            &Summary {
                protocol: "tcp".into(),
                method: "".into(),
                ..summary()
            },
            None,
            Some(&key),
        );
        let now = cover("shop\0/é?x=1\0".as_bytes());
        let at = old.windows(now.len()).position(|w| w == now).unwrap();
        let then = cover("shop\0/é?x=1".as_bytes());
        old.splice(at..at + now.len(), then.iter().copied());
        old[at - 1] -= 1;
        let read = Stored::open(&old, summary().id, &keys).unwrap();
        assert_eq!((&*read.target, &*read.method), ("/é?x=1", ""));
    }
}
