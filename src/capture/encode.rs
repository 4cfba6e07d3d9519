//! Messages in, encoded items out; gives out the sequence numbers, so that there is no number without an item.
//!
//! What is too large for one message has its inline bodies moved out into chunks; what is still too large
//! becomes a gap.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::exchange::Shared;
use super::model::{self, Names};
use super::queue::{Chunk, Message, StreamPart};
use super::stream::SharedStream;
use super::{Encoded, Metrics};
use crate::record::{
    BodyChunk, Epoch, Exchange, Gap, GapReason, Item, Keyring, NodeId, Origin, Record, RecordId,
    Segment, SegmentBatch, Sequence, Side, Stream, Subject, Timing, wire,
};

/// What one segment takes in a batch beside its bytes.
const SEGMENT_OVERHEAD: usize = 64;
/// What its frame takes.
const FRAME_OVERHEAD: usize = 40;

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) message: usize,
    pub(super) chunk: usize,
}

/// Encoded items of a batch, before they are cut apart.
#[derive(Debug)]
struct Placed {
    seq: Sequence,
    span: u64,
    subject: Subject,
    end: usize,
}

/// Segments of one stream that wait for more of it within the same batch.
#[derive(Debug)]
struct OpenBatch {
    stream: Arc<SharedStream>,
    segments: Vec<Segment>,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct Encoder {
    node: NodeId,
    epoch: Epoch,
    next: u64,
    limits: Limits,
    metrics: Metrics,
    keys: Arc<Keyring>,
    names: Names,
    open: Vec<OpenBatch>,
    out: Vec<u8>,
    placed: Vec<Placed>,
}

impl Encoder {
    /// What is written is sealed with the first of `keys`, if there is one.
    pub(super) fn new(
        node: NodeId,
        epoch: Epoch,
        limits: Limits,
        metrics: Metrics,
        keys: Arc<Keyring>,
    ) -> Self {
        Self {
            node,
            epoch,
            next: 1,
            limits,
            metrics,
            keys,
            names: Names::default(),
            open: Vec::new(),
            out: Vec::new(),
            placed: Vec::new(),
        }
    }

    /// Encodes a message; segments may wait for [`Encoder::finish`].
    pub(super) fn message(&mut self, message: Message) {
        match message {
            Message::Exchange(exchange) => self.exchange(&exchange),
            Message::Chunk(chunk) => self.chunk(*chunk),
            Message::Segment(part) => self.segment(*part),
            Message::StreamEnd(stream) => self.stream_end(&stream),
        }
    }

    /// Gives `count` new places to a gap.
    pub(super) fn gap(&mut self, count: u64, reason: GapReason) {
        if count > 0 {
            self.metrics.dropped(reason, count);
            let first = self.take(count);
            self.place_gap(first, count, reason);
        }
    }

    /// Bytes encoded since the last [`Encoder::finish`].
    pub(super) fn pending_bytes(&self) -> usize {
        self.out.len() + self.open.iter().map(|open| open.bytes).sum::<usize>()
    }

    /// Everything encoded so far, in the order of its numbers, and a gap over numbers that were given out
    /// before in front of it.
    pub(super) fn finish(&mut self) -> Vec<Encoded> {
        while let Some(open) = self.open.pop() {
            self.batch(open);
        }
        // The next batch is likely about as long: a buffer that grows anew each time copies it all twice.
        let next = Vec::with_capacity(self.out.len());
        let payload = Bytes::from(std::mem::replace(&mut self.out, next));
        let mut start = 0;
        let encoded = |placed: Placed| {
            let range = start..placed.end;
            start = placed.end;
            Encoded {
                seq: placed.seq,
                span: placed.span,
                subject: placed.subject,
                payload: payload.slice(range),
            }
        };
        self.placed.drain(..).map(encoded).collect()
    }

    /// The encoded form of a gap over numbers that have been given out.
    pub(super) fn encode_gap(&self, first: u64, count: u64, reason: GapReason) -> Encoded {
        let mut out = Vec::new();
        wire::encode(&self.gap_item(first, count, reason), &mut out);
        Encoded {
            seq: Sequence(first),
            span: count,
            subject: Subject::Gap,
            payload: out.into(),
        }
    }

    fn gap_item(&self, first: u64, count: u64, reason: GapReason) -> Item {
        Item::Gap(Gap {
            origin: self.origin(first),
            count,
            reason,
        })
    }

    fn place_gap(&mut self, first: u64, count: u64, reason: GapReason) {
        wire::encode(&self.gap_item(first, count, reason), &mut self.out);
        self.place(first, count, Subject::Gap);
    }

    fn take(&mut self, count: u64) -> u64 {
        let first = self.next;
        self.next += count;
        self.metrics
            .sequence
            .set(i64::try_from(self.next - 1).unwrap_or(i64::MAX));
        first
    }

    fn origin(&self, seq: u64) -> Origin {
        Origin {
            node: self.node.clone(),
            epoch: self.epoch,
            seq: Sequence(seq),
        }
    }

    fn place(&mut self, seq: u64, span: u64, subject: Subject) {
        self.placed.push(Placed {
            seq: Sequence(seq),
            span,
            subject,
            end: self.out.len(),
        });
    }

    fn write(&mut self, item: &Item) {
        match self.keys.writing() {
            Some(key) => wire::seal(item, key, &mut self.out),
            None => wire::encode(item, &mut self.out),
        }
    }

    /// Encodes an item that has its number; one that is too large leaves a gap in its place.
    fn put(&mut self, item: &Item, subject: Subject) {
        let start = self.out.len();
        self.write(item);
        let seq = item.origin().seq.0;
        if self.out.len() - start <= self.limits.message {
            self.metrics.items.inc();
            self.place(seq, 1, subject);
        } else {
            self.out.truncate(start);
            self.metrics.dropped(GapReason::Oversize, 1);
            self.place_gap(seq, 1, GapReason::Oversize);
        }
    }

    fn chunk(&mut self, chunk: Chunk) {
        let Chunk {
            record,
            service,
            side,
            index,
            bytes,
        } = chunk;
        self.put_chunk(record, &service, side, index, bytes);
    }

    fn put_chunk(
        &mut self,
        record: RecordId,
        service: &Arc<str>,
        side: Side,
        index: u32,
        bytes: Bytes,
    ) {
        let seq = self.take(1);
        let item = Item::Chunk(BodyChunk {
            record,
            origin: self.origin(seq),
            side,
            index,
            bytes,
        });
        let service = Arc::clone(service);
        self.put(&item, Subject::Body { service });
    }

    fn exchange(&mut self, shared: &Shared) {
        let mut exchange = model::exchange(shared, self.origin(0), &mut self.names);
        self.count_truncated(&exchange);
        let subject = Subject::Traffic {
            service: Arc::clone(&exchange.service),
            protocol: self.names.of(exchange.protocol.as_str()),
            method: Arc::clone(&exchange.request.method),
            status: match &exchange.response {
                Some(response) => self.names.status(response.status),
                None => self.names.of("-"),
            },
        };
        // A first guess saves encoding twice; the encoded length decides.
        let bodies = exchange.request.body.inline.len()
            + exchange
                .response
                .as_ref()
                .map_or(0, |r| r.body.inline.len());
        if bodies > self.limits.message {
            self.move_out(&mut exchange);
        }
        let item = self.numbered(exchange);
        let start = self.out.len();
        self.write(&item);
        if self.out.len() - start <= self.limits.message {
            self.metrics.items.inc();
            self.metrics.records.inc();
            return self.place(item.origin().seq.0, 1, subject);
        }
        self.out.truncate(start);
        let Item::Record(Record::Exchange(mut exchange)) = item else {
            return;
        };
        // Its number goes to the first chunk, so that numbers stay in the order of the items.
        self.next = exchange.origin.seq.0;
        self.move_out(&mut exchange);
        let item = self.numbered(*exchange);
        self.metrics.records.inc();
        self.put(&item, subject);
    }

    fn numbered(&mut self, mut exchange: Exchange) -> Item {
        let seq = self.take(1);
        exchange.origin = self.origin(seq);
        Item::Record(Record::Exchange(Box::new(exchange)))
    }

    /// Turns inline bodies into chunks.
    fn move_out(&mut self, exchange: &mut Exchange) {
        let request = Some((Side::Request, &mut exchange.request.body));
        let response = exchange.response.as_mut();
        let response = response.map(|response| (Side::Response, &mut response.body));
        for (side, body) in request.into_iter().chain(response) {
            let mut rest = std::mem::take(&mut body.inline);
            while !rest.is_empty() {
                let bytes = rest.split_to(rest.len().min(self.limits.chunk));
                self.put_chunk(exchange.id, &exchange.service, side, body.chunks, bytes);
                body.chunks += 1;
            }
        }
    }

    fn count_truncated(&self, exchange: &Exchange) {
        let response = exchange.response.as_ref();
        if exchange.request.body.truncated || response.is_some_and(|r| r.body.truncated) {
            self.metrics.truncated.limit.inc();
        }
    }

    fn segment(&mut self, part: StreamPart) {
        let frame = part.frame.map_or(0, |_| FRAME_OVERHEAD);
        let size = part.bytes.len() + SEGMENT_OVERHEAD + frame;
        let same = |open: &OpenBatch| Arc::ptr_eq(&open.stream, &part.stream);
        let mut at = self.open.iter().position(same);
        if let Some(full) = at.filter(|at| self.open[*at].bytes + size > self.limits.chunk) {
            let open = self.open.swap_remove(full);
            self.batch(open);
            at = None;
        }
        let at = at.unwrap_or_else(|| {
            self.open.push(OpenBatch {
                stream: Arc::clone(&part.stream),
                segments: Vec::new(),
                bytes: 0,
            });
            self.open.len() - 1
        });
        let open = &mut self.open[at];
        open.bytes += size;
        open.segments.push(Segment {
            direction: part.direction,
            offset_us: part.offset_us,
            bytes: part.bytes,
            frame: part.frame,
            missing: part.missing,
        });
    }

    fn batch(&mut self, open: OpenBatch) {
        let seq = self.take(1);
        let item = Item::Segments(SegmentBatch {
            record: open.stream.id,
            origin: self.origin(seq),
            index: open.stream.batches.fetch_add(1, Relaxed),
            segments: open.segments,
        });
        let service = Arc::clone(&open.stream.connection.service);
        self.put(&item, Subject::Segment { service });
    }

    fn stream_end(&mut self, shared: &Arc<SharedStream>) {
        let same = |open: &OpenBatch| Arc::ptr_eq(&open.stream, shared);
        if let Some(at) = self.open.iter().position(same) {
            let open = self.open.swap_remove(at);
            self.batch(open);
        }
        let Some(end) = shared.end.get() else { return };
        let seq = self.take(1);
        let connection = &shared.connection;
        let stream = Stream {
            id: shared.id,
            origin: self.origin(seq),
            service: Arc::clone(&connection.service),
            protocol: shared.protocol,
            connection: connection.id,
            client: Arc::clone(&connection.client),
            upstream: end.upstream.clone(),
            tls: connection.tls.clone(),
            timing: Timing {
                started_us: shared.started_us,
                monotonic_us: shared.monotonic_us,
                request_end_us: None,
                first_byte_us: None,
                end_us: end.end_us,
            },
            client_bytes: shared.client_bytes.load(Relaxed),
            server_bytes: shared.server_bytes.load(Relaxed),
            batches: shared.batches.load(Relaxed),
            truncated: shared.truncated.load(Relaxed),
            outcome: end.outcome.clone(),
            exchange: shared.exchange,
            upgrade: end.upgrade.clone(),
        };
        let subject = Subject::Traffic {
            service: Arc::clone(&stream.service),
            protocol: self.names.of(stream.protocol.as_str()),
            method: self.names.of("-"),
            status: self.names.of("-"),
        };
        self.metrics.records.inc();
        self.put(&Item::Record(Record::Stream(Box::new(stream))), subject);
    }
}
