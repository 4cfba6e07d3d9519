//! The copy of one byte stream: TCP, or what follows an upgrade.
//!
//! Both directions feed one queue, so their order is the order in which the bytes passed; the encoder puts
//! what came within a few milliseconds into one batch. A stream may live for days: nothing of it stays here.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;

use super::queue::{Message, StreamPart};
use super::{Connection, Inner, MESSAGE_OVERHEAD};
use crate::record::{Direction, Outcome, RecordId};

/// What is kept of a stream beside its summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    /// What passed, up to the limit.
    Segments,
    Nothing,
}

/// All that is known of a stream.
#[derive(Debug)]
pub(super) struct SharedStream {
    inner: Arc<Inner>,
    pub(super) id: RecordId,
    pub(super) connection: Arc<Connection>,
    started: Instant,
    pub(super) started_us: i64,
    pub(super) monotonic_us: u64,
    pub(super) client_bytes: AtomicU64,
    pub(super) server_bytes: AtomicU64,
    kept: AtomicU64,
    keeps: Keeps,
    pub(super) truncated: AtomicBool,
    /// How many batches there are; the encoder's.
    pub(super) batches: AtomicU32,
    pub(super) end: OnceLock<StreamEnd>,
}

#[derive(Debug)]
pub(super) struct StreamEnd {
    pub(super) outcome: Outcome,
    pub(super) upstream: Option<Arc<str>>,
    pub(super) end_us: u64,
}

impl Drop for SharedStream {
    fn drop(&mut self) {
        self.inner.queue.release(MESSAGE_OVERHEAD);
    }
}

/// The copy of a stream. Dropped before [`StreamTee::end`]: the proxy gave it up.
#[derive(Debug)]
pub struct StreamTee(Option<Arc<SharedStream>>);

impl StreamTee {
    pub(super) fn begin(
        inner: &Arc<Inner>,
        connection: &Arc<Connection>,
        keeps: Keeps,
    ) -> Option<Self> {
        if !inner.queue.reserve(MESSAGE_OVERHEAD) {
            inner.queue.drop_one();
            return None;
        }
        let (started, started_us) = (Instant::now(), Inner::wall_us());
        Some(Self(Some(Arc::new(SharedStream {
            inner: Arc::clone(inner),
            id: inner.ids.next_id(started_us),
            connection: Arc::clone(connection),
            started,
            started_us,
            monotonic_us: Inner::micros(inner.epoch, started),
            client_bytes: AtomicU64::new(0),
            server_bytes: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            keeps,
            truncated: AtomicBool::new(false),
            batches: AtomicU32::new(0),
            end: OnceLock::new(),
        }))))
    }

    /// Whether it wants to see the bytes that pass, and not just their number.
    #[must_use]
    pub fn keeps_bytes(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|stream| stream.keeps == Keeps::Segments)
    }

    /// So many bytes passed in one direction, which are not there to be seen.
    pub fn passed(&self, direction: Direction, count: usize) {
        let Some(stream) = &self.0 else { return };
        let passed = match direction {
            Direction::Client => &stream.client_bytes,
            Direction::Server => &stream.server_bytes,
        };
        passed.fetch_add(count as u64, Relaxed);
        if stream.keeps == Keeps::Nothing && count > 0 {
            stream.truncated.store(true, Relaxed);
        }
    }

    /// Bytes passed in one direction; empty where that side closed.
    pub fn segment(&self, direction: Direction, bytes: &Bytes) {
        self.passed(direction, bytes.len());
        let Some(stream) = self.0.as_ref().filter(|_| self.keeps_bytes()) else {
            return;
        };
        let limit = stream.inner.config.max_stream_bytes;
        let before = stream.kept.fetch_add(bytes.len() as u64, Relaxed);
        let room = usize::try_from(limit.saturating_sub(before)).unwrap_or(usize::MAX);
        if room < bytes.len() {
            stream.truncated.store(true, Relaxed);
            stream.inner.metrics.truncated.limit.inc();
        }
        let bytes = bytes.slice(..bytes.len().min(room));
        if room == 0 {
            return;
        }
        let offset_us = Inner::micros(stream.started, Instant::now());
        for part in pieces(bytes, stream.inner.config.chunk_bytes / 2) {
            push(stream, direction, offset_us, &part);
        }
    }

    /// The stream has ended.
    pub fn end(mut self, outcome: Outcome, upstream: Option<&Arc<str>>) {
        self.close(outcome, upstream.cloned());
    }

    fn close(&mut self, outcome: Outcome, upstream: Option<Arc<str>>) {
        if let Some(stream) = self.0.take() {
            let end_us = Inner::micros(stream.started, Instant::now());
            let _ = stream.end.set(StreamEnd {
                outcome,
                upstream,
                end_us,
            });
            let inner = Arc::clone(&stream.inner);
            if inner.queue.push(Message::StreamEnd(stream)).is_err() {
                inner.queue.drop_one();
            }
        }
    }
}

impl Drop for StreamTee {
    fn drop(&mut self) {
        self.close(Outcome::ProxyClosed("the stream was given up".into()), None);
    }
}

fn push(stream: &Arc<SharedStream>, direction: Direction, offset_us: u64, bytes: &Bytes) {
    let queue = &stream.inner.queue;
    let room = bytes.len() + MESSAGE_OVERHEAD;
    let reserved = queue.reserve_bulk(room);
    let taken = reserved && {
        let part = StreamPart {
            stream: Arc::clone(stream),
            direction,
            offset_us,
            // A shared slice would keep a whole read buffer alive.
            bytes: Bytes::copy_from_slice(bytes),
            room,
        };
        let taken = queue.push(Message::Segment(Box::new(part))).is_ok();
        if !taken {
            queue.release(room);
        }
        taken
    };
    if !taken {
        stream.truncated.store(true, Relaxed);
        queue.drop_one();
    }
}

/// The bytes in pieces of at most `size`; one empty piece where there are none.
fn pieces(mut bytes: Bytes, size: usize) -> impl Iterator<Item = Bytes> {
    let mut first = true;
    std::iter::from_fn(move || {
        if bytes.is_empty() && !first {
            return None;
        }
        first = false;
        Some(bytes.split_to(bytes.len().min(size)))
    })
}
