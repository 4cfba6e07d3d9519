//! The copy of one stream: TCP, or what follows an upgrade, message by message where that is WebSocket.
//!
//! Both directions feed one queue, so their order is the order in which the bytes passed; the encoder puts
//! what came within a few milliseconds into one batch. A stream may live for days: nothing of it stays here.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;

use super::frames::Piece;
use super::queue::{Message, StreamPart};
use super::upgrade::{Conversation, Handshake};
use super::{Connection, Inner, MESSAGE_OVERHEAD};
use crate::record::{Direction, Frame, Outcome, Part, Protocol, RecordId, Upgrade};

/// All that is known of a stream.
#[derive(Debug)]
pub(super) struct SharedStream {
    inner: Arc<Inner>,
    pub(super) id: RecordId,
    pub(super) connection: Arc<Connection>,
    pub(super) protocol: Protocol,
    /// The exchange that it began with.
    pub(super) exchange: Option<RecordId>,
    started: Instant,
    pub(super) started_us: i64,
    pub(super) monotonic_us: u64,
    pub(super) client_bytes: AtomicU64,
    pub(super) server_bytes: AtomicU64,
    kept: AtomicU64,
    /// Bytes that were not kept since the last that were, of the client and of the server.
    missing: [AtomicU64; 2],
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
    pub(super) upgrade: Option<Box<Upgrade>>,
}

impl Drop for SharedStream {
    fn drop(&mut self) {
        self.inner.queue.release(MESSAGE_OVERHEAD);
    }
}

/// The copy of a stream. Dropped before [`StreamTee::end`]: the proxy gave it up.
#[derive(Debug)]
pub struct StreamTee {
    stream: Option<Arc<SharedStream>>,
    /// What is said in it, where it began with a handshake.
    conversation: Option<Conversation>,
}

impl StreamTee {
    pub(super) fn begin(inner: &Arc<Inner>, connection: &Arc<Connection>) -> Option<Self> {
        Self::open(inner, connection, connection.protocol, None)
    }

    /// The copy of what follows a handshake.
    pub(super) fn after(
        inner: &Arc<Inner>,
        connection: &Arc<Connection>,
        handshake: Handshake,
    ) -> Option<Self> {
        let (protocol, exchange) = (handshake.protocol, handshake.exchange);
        let mut tee = Self::open(inner, connection, protocol, Some(exchange))?;
        tee.conversation = Some(Conversation::new(handshake, inner.config.chunk_bytes / 2));
        Some(tee)
    }

    fn open(
        inner: &Arc<Inner>,
        connection: &Arc<Connection>,
        protocol: Protocol,
        exchange: Option<RecordId>,
    ) -> Option<Self> {
        if !inner.queue.reserve(MESSAGE_OVERHEAD) {
            inner.queue.drop_one();
            return None;
        }
        let (started, started_us) = (Instant::now(), Inner::wall_us());
        let stream = SharedStream {
            inner: Arc::clone(inner),
            id: inner.ids.next_id(started_us),
            connection: Arc::clone(connection),
            protocol,
            exchange,
            started,
            started_us,
            monotonic_us: Inner::micros(inner.epoch, started),
            client_bytes: AtomicU64::new(0),
            server_bytes: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            missing: [AtomicU64::new(0), AtomicU64::new(0)],
            truncated: AtomicBool::new(false),
            batches: AtomicU32::new(0),
            end: OnceLock::new(),
        };
        Some(Self {
            stream: Some(Arc::new(stream)),
            conversation: None,
        })
    }

    /// The record's id; `None` once it has ended.
    pub(super) fn id(&self) -> Option<RecordId> {
        self.stream.as_ref().map(|stream| stream.id)
    }

    /// Bytes passed in one direction; empty where that side closed.
    pub fn segment(&mut self, direction: Direction, bytes: &Bytes) {
        let Some(stream) = &self.stream else { return };
        let passed = match direction {
            Direction::Client => &stream.client_bytes,
            Direction::Server => &stream.server_bytes,
        };
        passed.fetch_add(bytes.len() as u64, Relaxed);
        let offset_us = Inner::micros(stream.started, Instant::now());
        match &mut self.conversation {
            None => keep(stream, direction, offset_us, bytes, None),
            Some(conversation) => conversation.read(direction, bytes, &mut |piece: Piece| {
                keep(stream, direction, offset_us, &piece.bytes, piece.frame);
            }),
        }
    }

    /// The stream has ended.
    pub fn end(mut self, outcome: Outcome, upstream: Option<&Arc<str>>) {
        self.close(outcome, upstream.cloned());
    }

    fn close(&mut self, outcome: Outcome, upstream: Option<Arc<str>>) {
        let Some(stream) = self.stream.take() else {
            return;
        };
        let end_us = Inner::micros(stream.started, Instant::now());
        let mut conversation = self.conversation.take();
        if let Some(conversation) = &mut conversation {
            conversation.finish(|direction, piece| {
                keep(&stream, direction, end_us, &piece.bytes, piece.frame);
            });
        }
        let _ = stream.end.set(StreamEnd {
            outcome: match &conversation {
                None => outcome,
                Some(conversation) => conversation.judge(outcome),
            },
            upstream,
            end_us,
            upgrade: conversation.map(Conversation::upgrade),
        });
        let inner = Arc::clone(&stream.inner);
        if inner.queue.push(Message::StreamEnd(stream)).is_err() {
            inner.queue.drop_one();
        }
    }
}

impl Drop for StreamTee {
    fn drop(&mut self) {
        self.close(Outcome::ProxyClosed("the stream was given up".into()), None);
    }
}

/// Keeps bytes as far as the limit on a stream goes.
fn keep(
    stream: &Arc<SharedStream>,
    direction: Direction,
    offset_us: u64,
    bytes: &Bytes,
    frame: Option<Frame>,
) {
    let limit = stream.inner.config.max_stream_bytes;
    let before = stream.kept.fetch_add(bytes.len() as u64, Relaxed);
    let room = usize::try_from(limit.saturating_sub(before)).unwrap_or(usize::MAX);
    let cut = room < bytes.len();
    if cut && !stream.truncated.swap(true, Relaxed) {
        stream.inner.metrics.truncated.limit.inc();
    }
    if room == 0 {
        return;
    }
    let bytes = bytes.slice(..bytes.len().min(room));
    // A message of which the end is not kept has no end.
    let frame = frame.map(|frame| match cut {
        true => Frame {
            part: Part::of(frame.part.begins(), false),
            ..frame
        },
        false => frame,
    });
    for part in pieces(bytes, stream.inner.config.chunk_bytes / 2) {
        push(stream, direction, offset_us, &part, frame);
    }
}

fn push(
    stream: &Arc<SharedStream>,
    direction: Direction,
    offset_us: u64,
    bytes: &Bytes,
    frame: Option<Frame>,
) {
    let queue = &stream.inner.queue;
    let missing = match direction {
        Direction::Client => &stream.missing[0],
        Direction::Server => &stream.missing[1],
    };
    let room = bytes.len() + MESSAGE_OVERHEAD;
    let reserved = queue.reserve_bulk(room);
    let taken = reserved && {
        let before = missing.swap(0, Relaxed);
        let part = StreamPart {
            stream: Arc::clone(stream),
            direction,
            offset_us,
            // A shared slice would keep a whole read buffer alive; a message's bytes are its own.
            bytes: match frame {
                Some(_) => bytes.clone(),
                None => Bytes::copy_from_slice(bytes),
            },
            frame,
            missing: before,
            room,
        };
        let taken = queue.push(Message::Segment(Box::new(part))).is_ok();
        if !taken {
            queue.release(room);
            missing.fetch_add(before, Relaxed);
        }
        taken
    };
    if !taken {
        missing.fetch_add(bytes.len() as u64, Relaxed);
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
