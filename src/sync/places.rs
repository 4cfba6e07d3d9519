//! Which places of a sequence a message takes that is refused for its size.
//!
//! Pure. They are settled as lost, since asking again would bring the same message. Only the part that may be unpacked is
//! looked at: of an item that is cut off there the origin is read, which stands before all that can be large.

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::record::{Epoch, NodeId, SequenceRange, wire};

use super::intake::place;
use super::notice::MAX_SEQUENCE;

/// The places of the items in `message`, which may be cut off anywhere; items of other nodes than `node` take none.
pub(super) fn of(message: &Bytes, node: &NodeId) -> Vec<(Epoch, SequenceRange)> {
    let (mut places, mut at) = (Vec::new(), 0);
    for decoded in wire::decode_all(message).map_while(Result::ok) {
        at += decoded.raw.len();
        if let Ok(range) = place(&decoded.item, node) {
            places.push((decoded.item.origin().epoch, range));
        }
    }
    places.extend(of_cut_item(&message[at..], node));
    places
}

fn of_cut_item(bytes: &[u8], node: &NodeId) -> Option<(Epoch, SequenceRange)> {
    let mut found = None;
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    // It ends before the value does: what counts is what was found by then.
    let _ = OriginOf(&mut found).deserialize(&mut reader);
    let origin = found.filter(|origin| origin.node == node.as_str())?;
    let range = SequenceRange::spanning(origin.seq, 1)
        .filter(|range| range.first > 0 && range.last <= MAX_SEQUENCE)?;
    Some((Epoch(origin.epoch), range))
}

#[derive(serde::Deserialize)]
struct Origin<'a> {
    node: &'a str,
    epoch: u64,
    seq: u64,
}

struct OriginOf<'o, 'de>(&'o mut Option<Origin<'de>>);

impl<'de> DeserializeSeed<'de> for OriginOf<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OriginOf<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an item")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<&str>()? {
            if key == "origin" {
                *self.0 = Some(map.next_value()?);
                return Ok(());
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{exchange, gap, message};
    use super::*;

    #[test]
    fn every_cut_of_a_message_tells_the_places_before_it_and_that_of_the_item_it_cuts() {
        let node = NodeId::new("rec").unwrap();
        let items = [
            gap("rec", 3, 5, 4),
            exchange("other", 3, 9),
            exchange("rec", 3, 10),
        ];
        let whole = message(&items);
        let ranges = |message: &Bytes| -> Vec<_> {
            let places = of(message, &node).into_iter();
            places
                .map(|(epoch, range)| (epoch.0, range.first, range.last))
                .collect()
        };
        let all = [(3, 5, 8), (3, 10, 10)];
        assert_eq!(ranges(&whole), all);
        let cut_in_the_last_body = whole.slice(..whole.len() - 80);
        assert_eq!(ranges(&cut_in_the_last_body), all);
        for length in 0..whole.len() {
            let told = ranges(&whole.slice(..length));
            assert!(told.len() <= 2, "{told:?} at {length}");
        }
        assert_eq!(ranges(&Bytes::from_static(b"\xc1\xc1")), []);
    }
}
