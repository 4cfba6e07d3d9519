//! Bytes on their way to the server: small packets share one buffer, large payloads go out from where they lie.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use crate::codec::{self, Packet, Publish};

/// Payloads from here on are written in place instead of being copied, in bytes. Below it a copy is cheaper than
/// one more slice.
const IN_PLACE_BYTES: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Complete pieces, before `tail` in order.
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    /// In `pieces` and `tail`.
    len: usize,
    /// Ever put in; where a packet ends, as a mark to compare `written` with.
    queued: u64,
}

impl Outbox {
    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All bytes ever put in. What stands here after a packet was put in is the mark that [`Outbox::written`]
    /// reaches when it has left.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.queued
    }

    /// All bytes ever taken out.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.queued - self.len as u64
    }

    pub(super) fn push(&mut self, packet: &Packet) {
        let before = self.tail.len();
        codec::encode(packet, codec::Version::V311, &mut self.tail)
            .expect("the client checked the packet's parts");
        self.grew(self.tail.len() - before);
    }

    pub(super) fn push_publish(&mut self, publish: &Publish) {
        let before = self.tail.len();
        codec::encode_publish_head(publish, codec::Version::V311, &mut self.tail)
            .expect("the client checked topic and size, and the session sets the id");
        if publish.payload.len() < IN_PLACE_BYTES {
            self.tail.extend_from_slice(&publish.payload);
            self.grew(self.tail.len() - before);
            return;
        }
        self.grew(self.tail.len() - before + publish.payload.len());
        self.pieces.push_back(self.tail.split().freeze());
        self.pieces.push_back(publish.payload.clone());
    }

    pub(super) fn push_ping(&mut self) {
        self.push(&Packet::PingReq);
    }

    /// Puts the packet in that ends the connection in order.
    pub fn push_disconnect(&mut self) {
        self.push(&Packet::Disconnect(codec::Disconnect::default()));
    }

    fn grew(&mut self, bytes: usize) {
        self.len += bytes;
        self.queued += bytes as u64;
    }

    /// Fills `slices` with what to write next; returns how many are used.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let parts = self.pieces.iter().map(|piece| &piece[..]).chain(tail);
        let mut used = 0;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            used += 1;
        }
        used
    }

    /// Forgets the first `count` bytes: they are written.
    pub fn advance(&mut self, mut count: usize) {
        self.len -= count;
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.len() {
                piece.advance(count);
                return;
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
        self.tail.advance(count);
    }

    /// Forgets everything: the connection is gone.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.tail.clear();
        self.queued -= self.len as u64;
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::QoS;

    fn publish(size: usize) -> Publish {
        let payload = Bytes::from(vec![7; size]);
        let topic = "t".into();
        Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic,
            id: None,
            payload,
            properties: None,
        }
    }

    #[test]
    fn pieces_leave_in_order_whatever_is_written_at_once() {
        for step in [1, 3, 1000, 1 << 20] {
            let mut outbox = Outbox::default();
            let mut expected = BytesMut::new();
            for size in [1, 5000, 0, IN_PLACE_BYTES - 1, IN_PLACE_BYTES, 2] {
                outbox.push_publish(&publish(size));
                codec::encode(
                    &Packet::Publish(publish(size)),
                    codec::Version::V311,
                    &mut expected,
                )
                .unwrap();
                outbox.push_ping();
                codec::encode(&Packet::PingReq, codec::Version::V311, &mut expected).unwrap();
            }
            assert_eq!(outbox.queued(), expected.len() as u64);
            let mut written = Vec::new();
            while !outbox.is_empty() {
                let mut slices = [IoSlice::new(&[]); 4];
                let used = outbox.slices(&mut slices);
                let mut taken = 0;
                for slice in &slices[..used] {
                    let part = slice.len().min(step - taken);
                    written.extend_from_slice(&slice[..part]);
                    taken += part;
                }
                outbox.advance(taken);
            }
            assert!(written == expected, "step {step}");
            assert_eq!(outbox.written(), outbox.queued());
        }
    }
}
