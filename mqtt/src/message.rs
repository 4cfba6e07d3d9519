//! What the program receives.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

pub use crate::codec::{QoS, Text};
use crate::queue::Queue;
use crate::session::{AckId, Settled};

/// A message that arrived.
///
/// In manual mode the server keeps it until [`Message::ack`]. One that is dropped without is not acknowledged: the
/// server sends it again in the next connection, and later messages can still be acknowledged.
pub struct Message {
    /// Where it was published.
    pub topic: Text,
    /// What was published; a slice of the read buffer.
    pub payload: Bytes,
    /// With which QoS it came.
    pub qos: QoS,
    /// Whether the server had kept it from before the subscription.
    pub retain: bool,
    /// Whether the server may have sent it before.
    pub dup: bool,
    pub(crate) receipt: Option<Receipt>,
}

impl Message {
    /// Tells the server that the message is taken care of. Only the first call counts; in automatic mode, or with
    /// QoS 0, there is nothing to tell. Acknowledgements leave in the order in which the messages came.
    pub fn ack(&self) {
        if let Some(receipt) = &self.receipt {
            receipt.settle(Settled::Acknowledged);
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Message")
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("dup", &self.dup)
            .finish_non_exhaustive()
    }
}

/// The duty to settle one message; let go of without, it says so.
pub(crate) struct Receipt {
    queue: Arc<Queue>,
    id: AckId,
    settled: AtomicBool,
}

impl Receipt {
    pub(crate) fn new(queue: Arc<Queue>, id: AckId) -> Self {
        Self {
            queue,
            id,
            settled: AtomicBool::new(false),
        }
    }

    fn settle(&self, settled: Settled) {
        if !self.settled.swap(true, Ordering::Relaxed) {
            self.queue.settle(self.id, settled);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.settle(Settled::Dropped);
    }
}
