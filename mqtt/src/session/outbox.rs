//! Bytes on their way to the server: small packets share one buffer, large payloads go out from where they lie.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use crate::codec::{
    self, Disconnect, DisconnectProperties, EncodeError, Packet, Publish, PublishProperties,
    ReasonCode, Version,
};

use super::alias::Sent;

/// Payloads from here on are written in place instead of being copied, in bytes. Below it a copy is cheaper than
/// one more slice.
const IN_PLACE_BYTES: usize = 4096;

/// See the module.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use qproxy_mqtt::session::*;
/// # use qproxy_mqtt::Version;
/// # let config = Config {
/// #     version: Version::V311,
/// #     window: 10,
/// #     window_exactly_once: 5,
/// #     continuity: Continuity::Resumed,
/// #     keep_alive: Duration::from_secs(60),
/// #     ack_mode: AckMode::Manual,
/// #     receive_maximum: 100,
/// #     topic_alias_maximum: 0,
/// #     on_session_lost: OnSessionLost::Republish,
/// # };
/// # let now = Instant::now();
/// # let mut session = Session::<u32, &str>::new(&config);
/// # session.connected(&Terms::plain(false), now).unwrap();
/// use std::io::IoSlice;
/// use qproxy_mqtt::codec::ReasonCode;
///
/// let outbox = session.outbox();
/// outbox.push_disconnect(ReasonCode::Success, None);
/// assert!(!outbox.is_empty());
/// assert_eq!(outbox.answers(), 2, "no PUBLISH");
/// let mark = outbox.queued();
///
/// let mut slices = [IoSlice::new(&[]); 4];
/// let used = outbox.slices(&mut slices);
/// assert_eq!(slices[..used].iter().map(|it| it.len()).sum::<usize>(), 2, "DISCONNECT");
/// let count = outbox.len();
/// outbox.advance(count);
/// assert_eq!(outbox.written(), mark);
/// ```
#[derive(Debug, Default)]
pub struct Outbox {
    version: Version,
    /// Complete pieces, before `tail` in order.
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    /// In `pieces` and `tail`.
    len: usize,
    /// Ever put in; where a packet ends, as a mark to compare `written` with.
    queued: u64,
    /// Bytes of packets that are no PUBLISH, put in after `divide` and before it.
    answers: [usize; 2],
    /// A value of `queued`.
    divide: u64,
    /// For a PUBLISH that has an alias and no other properties; kept for its memory.
    scratch: Option<Box<PublishProperties>>,
}

impl Outbox {
    pub(super) fn new(version: Version) -> Self {
        Self {
            version,
            ..Self::default()
        }
    }

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
        codec::encode(packet, self.version, &mut self.tail)
            .expect("the client checked the packet's parts");
        let size = self.tail.len() - before;
        self.grew(size);
        self.answers[0] += size;
    }

    /// No fewer bytes than wait of packets other than PUBLISH: nearly all are answers to what the server sends. They are
    /// counted in two heaps, and one is forgotten when all of it is written: marks for each would cost more than they do.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.answers[0] + self.answers[1]
    }

    /// As `push`, where the packet has at most `limit` bytes; otherwise nothing is put in, and this is its size.
    pub(super) fn push_within(&mut self, packet: &Packet, limit: usize) -> Result<(), usize> {
        let before = self.tail.len();
        codec::encode(packet, self.version, &mut self.tail)
            .expect("the client checked the packet's parts");
        let size = self.tail.len() - before;
        if size > limit {
            self.tail.truncate(before);
            return Err(size);
        }
        self.grew(size);
        Ok(())
    }

    /// The same for a PUBLISH, whose topic is sent as `sent` says.
    pub(super) fn push_publish(
        &mut self,
        publish: &mut Publish,
        sent: Sent,
        limit: usize,
    ) -> Result<(), usize> {
        let before = self.tail.len();
        let encoded = match sent {
            Sent::InFull => codec::encode_publish_head(publish, self.version, &mut self.tail),
            Sent::Introduced(_) | Sent::Alias(_) => self.encode_aliased(publish, sent),
        };
        if let Err(EncodeError::TooLarge { size, .. }) = encoded {
            // An alias can lift the largest packet that there is over what a length can say.
            return Err(size);
        }
        encoded.expect("the client checked the topic, and the session sets the id");
        let head = self.tail.len() - before;
        let size = head + publish.payload.len();
        if size > limit {
            self.tail.truncate(before);
            return Err(size);
        }
        if publish.payload.len() < IN_PLACE_BYTES {
            self.tail.extend_from_slice(&publish.payload);
            self.grew(size);
            return Ok(());
        }
        self.grew(size);
        self.pieces.push_back(self.tail.split().freeze());
        self.pieces.push_back(publish.payload.clone());
        Ok(())
    }

    /// Lends the publish what the wire wants, and takes it back: what is sent again has its whole topic and no alias.
    fn encode_aliased(&mut self, publish: &mut Publish, sent: Sent) -> Result<(), EncodeError> {
        let had_some = publish.properties.is_some();
        let mut properties = match publish.properties.take() {
            Some(properties) => properties,
            None => self.scratch.take().unwrap_or_default(),
        };
        let mut topic = None;
        match sent {
            Sent::InFull => {}
            Sent::Introduced(alias) => properties.topic_alias = Some(alias),
            Sent::Alias(alias) => {
                properties.topic_alias = Some(alias);
                topic = Some(std::mem::take(&mut publish.topic));
            }
        }
        publish.properties = Some(properties);
        let encoded = codec::encode_publish_head(publish, self.version, &mut self.tail);
        if let Some(topic) = topic {
            publish.topic = topic;
        }
        if let Some(properties) = &mut publish.properties {
            properties.topic_alias = None;
        }
        if !had_some {
            self.scratch = publish.properties.take();
        }
        encoded
    }

    pub(super) fn push_ping(&mut self) {
        self.push(&Packet::PingReq);
    }

    /// Puts the packet in that ends the connection. MQTT 3.1.1 has no place for a reason.
    pub fn push_disconnect(&mut self, reason: ReasonCode, session_expiry: Option<u32>) {
        let said = match self.version {
            Version::V311 => Disconnect::default(),
            Version::V5 => Disconnect {
                reason,
                properties: session_expiry.map(|seconds| {
                    Box::new(DisconnectProperties {
                        session_expiry: Some(seconds),
                        ..DisconnectProperties::default()
                    })
                }),
            },
        };
        self.push(&Packet::Disconnect(said));
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

    /// All there is to write, where it lies in one piece.
    pub(crate) fn only_piece(&self) -> Option<&[u8]> {
        match (self.pieces.len(), self.tail.is_empty()) {
            (0, false) => Some(&self.tail),
            (1, true) => self.pieces.front().map(|piece| &piece[..]),
            _ => None,
        }
    }

    /// Forgets the first `count` bytes: they are written.
    pub fn advance(&mut self, mut count: usize) {
        self.len -= count;
        if self.len == 0 {
            self.answers = [0, 0];
        } else if self.written() >= self.divide {
            self.answers = [0, self.answers[0]];
            self.divide = self.queued;
        }
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
        self.answers = [0, 0];
        self.divide = self.queued;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(size: usize) -> Publish {
        Publish {
            topic: "t".into(),
            payload: Bytes::from(vec![7; size]),
            ..Publish::default()
        }
    }

    #[test]
    fn answers_that_wait_are_never_counted_too_low_nor_for_ever() {
        let mut outbox = Outbox::default();
        let mut ends = VecDeque::new();
        for round in 0..10_000_u64 {
            let mut large = publish(300);
            outbox
                .push_publish(&mut large, Sent::InFull, usize::MAX)
                .unwrap();
            outbox.push_ping();
            ends.push_back(outbox.queued());
            // Never empty, as under a load that the network cannot take.
            let before = outbox.len().min(2000);
            outbox.advance((outbox.len() - before).min(310 + 7 * (round % 3) as usize));
            while ends.front().is_some_and(|end| *end <= outbox.written()) {
                ends.pop_front();
            }
            assert!(outbox.answers() >= 2 * ends.len());
            assert!(
                outbox.answers() <= 4 * ends.len() + 4,
                "{}",
                outbox.answers()
            );
        }
    }

    #[test]
    fn pieces_leave_in_order_whatever_is_written_at_once() {
        for step in [1, 3, 1000, 1 << 20] {
            let mut outbox = Outbox::default();
            let mut expected = BytesMut::new();
            for size in [1, 5000, 0, IN_PLACE_BYTES - 1, IN_PLACE_BYTES, 2] {
                outbox
                    .push_publish(&mut publish(size), Sent::InFull, usize::MAX)
                    .unwrap();
                let packet = Packet::Publish(publish(size));
                codec::encode(&packet, Version::V311, &mut expected).unwrap();
                outbox.push_ping();
                codec::encode(&Packet::PingReq, Version::V311, &mut expected).unwrap();
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
            assert_eq!(outbox.answers(), 0);
        }
    }
}
