//! Topic aliases (MQTT 5.0 section 3.3.2.3.4): numbers that stand for topics, on one connection and in one direction.
//!
//! What we send: a topic that was used before gets a number, as long as the server takes one more. In a full table a
//! hand goes round, one step for each topic that asks to get in: it passes over numbers used since it came by last, and
//! takes the first that was not. So busy topics stay, also where more of them compete than there are numbers, and
//! topics of yesterday go. What is sent again later carries its whole topic.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{Hash, Hasher};
use std::num::NonZeroU16;

use crate::codec::Text;

use super::Violation;

/// Numbers used at most, whatever the server takes; each keeps a topic in memory.
const MAX_OUTBOUND: u16 = 256;
/// Topics remembered as used once, by their hash; a power of two.
const SEEN: usize = 256;
/// A number costs three bytes: shorter topics go as they are.
const MIN_TOPIC_BYTES: usize = 4;

/// How a topic goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// As it is.
    InFull,
    /// As it is, and from now on the number stands for it.
    Introduced(NonZeroU16),
    /// As the number alone.
    Alias(NonZeroU16),
}

/// The numbers for topics that we publish to.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    max: u16,
    numbers: HashMap<Text, NonZeroU16>,
    /// By number, from 1.
    slots: Vec<Slot>,
    hand: usize,
    /// Hashes of topics seen once, each at its place.
    seen: Vec<u64>,
}

#[derive(Debug)]
struct Slot {
    topic: Text,
    used: bool,
}

impl Outbound {
    /// A new connection, whose server takes numbers up to `max`.
    pub(super) fn reset(&mut self, max: u16) {
        self.max = max.min(MAX_OUTBOUND);
        self.numbers.clear();
        self.slots.clear();
        self.hand = 0;
        self.seen.clear();
    }

    /// How to send `topic` now. What is returned has to go out.
    pub(super) fn choose(&mut self, topic: &Text) -> Sent {
        if self.max == 0 || topic.as_bytes().len() < MIN_TOPIC_BYTES {
            return Sent::InFull;
        }
        if let Some(&number) = self.numbers.get(topic) {
            self.slots[index(number)].used = true;
            return Sent::Alias(number);
        }
        if !self.was_seen(topic) {
            return Sent::InFull;
        }
        self.number_for(topic)
            .map_or(Sent::InFull, Sent::Introduced)
    }

    /// What was chosen does not go out after all.
    pub(super) fn take_back(&mut self, topic: &Text, sent: Sent) {
        let Sent::Introduced(number) = sent else {
            return;
        };
        self.numbers.remove(topic);
        let at = index(number);
        if at + 1 == self.slots.len() {
            self.slots.pop();
        } else {
            // Free for the hand; the topic may get another number meanwhile, which must outlive this one.
            self.slots[at] = Slot {
                topic: Text::default(),
                used: false,
            };
        }
    }

    fn was_seen(&mut self, topic: &Text) -> bool {
        if self.seen.is_empty() {
            self.seen.resize(SEEN, 0);
        }
        let mut hasher = DefaultHasher::new();
        topic.as_bytes().hash(&mut hasher);
        let hash = hasher.finish();
        let place = &mut self.seen[hash as usize % SEEN];
        std::mem::replace(place, hash) == hash
    }

    fn number_for(&mut self, topic: &Text) -> Option<NonZeroU16> {
        let slot = Slot {
            // Lest the topic keeps a whole read buffer alive.
            topic: topic.detached(),
            used: true,
        };
        let at = if self.slots.len() < usize::from(self.max) {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            let at = self.hand;
            self.hand = (at + 1) % self.slots.len();
            if std::mem::replace(&mut self.slots[at].used, false) {
                return None;
            }
            self.numbers.remove(&self.slots[at].topic);
            self.slots[at] = slot;
            at
        };
        let number = NonZeroU16::new(u16::try_from(at + 1).ok()?)?;
        self.numbers.insert(self.slots[at].topic.clone(), number);
        Some(number)
    }
}

/// The numbers that the server gave topics.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    max: u16,
    topics: HashMap<NonZeroU16, Text>,
}

impl Inbound {
    /// Takes numbers up to `max`.
    pub(super) fn new(max: u16) -> Self {
        let topics = HashMap::new();
        Self { max, topics }
    }

    pub(super) fn connection_lost(&mut self) {
        self.topics.clear();
    }

    /// The whole topic of a PUBLISH that has a number.
    pub(super) fn resolve(&mut self, topic: Text, alias: NonZeroU16) -> Result<Text, Violation> {
        if alias.get() > self.max {
            return Err(Violation::TopicAlias {
                alias: alias.get(),
                max: self.max,
            });
        }
        match self.topics.entry(alias) {
            Entry::Occupied(known) if topic.as_bytes().is_empty() => Ok(known.get().clone()),
            Entry::Vacant(_) if topic.as_bytes().is_empty() => {
                Err(Violation::UnknownTopicAlias(alias.get()))
            }
            Entry::Occupied(mut known) => {
                known.insert(topic.detached());
                Ok(topic)
            }
            Entry::Vacant(unknown) => {
                unknown.insert(topic.detached());
                Ok(topic)
            }
        }
    }
}

fn index(number: NonZeroU16) -> usize {
    usize::from(number.get()) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::ReasonCode;

    fn number(value: u16) -> NonZeroU16 {
        NonZeroU16::new(value).unwrap()
    }

    fn outbound(max: u16) -> Outbound {
        let mut outbound = Outbound::default();
        outbound.reset(max);
        outbound
    }

    #[test]
    fn a_topic_gets_a_number_at_its_second_use() {
        let mut aliases = outbound(2);
        let topic = Text::from("sensors/one");
        assert_eq!(aliases.choose(&topic), Sent::InFull);
        assert_eq!(aliases.choose(&topic), Sent::Introduced(number(1)));
        assert_eq!(aliases.choose(&topic), Sent::Alias(number(1)));
        aliases.reset(2);
        assert_eq!(aliases.choose(&topic), Sent::InFull, "another connection");
    }

    #[test]
    fn no_number_is_given_to_a_server_that_takes_none_or_for_a_topic_too_short_to_pay() {
        let mut none = outbound(0);
        let mut some = outbound(10);
        for _ in 0..3 {
            assert_eq!(none.choose(&"sensors/one".into()), Sent::InFull);
            assert_eq!(some.choose(&"a/b".into()), Sent::InFull);
        }
    }

    #[test]
    fn more_busy_topics_than_numbers_do_not_drive_each_other_out() {
        let mut aliases = outbound(4);
        let topics: Vec<Text> = (0..5).map(|at| format!("topic/{at}").into()).collect();
        let mut short = 0;
        for _ in 0..100 {
            for topic in &topics {
                short += u32::from(matches!(aliases.choose(topic), Sent::Alias(_)));
            }
        }
        assert!(short >= 97 * 4, "{short} of 500 were sent short");
    }

    #[test]
    fn a_topic_of_yesterday_makes_room() {
        let mut aliases = outbound(1);
        let (old, new) = (Text::from("topic/old"), Text::from("topic/new"));
        aliases.choose(&old);
        assert_eq!(aliases.choose(&old), Sent::Introduced(number(1)));
        aliases.choose(&new);
        assert_eq!(aliases.choose(&new), Sent::InFull, "the hand passes once");
        assert_eq!(aliases.choose(&new), Sent::Introduced(number(1)));
        assert_eq!(aliases.choose(&new), Sent::Alias(number(1)));
        assert_eq!(aliases.choose(&old), Sent::InFull);
    }

    #[test]
    fn numbers_of_the_server_stand_for_what_it_last_said() {
        let mut aliases = Inbound::new(2);
        let empty = Text::default;
        let unknown = aliases.resolve(empty(), number(1)).unwrap_err();
        assert_eq!(unknown.reason(), ReasonCode::ProtocolError);
        assert_eq!(aliases.resolve("a".into(), number(1)).unwrap(), "a");
        assert_eq!(aliases.resolve(empty(), number(1)).unwrap(), "a");
        aliases.resolve("b".into(), number(1)).unwrap();
        assert_eq!(aliases.resolve(empty(), number(1)).unwrap(), "b");
        let over = aliases.resolve("c".into(), number(3)).unwrap_err();
        assert_eq!(over.reason(), ReasonCode::TopicAliasInvalid);
        aliases.connection_lost();
        assert!(aliases.resolve(empty(), number(1)).is_err());
    }
}
