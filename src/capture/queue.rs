//! The hand-over from the proxy's tasks to the encoder: lock-free, bounded by bytes and by items.
//!
//! The encoder is woken only where it sleeps because there was nothing; under load nobody is woken.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::Thread;

use bytes::Bytes;
use crossbeam_queue::SegQueue;

use super::exchange::Shared;
use super::stream::SharedStream;
use crate::record::{Direction, RecordId, Side};

/// What the encoder works on.
#[derive(Debug)]
pub(super) enum Message {
    /// An exchange that has ended; its room is given back when it is dropped.
    Exchange(Arc<Shared>),
    /// A chunk of a body.
    Chunk(Box<Chunk>),
    /// Bytes of a stream.
    Segment(Box<StreamPart>),
    /// A stream that has ended.
    StreamEnd(Arc<SharedStream>),
}

/// A chunk of a body on its way.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) record: RecordId,
    pub(super) service: Arc<str>,
    pub(super) side: Side,
    pub(super) index: u32,
    pub(super) parts: Vec<Bytes>,
    pub(super) room: usize,
}

/// Bytes of a stream on their way.
#[derive(Debug)]
pub(super) struct StreamPart {
    pub(super) stream: Arc<SharedStream>,
    pub(super) direction: Direction,
    pub(super) offset_us: u64,
    pub(super) bytes: Bytes,
    pub(super) room: usize,
}

#[derive(Debug)]
pub(super) struct Queue {
    messages: SegQueue<Message>,
    items: AtomicUsize,
    bytes: AtomicUsize,
    max_bytes: usize,
    max_items: usize,
    /// Copies that were dropped and have no place in the sequence yet.
    dropped: AtomicU64,
    idle: AtomicBool,
    closed: AtomicBool,
    consumer: OnceLock<Thread>,
}

impl Queue {
    pub(super) fn new(max_bytes: usize, max_items: usize) -> Self {
        Self {
            messages: SegQueue::new(),
            items: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_bytes,
            max_items,
            dropped: AtomicU64::new(0),
            idle: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            consumer: OnceLock::new(),
        }
    }

    /// Takes room from the budget of all copies.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.max_bytes;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    /// Takes room whether there is some or not.
    pub(super) fn take(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts a copy that was dropped; it will take a place in the sequence, in a gap.
    pub(super) fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.wake();
    }

    /// Hands a message on; the caller has reserved its room. `Err` where the queue is full or closed.
    pub(super) fn push(&self, message: Message) -> Result<(), Message> {
        if self.closed.load(Ordering::Acquire) {
            return Err(message);
        }
        if self.items.fetch_add(1, Ordering::Relaxed) >= self.max_items {
            self.items.fetch_sub(1, Ordering::Relaxed);
            return Err(message);
        }
        self.messages.push(message);
        self.wake();
        Ok(())
    }

    pub(super) fn pop(&self) -> Option<Message> {
        let message = self.messages.pop()?;
        self.items.fetch_sub(1, Ordering::Relaxed);
        Some(message)
    }

    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Bytes held by copies that are not encoded yet.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Refuses messages from now on and wakes the consumer.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(thread) = self.consumer.get() {
            thread.unpark();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Names the thread that is to be woken.
    pub(super) fn attach(&self, thread: Thread) {
        let _ = self.consumer.set(thread);
    }

    /// Sleeps until there may be something; the consumer's only.
    pub(super) fn wait(&self) {
        self.idle.store(true, Ordering::Relaxed);
        // Pairs with the fence in `wake`: either we see what was pushed or the pusher sees that we sleep.
        fence(Ordering::SeqCst);
        let nothing = self.messages.is_empty() && self.dropped.load(Ordering::Relaxed) == 0;
        if nothing && !self.is_closed() {
            std::thread::park();
        }
        self.idle.store(false, Ordering::Relaxed);
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.idle.load(Ordering::Relaxed)
            && self.idle.swap(false, Ordering::Relaxed)
            && let Some(thread) = self.consumer.get()
        {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_comes_back() {
        let queue = Queue::new(100, 1);
        assert!(queue.reserve(60));
        assert!(!queue.reserve(41));
        assert!(queue.reserve(40));
        queue.release(100);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn wait_returns_at_once_where_something_was_dropped() {
        let queue = Queue::new(1, 1);
        queue.drop_one();
        queue.wait();
        assert_eq!(queue.take_dropped(), 1);
    }
}
