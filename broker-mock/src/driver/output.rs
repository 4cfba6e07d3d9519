//! What is about to be written to a connection: packets, encoded many at a time into one buffer.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use qproxy_mqtt::codec::{self, Packet};
use tracing::error;

use crate::core::weight;

/// How much is encoded ahead of the socket.
const BATCH: usize = 64 * 1024;
/// A buffer that one large message has made larger than this is given up.
const KEEP: usize = 256 * 1024;

/// Packets and bytes on their way to the socket.
#[derive(Debug, Default)]
pub(super) struct Output {
    waiting: VecDeque<Item>,
    /// Bytes of `waiting`, roughly.
    waiting_bytes: usize,
    encoded: BytesMut,
    /// [`weight`] of what is encoded and not written.
    encoded_weight: usize,
}

#[derive(Debug)]
enum Item {
    Packet(Packet),
    Raw(Bytes),
}

impl Output {
    pub(super) fn packet(&mut self, packet: Packet) {
        self.waiting_bytes += size(&packet);
        self.waiting.push_back(Item::Packet(packet));
    }

    pub(super) fn raw(&mut self, bytes: Bytes) {
        self.waiting_bytes += bytes.len();
        self.waiting.push_back(Item::Raw(bytes));
    }

    /// Encodes the next batch.
    pub(super) fn fill(&mut self) {
        while self.encoded.len() < BATCH
            && let Some(item) = self.waiting.pop_front()
        {
            match item {
                Item::Packet(packet) => {
                    self.waiting_bytes -= size(&packet);
                    self.encoded_weight += weight(&packet);
                    if let Err(error) =
                        codec::encode(&packet, codec::Version::V311, &mut self.encoded)
                    {
                        // The core makes packets only from what the codec has accepted before.
                        error!(kind = packet.kind().name(), %error, "could not encode a packet");
                    }
                }
                Item::Raw(bytes) => {
                    self.waiting_bytes -= bytes.len();
                    self.encoded.extend_from_slice(&bytes);
                }
            }
        }
    }

    /// The bytes to write next.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.encoded
    }

    /// `count` bytes were written. Returns the weight to report when a batch is through.
    pub(super) fn advance(&mut self, count: usize) -> Option<usize> {
        self.encoded.advance(count);
        if !self.encoded.is_empty() {
            return None;
        }
        if self.encoded.capacity() > KEEP {
            self.encoded = BytesMut::new();
        }
        let weight = std::mem::take(&mut self.encoded_weight);
        (weight > 0).then_some(weight)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.encoded.is_empty() && self.waiting.is_empty()
    }

    /// How many bytes are held, roughly.
    pub(super) fn held(&self) -> usize {
        self.waiting_bytes + self.encoded.len()
    }
}

/// Of a packet, roughly; an acknowledgement costs its place in the queue.
fn size(packet: &Packet) -> usize {
    weight(packet).max(64)
}
