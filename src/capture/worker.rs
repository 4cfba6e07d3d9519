//! The thread that encodes what was copied and hands it to the outlet, batch by batch.
//!
//! It is a plain thread, because the outlet may block on a disk. What the outlet refuses is given up: the
//! numbers that it had go into a gap in front of the next batch, so that nobody waits for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::encode::{Encoder, Limits};
use super::queue::{Message, Queue};
use super::{Encoded, Inner, Outlet};
use crate::record::GapReason;

/// How many messages are encoded before the outlet is called.
const BATCH_MESSAGES: usize = 1024;
/// How many bytes are encoded before the outlet is called. Not more: buffers of a megabyte that come and go with a large
/// body stay with the allocator for a while, and were what such a body took of memory.
const BATCH_BYTES: usize = 256 << 10;
/// A batch under this size that emptied the queue is followed by a short rest, so that the next one is larger.
const SMALL_BATCH: usize = 256;

/// How the thread is told to end, and tells that it has.
#[derive(Debug)]
pub(super) struct Worker {
    done: watch::Receiver<bool>,
}

/// A worker whose thread has not started.
pub(super) struct Ready {
    done: watch::Sender<bool>,
}

impl Worker {
    pub(super) fn new() -> (Self, Ready) {
        let (sender, done) = watch::channel(false);
        (Self { done }, Ready { done: sender })
    }

    pub(super) async fn shutdown(&self, queue: &Queue, grace: Duration) -> bool {
        queue.close();
        let mut done = self.done.clone();
        let ended = done.wait_for(|done| *done);
        matches!(tokio::time::timeout(grace, ended).await, Ok(Ok(_)))
    }
}

impl Ready {
    pub(super) fn spawn(
        self,
        inner: Arc<Inner>,
        outlet: Box<dyn Outlet>,
    ) -> Result<(), std::io::Error> {
        let run = move || {
            inner.queue.attach(std::thread::current());
            Loop::new(&inner, outlet).run();
            let _ = self.done.send(true);
        };
        let thread = std::thread::Builder::new().name("capture".into());
        thread.spawn(run).map(drop)
    }
}

/// What one turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// A batch was full; there may be more at once.
    Full,
    /// The queue was empty after so many messages.
    Drained(usize),
}

struct Loop<'a> {
    inner: &'a Inner,
    outlet: Box<dyn Outlet>,
    encoder: Encoder,
    /// Numbers that the outlet refused: the first, and how many.
    refused: Option<(u64, u64)>,
}

impl<'a> Loop<'a> {
    fn new(inner: &'a Inner, outlet: Box<dyn Outlet>) -> Self {
        let limits = Limits {
            message: inner.config.max_message_bytes,
            chunk: inner.config.chunk_bytes,
        };
        let node = inner.config.node.clone();
        let encoder = Encoder::new(
            node,
            outlet.epoch(),
            limits,
            inner.metrics.clone(),
            inner.config.keys.clone(),
        );
        Self {
            inner,
            outlet,
            encoder,
            refused: None,
        }
    }

    fn run(mut self) {
        loop {
            let closed = self.inner.queue.is_closed();
            match self.turn() {
                Turn::Full => {}
                Turn::Drained(1..) if closed => {}
                Turn::Drained(messages @ 1..) => {
                    if messages < SMALL_BATCH {
                        std::thread::sleep(self.inner.config.linger);
                    }
                }
                Turn::Drained(0) if closed => break,
                Turn::Drained(0) => {
                    self.inner.queue.wait();
                    std::thread::sleep(self.inner.config.linger.min(Duration::from_millis(1)));
                }
            }
        }
        self.append(Vec::new());
    }

    /// Encodes and hands over one batch.
    fn turn(&mut self) -> Turn {
        let queue = &self.inner.queue;
        let dropped = queue.take_dropped();
        self.encoder.gap(dropped, GapReason::CaptureOverload);
        let mut messages = usize::from(dropped > 0);
        let mut drained = false;
        let start = Instant::now();
        while messages < BATCH_MESSAGES && self.encoder.pending_bytes() < BATCH_BYTES {
            let Some(message) = queue.pop() else {
                drained = true;
                break;
            };
            let room = room(&message);
            self.encoder.message(message);
            queue.release(room);
            messages += 1;
        }
        if messages > 0 {
            let batch = self.encoder.finish();
            let spent = start.elapsed().as_secs_f64();
            self.inner.metrics.encode_seconds.inc_by(spent);
            self.append(batch);
        }
        if drained {
            Turn::Drained(messages)
        } else {
            Turn::Full
        }
    }

    fn append(&mut self, mut batch: Vec<Encoded>) {
        if let Some((first, count)) = self.refused {
            let gap = self.encoder.encode_gap(first, count, GapReason::SpoolWrite);
            batch.insert(0, gap);
        }
        let Some(first) = batch.first().map(|item| item.seq.0) else {
            return;
        };
        let metrics = &self.inner.metrics;
        match self.outlet.append(&batch) {
            Ok(()) => {
                let items = batch
                    .iter()
                    .filter(|item| item.subject != crate::record::Subject::Gap);
                let bytes = batch.iter().map(|item| item.payload.len() as u64).sum();
                metrics.appended.inc_by(items.count() as u64);
                metrics.bytes.inc_by(bytes);
                if let Some((_, count)) = self.refused.take() {
                    tracing::info!(lost = count, "captured items are kept again");
                }
            }
            Err(error) => {
                let count: u64 = batch.iter().map(|item| item.span).sum();
                let known = self.refused.map_or(0, |(_, count)| count);
                let items = batch
                    .iter()
                    .filter(|item| item.subject != crate::record::Subject::Gap);
                metrics.dropped(GapReason::SpoolWrite, items.count() as u64);
                if known == 0 {
                    tracing::error!(
                        items = count,
                        error = &error as &dyn std::error::Error,
                        "captured items are lost"
                    );
                }
                self.refused = Some((first, count));
            }
        }
    }
}

/// What a message gives back once it is encoded; exchanges and streams do so themselves.
fn room(message: &Message) -> usize {
    match message {
        Message::Chunk(chunk) => chunk.bytes.len(),
        Message::Segment(part) => part.room,
        Message::Exchange(_) | Message::StreamEnd(_) => 0,
    }
}
