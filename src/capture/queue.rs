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
use crate::record::{Direction, Frame, RecordId, Side};

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
    pub(super) bytes: Bytes,
}

/// Bytes of a stream on their way.
#[derive(Debug)]
pub(super) struct StreamPart {
    pub(super) stream: Arc<SharedStream>,
    pub(super) direction: Direction,
    pub(super) offset_us: u64,
    pub(super) bytes: Bytes,
    pub(super) frame: Option<Frame>,
    /// Bytes of this direction before it that were not kept.
    pub(super) missing: u64,
    pub(super) room: usize,
}

/// A budget up to this many bytes is not divided: a few parts of a large body have to fit.
const SMALL_BUDGET: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Queue {
    messages: SegQueue<Message>,
    items: AtomicUsize,
    bytes: AtomicUsize,
    max_bytes: usize,
    max_bulk_bytes: usize,
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
            max_bulk_bytes: (max_bytes / 4).max(max_bytes.min(SMALL_BUDGET)),
            max_items,
            dropped: AtomicU64::new(0),
            idle: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            consumer: OnceLock::new(),
        }
    }

    /// Takes room from the budget of all copies.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        self.reserve_under(self.max_bytes, bytes)
    }

    /// Takes room for a part of something large. There is none past a quarter of the budget, so that one fast
    /// download neither fills the memory nor crowds out the copies of everything else.
    pub(super) fn reserve_bulk(&self, bytes: usize) -> bool {
        self.reserve_under(self.max_bulk_bytes, bytes)
    }

    fn reserve_under(&self, limit: usize, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= limit;
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
    fn what_is_large_leaves_room_for_the_rest() {
        let queue = Queue::new(4 << 20, 1);
        assert!(queue.reserve_bulk(1 << 20));
        assert!(!queue.reserve_bulk(1));
        assert!(queue.reserve(3 << 20));
        assert!(!queue.reserve(1));
        queue.release(4 << 20);
        assert!(Queue::new(SMALL_BUDGET, 1).reserve_bulk(SMALL_BUDGET));
    }

    #[test]
    fn wait_returns_at_once_where_something_was_dropped() {
        let queue = Queue::new(1, 1);
        queue.drop_one();
        queue.wait();
        assert_eq!(queue.take_dropped(), 1);
    }
}
