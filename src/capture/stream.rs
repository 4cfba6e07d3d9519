//! The copy of one byte stream: TCP, or what follows an upgrade.
//!
//! Both directions feed one queue, so their order is the order in which the bytes passed; the encoder puts
//! what came within a few milliseconds into one batch. A stream may live for days: nothing of it stays here.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use super::calls::{Heard, Listener};
use super::queue::{Message, StreamPart};
use super::{Connection, Inner, MESSAGE_OVERHEAD};
use crate::record::{Application, Direction, Outcome, Protocol, RecordId};

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
    pub(super) truncated: AtomicBool,
    /// How many batches there are; the encoder's.
    pub(super) batches: AtomicU32,
    /// What is said on it; the encoder's, so nobody ever waits for it.
    calls: Mutex<Listener>,
    pub(super) end: OnceLock<StreamEnd>,
}

#[derive(Debug)]
pub(super) struct StreamEnd {
    pub(super) outcome: Outcome,
    pub(super) upstream: Option<Arc<str>>,
    pub(super) end_us: u64,
}

impl SharedStream {
    /// Listens to a part of it; in the order in which the parts passed.
    pub(super) fn hear(&self, part: &StreamPart) {
        let heard = Heard {
            direction: part.direction,
            position: part.position,
            offset_us: part.offset_us,
            bytes: &part.bytes,
        };
        if !self.calls.lock().hear(heard, &self.inner.calls) {
            self.inner.metrics.calls_given_up.inc();
        }
    }

    /// What was said on it, once it has ended.
    pub(super) fn application(&self) -> Option<Application> {
        let truncated = self.truncated.load(Relaxed);
        self.calls.lock().finish(truncated, &self.inner.calls)
    }
}

impl Drop for SharedStream {
    fn drop(&mut self) {
        // Of one whose end was not recorded, too.
        self.calls.get_mut().finish(true, &self.inner.calls);
        self.inner.queue.release(MESSAGE_OVERHEAD);
    }
}

/// The copy of a stream. Dropped before [`StreamTee::end`]: the proxy gave it up.
#[derive(Debug)]
pub struct StreamTee(Option<Arc<SharedStream>>);

impl StreamTee {
    pub(super) fn begin(inner: &Arc<Inner>, connection: &Arc<Connection>) -> Option<Self> {
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
            truncated: AtomicBool::new(false),
            batches: AtomicU32::new(0),
            calls: Mutex::new(match connection.protocol {
                Protocol::Tcp => Listener::new(),
                _ => Listener::deaf(),
            }),
            end: OnceLock::new(),
        }))))
    }

    /// Bytes passed in one direction; empty where that side closed.
    pub fn segment(&self, direction: Direction, bytes: &Bytes) {
        let Some(stream) = &self.0 else { return };
        let passed = match direction {
            Direction::Client => &stream.client_bytes,
            Direction::Server => &stream.server_bytes,
        };
        let mut position = passed.fetch_add(bytes.len() as u64, Relaxed);
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
            push(stream, direction, position, offset_us, &part);
            position += part.len() as u64;
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

fn push(
    stream: &Arc<SharedStream>,
    direction: Direction,
    position: u64,
    offset_us: u64,
    bytes: &Bytes,
) {
    let queue = &stream.inner.queue;
    let room = bytes.len() + MESSAGE_OVERHEAD;
    let reserved = queue.reserve_bulk(room);
    let taken = reserved && {
        let part = StreamPart {
            stream: Arc::clone(stream),
            direction,
            position,
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
