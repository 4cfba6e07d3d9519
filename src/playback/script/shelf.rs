//! Streams and batches of segments that were read lately, for all who play them back at the same time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Source, Unfit, stream_of};
use crate::record::{RecordId, SegmentBatch, Stream};
use crate::store::Store;

/// How often a batch that may still arrive is looked for.
const POLL: Duration = Duration::from_millis(50);
/// What an entry takes beside its bytes.
const ENTRY_BYTES: usize = 256;

/// A place to read streams from, which remembers the newest up to a number of bytes.
pub(in crate::playback) struct Shelf {
    store: Arc<dyn Store>,
    kept: Mutex<Kept>,
}

/// Two generations, each of half the room: what is used moves to the young one.
#[derive(Default)]
struct Kept {
    half: usize,
    bytes: usize,
    young: HashMap<Name, Entry>,
    old: HashMap<Name, Entry>,
}

/// A stream, or one of its batches.
type Name = (RecordId, Option<u32>);

#[derive(Clone)]
enum Entry {
    Stream(Arc<Stream>),
    Batch(Arc<SegmentBatch>),
}

impl Entry {
    fn bytes(&self) -> usize {
        match self {
            Self::Stream(_) => ENTRY_BYTES * 2,
            Self::Batch(batch) => {
                let segments = batch.segments.iter();
                segments
                    .map(|s| s.bytes.len() + size_of_val(s))
                    .sum::<usize>()
                    + ENTRY_BYTES
            }
        }
    }
}

impl Kept {
    fn take(&mut self, name: Name) -> Option<Entry> {
        if let Some(entry) = self.old.remove(&name) {
            self.put(name, entry);
        }
        self.young.get(&name).cloned()
    }

    fn put(&mut self, name: Name, entry: Entry) {
        if self.bytes >= self.half {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += entry.bytes();
        self.young.insert(name, entry);
    }
}

impl Shelf {
    pub(in crate::playback) fn new(store: Arc<dyn Store>, max_bytes: usize) -> Self {
        let kept = Kept {
            half: max_bytes / 2,
            ..Kept::default()
        };
        Self {
            store,
            kept: Mutex::new(kept),
        }
    }

    pub(in crate::playback) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The stream with this id.
    pub(in crate::playback) async fn stream(&self, id: RecordId) -> Result<Arc<Stream>, Unfit> {
        let kept = self.kept.lock().take((id, None));
        if let Some(Entry::Stream(stream)) = kept {
            return Ok(stream);
        }
        let record = self.store.get(id).await?;
        let stream = record.and_then(stream_of).ok_or(Unfit::Gone)?;
        let entry = Entry::Stream(stream.clone());
        self.kept.lock().put((id, None), entry);
        Ok(stream)
    }
}

#[async_trait]
impl Source for Shelf {
    async fn batch(
        &self,
        id: RecordId,
        index: u32,
        patience: Duration,
    ) -> Result<Arc<SegmentBatch>, Unfit> {
        let kept = self.kept.lock().take((id, Some(index)));
        if let Some(Entry::Batch(batch)) = kept {
            return Ok(batch);
        }
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            if let Some(batch) = self.store.segments(id, index).await? {
                let batch = Arc::new(batch);
                let entry = Entry::Batch(batch.clone());
                self.kept.lock().put((id, Some(index)), entry);
                return Ok(batch);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Unfit::Missing { index });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::playback::script::tests::batch;
    use crate::record::Direction;

    #[test]
    fn what_is_kept_stays_within_the_limit_and_what_is_used_stays_kept() {
        let mut kept = Kept {
            half: 50_000,
            ..Kept::default()
        };
        let entry = |index| {
            let bytes = Bytes::from(vec![0; 1000]);
            Entry::Batch(Arc::new(batch(index, vec![(Direction::Client, 0, bytes)])))
        };
        let name = |index| (RecordId::from_u128(1), Some(index));
        kept.put(name(0), entry(0));
        for index in 1..1000 {
            kept.put(name(index), entry(index));
            assert!(kept.take(name(0)).is_some(), "used all the time");
            let held: usize = kept
                .young
                .values()
                .chain(kept.old.values())
                .map(Entry::bytes)
                .sum();
            assert!(held <= 110_000, "{held}");
        }
        assert!(kept.take(name(1)).is_none());
    }
}
