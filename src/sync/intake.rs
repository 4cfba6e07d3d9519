//! From a message's bytes to what the store keeps: unpack, decode, check, fingerprint.
//!
//! Pure. A message is taken whole or not at all, so that what is quarantined left no half behind. The
//! topic's node is the one that the broker let publish there, hence an item that names another is refused.

use std::sync::Arc;

use bytes::Bytes;

use crate::record::{
    Beat, Epoch, Fingerprint, FingerprintRules, Flow, Grpc, Headers, Item, Keyring, Message,
    NodeId, Outside, Record, RequestView, Segment, SequenceRange, wire,
};
use crate::store::Arrival;

use super::frame::{self, FrameError};
use super::metrics::Metrics;
use super::notice::MAX_SEQUENCE;
use super::places;

/// What is wrong with a message on a topic for items.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    /// The topic is none of ours.
    #[error("topic is none on which items are published")]
    Topic,
    /// The frame around the items.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The items.
    #[error(transparent)]
    Wire(#[from] wire::WireError),
    /// Its items take more memory than a whole batch may.
    #[error("message decodes to more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// It holds nothing.
    #[error("message holds no item")]
    Empty,
    /// An item of another recorder.
    #[error("item names node `{found}`, the topic `{expected}`")]
    ForeignNode {
        /// The item's.
        found: NodeId,
        /// The topic's.
        expected: NodeId,
    },
    /// A place that no sequence reaches.
    #[error("item at {first} of {count} places has no possible sequence number")]
    Sequence {
        /// Its first place.
        first: u64,
        /// How many it takes.
        count: u64,
    },
    /// A notice between the items.
    #[error(transparent)]
    Notice(#[from] super::notice::NoticeError),
}

/// A header's name and value.
const PAIR_BYTES: usize = 2 * size_of::<Bytes>();

/// What an item is called in a metric's label.
pub(super) const fn kind(item: &Item) -> &'static str {
    match item {
        Item::Record(_) => "record",
        Item::Chunk(_) => "chunk",
        Item::Segments(_) => "segments",
        Item::Gap(_) => "gap",
        Item::Sealed(sealed) => match sealed.outside {
            Outside::Record(_) => "record",
            Outside::Chunk { .. } => "chunk",
            Outside::Segments { .. } => "segments",
        },
    }
}

/// Reads messages under one set of rules.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) rules: FingerprintRules,
    /// Bytes of one message after unpacking.
    pub(super) max_decompressed: usize,
    /// Bytes in memory that the items of one message may take.
    pub(super) max_decoded: usize,
    pub(super) keys: Arc<Keyring>,
    pub(super) metrics: Metrics,
}

/// What a message held.
#[derive(Debug)]
pub(super) struct Taken {
    /// Its items, each with the places that it takes.
    pub(super) items: Vec<(SequenceRange, Arrival)>,
    /// About how much memory they take.
    pub(super) bytes: usize,
}

impl Malformed {
    /// Whether only its size speaks against the message: then no later copy of it will be any smaller.
    pub(super) const fn is_size(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. } | Self::Frame(FrameError::TooLarge { .. })
        )
    }
}

impl Intake {
    /// The items of a message that came on a topic of `node`.
    pub(super) fn read(&self, node: &NodeId, payload: &Bytes) -> Result<Taken, Malformed> {
        let message = frame::unpack(payload, self.max_decompressed)?;
        let mut arrivals = Vec::new();
        let mut bytes = message.len();
        for decoded in wire::decode_all(&message) {
            let (decoded, closed) = wire::open(decoded?, &self.keys);
            if let Some(why) = closed {
                let counter = self
                    .metrics
                    .sealed_unreadable
                    .get_or_create(&why.as_str().into());
                counter.inc();
            }
            bytes = bytes.saturating_add(structure_bytes(&decoded.item));
            if bytes > self.max_decoded {
                let limit = self.max_decoded;
                return Err(Malformed::TooLarge { limit });
            }
            let range = place(&decoded.item, node)?;
            let fingerprint = match &decoded.item {
                Item::Record(Record::Exchange(exchange)) => Some(
                    self.rules
                        .fingerprint(&RequestView::from(&exchange.request)),
                ),
                Item::Record(Record::Stream(stream)) => {
                    Some(Fingerprint::of_streams(stream.protocol, &stream.service))
                }
                _ => None,
            };
            arrivals.push((
                range,
                Arrival {
                    decoded,
                    fingerprint,
                },
            ));
        }
        if arrivals.is_empty() {
            return Err(Malformed::Empty);
        }
        Ok(Taken {
            items: arrivals,
            bytes,
        })
    }

    /// The places of a message that is refused for its size, as far as the part of it that may be unpacked tells.
    pub(super) fn places(&self, node: &NodeId, payload: &Bytes) -> Vec<(Epoch, SequenceRange)> {
        let Ok(start) = frame::beginning(payload, self.max_decompressed) else {
            return Vec::new();
        };
        places::of(&start, node)
    }
}

/// What an item takes beside the bytes of the message, which its bodies are slices of.
fn structure_bytes(item: &Item) -> usize {
    let pairs = |headers: &Headers| headers.iter().count() * PAIR_BYTES;
    let inner = match item {
        Item::Record(Record::Exchange(exchange)) => {
            let (request, response) = (&exchange.request, exchange.response.as_ref());
            let of_response = response.map_or(0, |response| {
                let interim = response.informational.iter();
                let interim: usize = interim
                    .map(|(_, headers)| PAIR_BYTES + pairs(headers))
                    .sum();
                pairs(&response.headers) + pairs(&response.trailers) + interim
            });
            size_of_val(&**exchange)
                + flow_bytes(&exchange.flow)
                + pairs(&request.headers)
                + pairs(&request.trailers)
                + of_response
        }
        Item::Segments(batch) => batch.segments.len() * size_of::<Segment>(),
        Item::Sealed(sealed) => size_of_val(&**sealed),
        Item::Record(Record::Stream(_)) | Item::Chunk(_) | Item::Gap(_) => 0,
    };
    size_of::<(NodeId, SequenceRange, Arrival)>() + inner
}

fn flow_bytes(flow: &Flow) -> usize {
    let calls = flow.grpc.as_ref().map_or(0, |grpc| {
        let listed = grpc.request.first.len() + grpc.response.first.len();
        size_of::<Grpc>() + listed * size_of::<Message>()
    });
    calls + flow.pace.len() * size_of::<Beat>()
}

pub(super) fn place(item: &Item, node: &NodeId) -> Result<SequenceRange, Malformed> {
    let origin = item.origin();
    if origin.node != *node {
        return Err(Malformed::ForeignNode {
            found: origin.node.clone(),
            expected: node.clone(),
        });
    }
    let (first, count) = (origin.seq.0, item.span());
    SequenceRange::spanning(first, count)
        .filter(|range| range.first > 0 && range.last <= MAX_SEQUENCE)
        .ok_or(Malformed::Sequence { first, count })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, proptest};

    use super::super::frame::Compression;
    use super::super::testing::{exchange, gap, message};
    use super::*;

    fn intake() -> Intake {
        Intake {
            rules: FingerprintRules::default(),
            max_decompressed: 1 << 20,
            keys: Arc::default(),
            metrics: Metrics::default(),
            max_decoded: 1 << 20,
        }
    }

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    #[test]
    fn reads_what_was_packed_with_places_and_fingerprints() {
        let payload = message(&[exchange("rec", 1, 7), gap("rec", 1, 8, 3)]);
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let packed = compression.pack(payload.to_vec());
            let read = intake().read(&node("rec"), &packed).unwrap().items;
            let places: Vec<_> = read.iter().map(|(r, _)| (r.first, r.last)).collect();
            assert_eq!(places, [(7, 7), (8, 10)]);
            assert!(read[0].1.fingerprint.is_some() && read[1].1.fingerprint.is_none());
        }
    }

    #[test]
    fn one_bad_item_refuses_the_whole_message() {
        let good = exchange("rec", 1, 1);
        let cases = [
            (message(&[good.clone(), exchange("other", 1, 2)]), "other"),
            (message(&[good.clone(), exchange("rec", 1, 0)]), "seq"),
            (message(&[gap("rec", 1, 5, u64::MAX)]), "count"),
            (message(&[gap("rec", 1, 5, 1 << 53)]), "sequence"),
            (message(&[gap("rec", 1, 5, 0)]), "count"),
            (
                message(std::slice::from_ref(&good)).slice(..40),
                "MessagePack",
            ),
            (Bytes::from_static(b"\xc1\xc1"), "MessagePack"),
            (Bytes::new(), "no item"),
        ];
        for (payload, word) in cases {
            let error = intake().read(&node("rec"), &payload).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn small_items_that_take_much_memory_are_refused_by_what_they_take() {
        let many: Vec<_> = (1..=6000).map(|seq| gap("rec", 1, seq, 1)).collect();
        let payload = message(&many);
        assert!(payload.len() < intake().max_decompressed);
        let error = intake().read(&node("rec"), &payload).unwrap_err();
        assert!(error.is_size(), "{error}");
        let places = intake().places(&node("rec"), &payload);
        assert_eq!(places.len(), 6000);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut payload = message(&[exchange("rec", 1, 7), gap("rec", 1, 8, 3)]).to_vec();
            let at = at.index(payload.len());
            payload[at] = byte;
            let read = intake().read(&node("rec"), &payload.into());
            prop_assert!(read.map_or(true, |taken| taken.items.len() <= 2));
        }
    }
}
