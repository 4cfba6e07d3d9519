//! Packs what waits for the same topic into one message, so that a broker's cost per message stops counting.
//!
//! Items of one topic keep their order; messages go out in the order of their first items. An item that is
//! too large for any message is not sent: a gap takes its place, so that the player can settle it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::record::Epoch;

use super::frame::Compression;

/// An item that waits to be published, with what its sender wants to know afterwards.
#[derive(Debug, Clone)]
pub(super) struct Waiting<S> {
    /// The sender's own mark.
    pub(super) slot: S,
    /// The life it belongs to.
    pub(super) epoch: Epoch,
    /// Its last number.
    pub(super) last: u64,
    /// Where it is published.
    pub(super) topic: Arc<str>,
    /// Its MessagePack bytes.
    pub(super) payload: Bytes,
}

/// One message in the making.
#[derive(Debug, Clone)]
pub(super) struct Message<S> {
    /// Where it is published.
    pub(super) topic: Arc<str>,
    /// The marks of its items.
    pub(super) slots: Vec<S>,
    /// The life that its items belong to.
    pub(super) epoch: Epoch,
    /// The largest number in it.
    pub(super) last: u64,
    /// The last number of each item.
    lasts: Vec<u64>,
    parts: Vec<Bytes>,
    bytes: usize,
}

impl<S> Message<S> {
    fn new(item: Waiting<S>) -> Self {
        Self {
            topic: item.topic,
            slots: vec![item.slot],
            epoch: item.epoch,
            last: item.last,
            lasts: vec![item.last],
            bytes: item.payload.len(),
            parts: vec![item.payload],
        }
    }

    fn has_room_for(&self, item: &Waiting<S>, limit: usize) -> bool {
        self.epoch == item.epoch && self.bytes + item.payload.len() <= limit
    }

    fn add(&mut self, item: Waiting<S>) {
        self.bytes += item.payload.len();
        self.last = self.last.max(item.last);
        self.lasts.push(item.last);
        self.slots.push(item.slot);
        self.parts.push(item.payload);
    }

    /// Its items in messages of their own.
    pub(super) fn split(self) -> Vec<Self> {
        let items = self.slots.into_iter().zip(self.lasts).zip(self.parts);
        items
            .map(|((slot, last), part)| Self {
                topic: self.topic.clone(),
                slots: vec![slot],
                epoch: self.epoch,
                last,
                lasts: vec![last],
                bytes: part.len(),
                parts: vec![part],
            })
            .collect()
    }

    /// The message with another content for the same items.
    pub(super) fn replaced(self, topic: Arc<str>, payload: Bytes) -> Self {
        Self {
            topic,
            bytes: payload.len(),
            parts: vec![payload],
            ..self
        }
    }

    /// The payload, packed; a single item that is not packed is not copied.
    pub(super) fn payload(&self, compression: Compression) -> Bytes {
        match (&self.parts[..], compression) {
            ([only], Compression::None) => only.clone(),
            (parts, _) => compression.pack(parts.concat()),
        }
    }
}

/// Joins items into messages of at most `limit` bytes before compression; a larger item stands alone.
pub(super) fn pack<S>(
    items: impl IntoIterator<Item = Waiting<S>>,
    limit: usize,
) -> Vec<Message<S>> {
    let mut messages: Vec<Message<S>> = Vec::new();
    let mut open: HashMap<Arc<str>, usize> = HashMap::new();
    for item in items {
        let at = open.get(&item.topic).copied();
        match at.map(|at| &mut messages[at]) {
            Some(message) if message.has_room_for(&item, limit) => message.add(item),
            _ => {
                open.insert(item.topic.clone(), messages.len());
                messages.push(Message::new(item));
            }
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn waiting(slot: u64, topic: &str, length: usize) -> Waiting<u64> {
        Waiting {
            slot,
            epoch: Epoch(1),
            last: slot,
            topic: topic.into(),
            payload: vec![u8::try_from(slot % 128).unwrap(); length].into(),
        }
    }

    #[test]
    fn joins_by_topic_and_keeps_the_order() {
        let items = [("a", 1), ("b", 2), ("a", 3), ("b", 4)];
        let messages = pack(items.map(|(topic, n)| waiting(n, topic, 10)), 100);
        assert_eq!(messages.len(), 2);
        assert_eq!(
            (messages[0].slots.as_slice(), messages[0].last),
            (&[1, 3][..], 3)
        );
        let payload = messages[1].payload(Compression::None);
        assert_eq!(payload, [[2; 10], [4; 10]].concat());
    }

    #[test]
    fn a_single_item_is_not_copied() {
        let item = waiting(1, "a", 1000);
        let messages = pack([item.clone()], 10);
        assert_eq!(
            messages[0].payload(Compression::None).as_ptr(),
            item.payload.as_ptr()
        );
    }

    #[test]
    fn epochs_are_not_mixed() {
        let other = Waiting {
            epoch: Epoch(2),
            ..waiting(1, "a", 1)
        };
        assert_eq!(pack([waiting(1, "a", 1), other], 100).len(), 2);
    }

    #[test]
    fn splits_into_its_items_each_with_its_own_number() {
        let message = pack([waiting(1, "a", 3), waiting(7, "a", 4)], 100).remove(0);
        let parts = message.split();
        let seen: Vec<_> = parts
            .iter()
            .map(|p| (p.slots[0], p.last, p.bytes))
            .collect();
        assert_eq!(seen, [(1, 1, 3), (7, 7, 4)]);
    }

    proptest! {
        #[test]
        fn every_item_is_in_exactly_one_message_within_the_limit(
            items in prop::collection::vec((0..4_usize, 1..80_usize), 0..60),
        ) {
            let topics = ["a", "b", "c", "d"];
            let given = items.iter().enumerate();
            let messages = pack(given.map(|(n, (topic, length))| waiting(n as u64, topics[*topic], *length)), 100);
            let mut slots: Vec<u64> = messages.iter().flat_map(|m| m.slots.clone()).collect();
            for message in &messages {
                prop_assert!(message.bytes <= 100);
                prop_assert!(message.slots.is_sorted());
                prop_assert_eq!(message.last, *message.slots.last().unwrap());
            }
            slots.sort_unstable();
            prop_assert_eq!(slots, (0..items.len() as u64).collect::<Vec<_>>());
        }
    }
}
