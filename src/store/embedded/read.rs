//! Reading records, pieces, listings and coverage.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::write::{chunk_id, segments_id};
use super::{Open, kind};
use crate::record::{Item, Record, RecordId, SegmentBatch, Side};
use crate::segment::{self, Header};
use crate::store::stored::Stored;
use crate::store::{Cursor, Error, Order, Page, Pieces, Query, Settled};
use crate::store::{open, settled};

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

    /// Asks the index alone.
    pub(super) fn first_missing(&self, id: RecordId, of: Pieces, count: u32) -> Option<u32> {
        if self.is_hidden(id) {
            return (count > 0).then_some(0);
        }
        let is_there = |index: u32| {
            let (kind, id) = match of {
                Pieces::Body(side) => (kind::CHUNK, chunk_id(id, side, index)),
                Pieces::Segments => (kind::SEGMENTS, segments_id(id, index)),
            };
            self.log.position(kind, id).is_some()
        };
        (0..count).find(|index| !is_there(*index))
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
        open(&found.payload, &self.config.keys, name).map(Some)
    }

    pub(super) fn settled(&self) -> Result<Vec<Settled>, Error> {
        let all = 0..=u128::MAX;
        let ids = self
            .log
            .ids(kind::COVERAGE, all, segment::Order::Oldest, usize::MAX);
        let mut settled = Vec::with_capacity(ids.len());
        for id in ids {
            let found = match self.log.get(kind::COVERAGE, id) {
                // It was deleted meanwhile.
                Ok(None) => continue,
                Ok(found) => found,
                Err(segment::Error::Damaged { .. }) => None,
                Err(error) => return Err(self.failed(error)),
            };
            let read = found.and_then(|found| {
                let name = String::from_utf8_lossy(&found.meta);
                settled::decode(&name, &found.payload)
            });
            let Some(one) = read else {
                // That life is asked for again, and what is there already is not stored twice.
                self.metrics.unreadable.inc();
                tracing::error!("the coverage of one life cannot be read; it begins anew");
                continue;
            };
            settled.push(one);
        }
        settled.sort_by(|a, b| (&a.node, a.epoch).cmp(&(&b.node, b.epoch)));
        Ok(settled)
    }

    pub(super) fn page(&self, query: &Query) -> Page {
        let mut page = Page {
            items: Vec::new(),
            next: None,
        };
        if query.limit == 0 {
            page.next = query.cursor;
            return page;
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
            let read = Stored::open(header.meta, id, &self.config.keys).and_then(|stored| {
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
        if let Some(ids) = query.ids(self.first_visible()) {
            self.scan(ids, query.order, visit);
        }
        page
    }

    /// Scans what is kept beside records.
    pub(super) fn scan(
        &self,
        ids: segment::Ids,
        order: Order,
        visit: &mut dyn FnMut(Header<'_>) -> ControlFlow<()>,
    ) {
        let order = match order {
            Order::NewestFirst => segment::Order::Newest,
            Order::OldestFirst => segment::Order::Oldest,
        };
        self.log.scan(kind::RECORD, ids, order, visit);
    }
}

fn misplaced(key: String) -> Error {
    Error::Corrupt {
        key,
        source: "it is something else".into(),
    }
}
