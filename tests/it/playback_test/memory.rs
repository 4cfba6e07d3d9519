//! A store in memory: just enough of the contract for playback.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use qproxy::record::{
    Fingerprint, FingerprintRules, Item, Origin, Record, RecordId, RequestView, SegmentBatch, Side,
};
use qproxy::store::{
    Batch, Cursor, Error, Expired, Order, Page, Query, Receipt, Settled, Stats, Store, Summary,
};

#[derive(Default)]
pub(crate) struct MemoryStore {
    inner: Mutex<Inner>,
    broken: AtomicBool,
    absent: AtomicUsize,
}

#[derive(Default)]
struct Inner {
    records: BTreeMap<RecordId, Record>,
    prints: HashMap<Fingerprint, Vec<(Origin, RecordId)>>,
    chunks: HashMap<(RecordId, Side, u32), Bytes>,
}

impl MemoryStore {
    pub(crate) fn add(&self, record: &Record) {
        let mut inner = self.inner.lock();
        if let Some(exchange) = record.as_exchange() {
            let print =
                FingerprintRules::default().fingerprint(&RequestView::from(&exchange.request));
            let prints = inner.prints.entry(print).or_default();
            prints.push((exchange.origin.clone(), exchange.id));
            prints.sort_by_key(|(origin, _)| (origin.node.clone(), origin.epoch, origin.seq));
        }
        inner.records.insert(record.id(), record.clone());
    }

    pub(crate) fn add_chunk(&self, id: RecordId, side: Side, index: u32, bytes: Bytes) {
        self.inner.lock().chunks.insert((id, side, index), bytes);
    }

    /// From now on every question fails.
    pub(crate) fn break_down(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }

    /// How often a chunk was asked for that is not there.
    pub(crate) fn absent(&self) -> usize {
        self.absent.load(Ordering::SeqCst)
    }

    fn check(&self) -> Result<(), Error> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        Ok(())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put(&self, batch: Batch) -> Result<Receipt, Error> {
        self.check()?;
        for arrival in batch.arrivals {
            match arrival.decoded.item {
                Item::Record(record) => self.add(&record),
                Item::Chunk(chunk) => {
                    self.add_chunk(chunk.record, chunk.side, chunk.index, chunk.bytes);
                }
                Item::Segments(_) | Item::Gap(_) => {}
            }
        }
        Ok(Receipt::default())
    }

    async fn get(&self, id: RecordId) -> Result<Option<Record>, Error> {
        self.check()?;
        Ok(self.inner.lock().records.get(&id).cloned())
    }

    async fn delete(&self, id: RecordId) -> Result<bool, Error> {
        self.check()?;
        let mut inner = self.inner.lock();
        for prints in inner.prints.values_mut() {
            prints.retain(|(_, known)| *known != id);
        }
        Ok(inner.records.remove(&id).is_some())
    }

    async fn list(&self, query: &Query) -> Result<Page, Error> {
        self.check()?;
        let inner = self.inner.lock();
        let mut all: Vec<Summary> = inner.records.values().map(Summary::from).collect();
        if query.order == Order::NewestFirst {
            all.reverse();
        }
        let behind = |id: RecordId| {
            query.cursor.is_none_or(|cursor| match query.order {
                Order::NewestFirst => id < cursor.id(),
                Order::OldestFirst => id > cursor.id(),
            })
        };
        let within = |us: i64| {
            query.start_us.is_none_or(|start| us >= start)
                && query.end_us.is_none_or(|end| us < end)
        };
        let mut found = all
            .into_iter()
            .filter(|s| behind(s.id) && within(s.started_us) && query.filter.matches(s));
        let items: Vec<Summary> = found.by_ref().take(query.limit).collect();
        let next = found.next().and(items.last()).map(|s| Cursor::after(s.id));
        Ok(Page { items, next })
    }

    async fn lookup(&self, fingerprint: Fingerprint, limit: usize) -> Result<Vec<RecordId>, Error> {
        self.check()?;
        let inner = self.inner.lock();
        let ids = inner.prints.get(&fingerprint).into_iter().flatten();
        Ok(ids.map(|(_, id)| *id).take(limit).collect())
    }

    async fn newest(&self, fingerprint: Fingerprint, limit: usize) -> Result<Vec<RecordId>, Error> {
        let mut ids = self.lookup(fingerprint, usize::MAX).await?;
        ids.sort_by(|a, b| b.cmp(a));
        ids.truncate(limit);
        Ok(ids)
    }

    async fn chunk(&self, id: RecordId, side: Side, index: u32) -> Result<Option<Bytes>, Error> {
        self.check()?;
        let chunk = self.inner.lock().chunks.get(&(id, side, index)).cloned();
        if chunk.is_none() {
            self.absent.fetch_add(1, Ordering::SeqCst);
        }
        Ok(chunk)
    }

    async fn segments(&self, _: RecordId, _: u32) -> Result<Option<SegmentBatch>, Error> {
        Ok(None)
    }

    async fn settled(&self) -> Result<Vec<Settled>, Error> {
        Ok(Vec::new())
    }

    async fn expire(&self, _: i64) -> Result<Expired, Error> {
        Ok(Expired::default())
    }

    async fn stats(&self) -> Result<Stats, Error> {
        let records = self.inner.lock().records.len() as u64;
        Ok(Stats {
            records,
            ..Stats::default()
        })
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
