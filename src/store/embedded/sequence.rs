//! Records with one fingerprint in the order in which their sources saw them.
//!
//! The log knows their ids; where each stands in its recorder's sequence is in its summary. That is read once for
//! each record and kept, because an answer asks again at every request, and one health check recorded all day
//! has many.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::write::searchable;
use super::{Open, kind};
use crate::record::{Epoch, Fingerprint, NodeId, RecordId, Sequence};
use crate::segment::{self, Header};
use crate::store::stored::Stored;

/// So many records are remembered over all fingerprints; past it the memory starts anew.
const MAX_REMEMBERED: usize = 1 << 18;

/// The order of what lookups found, by fingerprint.
#[derive(Debug, Default)]
pub(super) struct Orders {
    of: HashMap<u128, Arc<Ordered>>,
    records: usize,
}

/// A record's place, and its id.
type Place = (NodeId, Epoch, Sequence, u128);

/// The records of one fingerprint.
#[derive(Debug, Default)]
struct Ordered {
    /// As the log gave them, smallest first; also those whose summary cannot be read.
    ids: Vec<u128>,
    places: Vec<Place>,
}

impl Orders {
    fn remember(&mut self, print: u128, ordered: Arc<Ordered>) {
        let old = self.of.remove(&print).map_or(0, |old| old.ids.len());
        self.records = self.records - old + ordered.ids.len();
        if self.records > MAX_REMEMBERED {
            self.of.clear();
            self.records = ordered.ids.len();
        }
        self.of.insert(print, ordered);
    }
}

impl Open {
    pub(super) fn find(&self, print: Fingerprint, limit: usize) -> Vec<RecordId> {
        let print = searchable(print.0);
        let mut ids = self
            .log
            .find(kind::RECORD, print, segment::Order::Oldest, usize::MAX);
        let first_visible = self.first_visible();
        ids.drain(..ids.partition_point(|id| *id < first_visible));
        if ids.len() < 2 {
            ids.truncate(limit);
            return ids.into_iter().map(RecordId::from_u128).collect();
        }
        let known = self
            .orders
            .lock()
            .of
            .get(&print)
            .cloned()
            .unwrap_or_default();
        let ordered = if known.ids == ids {
            known
        } else {
            let ordered = Arc::new(self.order(ids, &known));
            self.orders.lock().remember(print, Arc::clone(&ordered));
            ordered
        };
        let first = ordered.places.iter().take(limit);
        first.map(|(.., id)| RecordId::from_u128(*id)).collect()
    }

    /// The largest ids first.
    pub(super) fn newest(&self, print: Fingerprint, limit: usize) -> Vec<RecordId> {
        let print = searchable(print.0);
        let order = segment::Order::Newest;
        let ids = self.log.find(kind::RECORD, print, order, limit);
        let first_visible = self.first_visible();
        let visible = ids.into_iter().take_while(|id| *id >= first_visible);
        visible.map(RecordId::from_u128).collect()
    }

    /// Puts ids in order, with what is known of some of them.
    fn order(&self, ids: Vec<u128>, known: &Ordered) -> Ordered {
        let kept = known.places.iter();
        let kept = kept.filter(|(.., id)| ids.binary_search(id).is_ok());
        let mut places: Vec<Place> = kept.cloned().collect();
        for id in ids.iter().filter(|id| known.ids.binary_search(id).is_err()) {
            // What cannot be read has no place.
            places.extend(self.place(*id));
        }
        // The old ones are in order already, which this sort makes use of.
        places.sort();
        Ordered { ids, places }
    }

    fn place(&self, id: u128) -> Option<Place> {
        let mut place = None;
        let mut read = |header: Header<'_>| {
            let origin = Stored::read(header.meta).and_then(|stored| stored.origin());
            place = origin.ok().map(|o| (o.node, o.epoch, o.seq, id));
            ControlFlow::Break(())
        };
        let order = segment::Order::Oldest;
        self.log.scan(kind::RECORD, id..=id, order, &mut read);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_orders_is_bounded() {
        let mut orders = Orders::default();
        let many = |count: usize| {
            let ids = (0..count as u128).collect();
            Arc::new(Ordered {
                ids,
                places: Vec::new(),
            })
        };
        orders.remember(1, many(MAX_REMEMBERED - 10));
        orders.remember(2, many(4));
        orders.remember(2, many(10));
        assert_eq!((orders.of.len(), orders.records), (2, MAX_REMEMBERED));
        orders.remember(3, many(1));
        assert_eq!((orders.of.len(), orders.records), (1, 1));
    }
}
