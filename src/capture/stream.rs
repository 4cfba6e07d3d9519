//! The copy of one stream: TCP, or what follows an upgrade, message by message where that is WebSocket.
//!
//! Both directions feed one queue, so their order is the order in which the bytes passed; the encoder puts
//! what came within a few milliseconds into one batch. A stream may live for days: nothing of it stays here.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use super::calls::{Heard, Listener};
use super::frames::Piece;
use super::queue::{Message, StreamPart};
use super::upgrade::{Conversation, Handshake};
use super::{Connection, Inner, MESSAGE_OVERHEAD};
use crate::record::{Application, Direction, Frame, Outcome, Part, Protocol, RecordId, Upgrade};

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
    keeps: Keeps,
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
    pub(super) upgrade: Option<Box<Upgrade>>,
}

impl SharedStream {
    /// Counts bytes that passed; gives their place in their direction.
    fn passed(&self, direction: Direction, count: usize) -> u64 {
        let passed = match direction {
            Direction::Client => &self.client_bytes,
            Direction::Server => &self.server_bytes,
        };
        if self.keeps == Keeps::Nothing && count > 0 {
            self.truncated.store(true, Relaxed);
        }
        passed.fetch_add(count as u64, Relaxed)
    }

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
pub struct StreamTee {
    stream: Option<Arc<SharedStream>>,
    /// What is said in it, where it began with a handshake.
    conversation: Option<Conversation>,
}

impl StreamTee {
    pub(super) fn begin(
        inner: &Arc<Inner>,
        connection: &Arc<Connection>,
        keeps: Keeps,
    ) -> Option<Self> {
        Self::open(inner, connection, connection.protocol, None, keeps)
    }

    /// The copy of what follows a handshake.
    pub(super) fn after(
        inner: &Arc<Inner>,
        connection: &Arc<Connection>,
        handshake: Handshake,
    ) -> Option<Self> {
        let (protocol, exchange) = (handshake.protocol, handshake.exchange);
        let mut tee = Self::open(inner, connection, protocol, Some(exchange), Keeps::Segments)?;
        tee.conversation = Some(Conversation::new(handshake, inner.config.chunk_bytes / 2));
        Some(tee)
    }

    fn open(
        inner: &Arc<Inner>,
        connection: &Arc<Connection>,
        protocol: Protocol,
        exchange: Option<RecordId>,
        keeps: Keeps,
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
            keeps,
            truncated: AtomicBool::new(false),
            batches: AtomicU32::new(0),
            calls: Mutex::new(match (connection.protocol, keeps) {
                (Protocol::Tcp, Keeps::Segments) => Listener::new(),
                _ => Listener::deaf(),
            }),
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

    /// Whether it wants to see the bytes that pass, and not just their number.
    #[must_use]
    pub fn keeps_bytes(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(|stream| stream.keeps == Keeps::Segments)
    }

    /// So many bytes passed in one direction, which are not there to be seen.
    pub fn passed(&self, direction: Direction, count: usize) {
        if let Some(stream) = &self.stream {
            stream.passed(direction, count);
        }
    }

    /// Bytes passed in one direction; empty where that side closed.
    pub fn segment(&mut self, direction: Direction, bytes: &Bytes) {
        let Some(stream) = &self.stream else { return };
        let position = stream.passed(direction, bytes.len());
        if stream.keeps == Keeps::Nothing {
            return;
        }
        let offset_us = Inner::micros(stream.started, Instant::now());
        match &mut self.conversation {
            None => keep(stream, direction, (position, offset_us), bytes, None),
            Some(conversation) => conversation.read(direction, bytes, &mut |piece: Piece| {
                keep(
                    stream,
                    direction,
                    (position, offset_us),
                    &piece.bytes,
                    piece.frame,
                );
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
                // Nobody listens to messages, so their place does not matter.
                keep(&stream, direction, (0, end_us), &piece.bytes, piece.frame);
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

/// Keeps bytes as far as the limit on a stream goes; they passed at this place of their direction, at this time.
fn keep(
    stream: &Arc<SharedStream>,
    direction: Direction,
    (mut position, offset_us): (u64, u64),
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
        push(stream, direction, (position, offset_us), &part, frame);
        position += part.len() as u64;
    }
}

fn push(
    stream: &Arc<SharedStream>,
    direction: Direction,
    (position, offset_us): (u64, u64),
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
            position,
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
