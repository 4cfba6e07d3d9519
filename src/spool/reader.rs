//! Reads the queue in order, and tells of what was dropped in between.

use std::pin::pin;
use std::sync::Arc;

use super::Inner;
use super::error::Error;
use super::message::{GAP, ITEM, Key, Message, id};
use super::queue::Shared;
use crate::segment::{Order, Position};

/// The publisher's side of a spool; see [`super::Spool::reader`].
#[derive(Debug)]
pub struct Reader {
    inner: Arc<Inner>,
    at: Position,
    /// What comes next if nothing was dropped.
    expected: Key,
}

impl Reader {
    pub(super) fn new(inner: Arc<Inner>) -> Result<Self, Error> {
        let shared = &inner.shared;
        let (epoch, seq) = shared.ledger.lock().acknowledged();
        let expected = (epoch, seq + 1);
        // Before the search: what is appended during it lies behind this place.
        let end = shared.log.end();
        let first = shared.first_from(expected);
        let dropped = shared.ledger.lock().take_back();
        shared.count_dropped(&dropped);
        let at = first.map_or(end, |(_, position)| position);
        Ok(Self {
            inner,
            at,
            expected,
        })
    }

    /// The next messages, about `max_bytes` of them and at least one; waits for it. Safe to cancel.
    ///
    /// # Errors
    /// [`Error::Log`] where the disk refuses; calling again tries again.
    pub async fn next_batch(&mut self, max_bytes: usize) -> Result<Vec<Message>, Error> {
        let inner = Arc::clone(&self.inner);
        loop {
            let mut news = pin!(inner.shared.news.notified());
            news.as_mut().enable();
            let held = inner.shared.tail.lock().from(self.at, max_bytes);
            let (messages, next) = match held {
                Some(read) => read,
                None => self.read_disk(max_bytes).await?,
            };
            let waiting = messages.is_empty();
            let batch = self.settle(messages, next);
            if !batch.is_empty() {
                return Ok(batch);
            }
            if waiting {
                news.await;
            }
        }
    }

    /// The next messages; none where there are none yet. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Log`] where the disk refuses.
    pub fn try_next_batch(&mut self, max_bytes: usize) -> Result<Vec<Message>, Error> {
        loop {
            let shared = &self.inner.shared;
            let held = shared.tail.lock().from(self.at, max_bytes);
            let (messages, next) = match held {
                Some(read) => read,
                None => shared.read_disk(self.at, max_bytes)?,
            };
            let done = messages.is_empty();
            let batch = self.settle(messages, next);
            if done || !batch.is_empty() {
                return Ok(batch);
            }
        }
    }

    async fn read_disk(&self, max_bytes: usize) -> Result<(Vec<Message>, Position), Error> {
        let (inner, at) = (Arc::clone(&self.inner), self.at);
        let read = move || inner.shared.read_disk(at, max_bytes);
        match tokio::task::spawn_blocking(read).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down; nobody polls this again.
            Err(_) => Ok((Vec::new(), at)),
        }
    }

    /// Moves on behind `messages`; takes out what was dropped while they were read, and puts gaps in.
    fn settle(&mut self, messages: Vec<Message>, next: Position) -> Vec<Message> {
        let shared = &self.inner.shared;
        let mut ledger = shared.ledger.lock();
        let mut batch = Vec::with_capacity(messages.len());
        let gap = |(epoch, range)| Message::spool_limit(&shared.node, epoch, range);
        let nothing_left = messages.is_empty();
        for message in messages {
            let key = message.key();
            if key < self.expected || ledger.is_dropped(key) {
                continue;
            }
            if key != self.expected {
                let dropped = ledger.dropped_between(self.expected, Some(key));
                batch.extend(dropped.into_iter().map(gap));
            }
            self.expected = message.next_key();
            batch.push(message);
        }
        if nothing_left {
            batch.extend(
                ledger
                    .dropped_between(self.expected, None)
                    .into_iter()
                    .map(gap),
            );
            if let Some(last) = batch.last() {
                self.expected = last.next_key();
            }
        }
        ledger.give_out_before(self.expected);
        self.at = next;
        batch
    }
}

impl Shared {
    fn read_disk(&self, at: Position, max_bytes: usize) -> Result<(Vec<Message>, Position), Error> {
        let run = self
            .log
            .read_from(at, max_bytes)
            .map_err(|error| self.count(error))?;
        self.metrics.damaged_bytes.inc_by(run.skipped);
        let messages = run.entries.iter().filter_map(Message::of).collect();
        Ok((messages, run.next))
    }

    /// The first message at or after a place, and where it stands in the log.
    fn first_from(&self, from: Key) -> Option<(Key, Position)> {
        let first = |kind| {
            let ids = self.log.ids(kind, id(from)..=u128::MAX, Order::Oldest, 1);
            let id = *ids.first()?;
            Some((super::message::key(id), self.log.position(kind, id)?))
        };
        [ITEM, GAP].into_iter().filter_map(first).min()
    }
}
