//! Reading records, pieces, listings and coverage.

use std::collections::HashMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::write::{chunk_id, searchable, segments_id};
use super::{Open, kind};
use crate::record::{
    Fingerprint, Item, NodeId, Origin, Record, RecordId, SegmentBatch, Side, wire,
};
use crate::segment::{self, Header};
use crate::store::settled;
use crate::store::stored::Stored;
use crate::store::{Cursor, Error, Order, Page, Query, Settled};

/// So many places are remembered; past it the memory starts anew.
const MAX_PLACES: usize = 1 << 18;

/// Where records stand in their recorder's sequence, for those that a lookup has found: finding the
/// next one of many equal requests must not read all of them again.
#[derive(Debug, Default)]
pub(super) struct SourcePlaces {
    of: HashMap<u128, SourcePlace>,
    /// Few nodes, many records: names are kept once.
    nodes: Vec<NodeId>,
}

/// Node (its place in the list of names), epoch, sequence.
#[derive(Debug, Clone, Copy)]
struct SourcePlace(usize, u64, u64);

impl SourcePlaces {
    fn insert(&mut self, id: u128, origin: &Origin) {
        if self.of.len() >= MAX_PLACES {
            *self = Self::default();
        }
        let known = self.nodes.iter().position(|node| *node == origin.node);
        let node = known.unwrap_or_else(|| {
            self.nodes.push(origin.node.clone());
            self.nodes.len() - 1
        });
        let place = SourcePlace(node, origin.epoch.0, origin.seq.0);
        self.of.insert(id, place);
    }

    fn get(&self, id: u128) -> Option<(NodeId, u64, u64)> {
        let SourcePlace(node, epoch, seq) = *self.of.get(&id)?;
        Some((self.nodes[node].clone(), epoch, seq))
    }
}

impl Open {
    pub(super) fn record(&self, id: RecordId) -> Result<Option<Record>, Error> {
        if self.is_hidden(id) {
            return Ok(None);
        }
        match self.item(kind::RECORD, id.as_u128(), || id.to_string())? {
            None => Ok(None),
            Some(Item::Record(record)) if record.id() == id => Ok(Some(record)),
            Some(_) => Err(misplaced(id.to_string())),
        }
    }

    pub(super) fn chunk(
        &self,
        id: RecordId,
        side: Side,
        index: u32,
    ) -> Result<Option<Bytes>, Error> {
        if self.is_hidden(id) {
            return Ok(None);
        }
        let name = || format!("{id}, chunk {index}");
        match self.item(kind::CHUNK, chunk_id(id, side, index), name)? {
            None => Ok(None),
            Some(Item::Chunk(chunk)) if chunk.record == id => Ok(Some(chunk.bytes)),
            Some(_) => Err(misplaced(name())),
        }
    }

    pub(super) fn segments(&self, id: RecordId, index: u32) -> Result<Option<SegmentBatch>, Error> {
        if self.is_hidden(id) {
            return Ok(None);
        }
        let name = || format!("{id}, segments {index}");
        match self.item(kind::SEGMENTS, segments_id(id, index), name)? {
            None => Ok(None),
            Some(Item::Segments(batch)) if batch.record == id => Ok(Some(batch)),
            Some(_) => Err(misplaced(name())),
        }
    }

    fn item(&self, kind: u8, id: u128, name: impl Fn() -> String) -> Result<Option<Item>, Error> {
        let found = self.log.get(kind, id).map_err(|error| match error {
            segment::Error::Damaged { .. } => Error::Corrupt {
                key: name(),
                source: Box::new(error),
            },
            other => self.failed(other),
        })?;
        let Some(found) = found else { return Ok(None) };
        let item = wire::decode(&found.payload).map_err(|source| Error::Corrupt {
            key: name(),
            source: Box::new(source),
        })?;
        Ok(Some(item))
    }

    pub(super) fn settled(&self) -> Result<Vec<Settled>, Error> {
        let all = 0..=u128::MAX;
        let ids = self
            .log
            .ids(kind::COVERAGE, all, segment::Order::Oldest, usize::MAX);
        let mut settled = Vec::with_capacity(ids.len());
        for id in ids {
            let found = self
                .log
                .get(kind::COVERAGE, id)
                .map_err(|e| self.failed(e))?;
            // It may have been replaced, and thus moved, but it is never deleted.
            let Some(found) = found else { continue };
            let name = String::from_utf8_lossy(&found.meta);
            let one = settled::decode(&name, &found.payload)
                .ok_or_else(|| misplaced(format!("the coverage of {name}")))?;
            settled.push(one);
        }
        settled.sort_by(|a, b| (&a.node, a.epoch).cmp(&(&b.node, b.epoch)));
        Ok(settled)
    }

    pub(super) fn find(&self, print: Fingerprint, limit: usize) -> Result<Vec<RecordId>, Error> {
        let mut ids = self.log.find(kind::RECORD, searchable(print.0));
        ids.retain(|id| *id >= self.first_visible());
        if ids.len() > 1 {
            let mut placed = Vec::with_capacity(ids.len());
            for id in ids {
                // What went meanwhile, or cannot be read, is not found.
                if let Some(place) = self.source_place(id)? {
                    placed.push((place, id));
                }
            }
            placed.sort_unstable();
            ids = placed.into_iter().map(|(_, id)| id).collect();
        }
        ids.truncate(limit);
        Ok(ids.into_iter().map(RecordId::from_u128).collect())
    }

    fn source_place(&self, id: u128) -> Result<Option<(NodeId, u64, u64)>, Error> {
        if let Some(place) = self.places.lock().get(id) {
            return Ok(Some(place));
        }
        let mut origin = None;
        let mut read = |header: Header<'_>| {
            origin = Stored::read(header.meta)
                .and_then(|stored| stored.origin())
                .ok();
            ControlFlow::Break(())
        };
        match self
            .log
            .scan(kind::RECORD, id..=id, segment::Order::Oldest, &mut read)
        {
            Err(segment::Error::Damaged { .. }) => {}
            other => other.map_err(|e| self.failed(e))?,
        }
        let mut places = self.places.lock();
        Ok(origin.and_then(|origin| {
            places.insert(id, &origin);
            places.get(id)
        }))
    }

    pub(super) fn page(&self, query: &Query) -> Result<Page, Error> {
        let mut page = Page {
            items: Vec::new(),
            next: None,
        };
        if query.limit == 0 {
            page.next = query.cursor;
            return Ok(page);
        }
        let mut looked_at = 0;
        let mut last = None;
        let visit = &mut |header: Header<'_>| {
            let id = RecordId::from_u128(header.id);
            if looked_at == self.config.scan_limit {
                page.next = last.map(Cursor::after);
                return ControlFlow::Break(());
            }
            looked_at += 1;
            last = Some(id);
            let read = Stored::read(header.meta).and_then(|stored| {
                let wanted = stored.wanted(query);
                wanted.then(|| stored.summary(id)).transpose()
            });
            match read {
                Ok(Some(_)) if page.items.len() == query.limit => {
                    page.next = page.items.last().map(|item| Cursor::after(item.id));
                    return ControlFlow::Break(());
                }
                Ok(summary) => page.items.extend(summary),
                Err(_) => _ = self.metrics.unreadable.inc(),
            }
            ControlFlow::Continue(())
        };
        if let Some(ids) = self.bounds(query) {
            let order = match query.order {
                Order::NewestFirst => segment::Order::Newest,
                Order::OldestFirst => segment::Order::Oldest,
            };
            self.scan_past_damage(ids, order, visit)?;
        }
        Ok(page)
    }

    /// Scans records; where a head cannot be read, goes on behind it.
    pub(super) fn scan_past_damage(
        &self,
        mut ids: segment::Ids,
        order: segment::Order,
        visit: &mut dyn FnMut(Header<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        loop {
            let mut last = None;
            let mut note = |header: Header<'_>| {
                last = Some(header.id);
                visit(header)
            };
            match self.log.scan(kind::RECORD, ids.clone(), order, &mut note) {
                Ok(()) => return Ok(()),
                Err(segment::Error::Damaged { .. }) => self.metrics.unreadable.inc(),
                Err(error) => return Err(self.failed(error)),
            };
            let rest = last.map_or(Some(ids.clone()), |last| behind(&ids, last, order));
            let Some(rest) = rest else { return Ok(()) };
            // The first of the rest is the one that cannot be read.
            let damaged = self.log.ids(kind::RECORD, rest.clone(), order, 1);
            let Some(rest) = damaged.first().and_then(|id| behind(&rest, *id, order)) else {
                return Ok(());
            };
            ids = rest;
        }
    }

    /// The ids that can have started in the query's window and lie behind its cursor.
    ///
    /// Ids hold whole milliseconds; the exact start is compared on the summary.
    fn bounds(&self, query: &Query) -> Option<segment::Ids> {
        let start = query
            .start_us
            .map_or(0, |us| RecordId::floor_at(us).as_u128());
        let mut low = start.max(self.first_visible());
        let mut high = match query.end_us {
            None => u128::MAX,
            Some(us) => RecordId::floor_at(us.saturating_add(1000))
                .as_u128()
                .checked_sub(1)?,
        };
        if let Some(cursor) = query.cursor {
            let id = cursor.id().as_u128();
            match query.order {
                Order::NewestFirst => high = high.min(id.checked_sub(1)?),
                Order::OldestFirst => low = low.max(id.checked_add(1)?),
            }
        }
        (low <= high).then_some(low..=high)
    }
}

/// The part of `ids` behind `id`; `None` where nothing is left.
fn behind(ids: &segment::Ids, id: u128, order: segment::Order) -> Option<segment::Ids> {
    let rest = match order {
        segment::Order::Oldest => id.checked_add(1)?..=*ids.end(),
        segment::Order::Newest => *ids.start()..=id.checked_sub(1)?,
    };
    (!rest.is_empty()).then_some(rest)
}

fn misplaced(key: String) -> Error {
    Error::Corrupt {
        key,
        source: "it is something else".into(),
    }
}
