//! Topic aliases: numbers that stand for topics on one connection (MQTT 5 section 3.3.2.3.4).
//!
//! Each direction has numbers of its own. Both tables are bounded by `Limits::topic_aliases` and their topics by
//! `Limits::topic_bytes`; they end with the connection.

use std::collections::HashMap;
use std::num::NonZeroU16;

use qproxy_mqtt::codec::Text;

/// The aliases that a client has set.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    topics: Vec<Option<Text>>,
    most: u16,
}

/// What is wrong with an alias that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is above the maximum that was announced.
    TooHigh,
    /// It stands for nothing yet.
    Unknown,
}

impl Incoming {
    pub(crate) fn new(most: u16) -> Self {
        Self {
            topics: Vec::new(),
            most,
        }
    }

    /// The topic that is meant: `topic` itself, which the alias stands for from now on, or what the alias stands for
    /// where `topic` is empty.
    pub(crate) fn resolve(&mut self, alias: NonZeroU16, topic: &Text) -> Result<Text, Wrong> {
        if alias.get() > self.most {
            return Err(Wrong::TooHigh);
        }
        let at = usize::from(alias.get() - 1);
        if topic.as_bytes().is_empty() {
            return self.topics.get(at).cloned().flatten().ok_or(Wrong::Unknown);
        }
        if self.topics.len() <= at {
            self.topics.resize(at + 1, None);
        }
        let slot = &mut self.topics[at];
        if slot.as_ref() != Some(topic) {
            *slot = Some(topic.detached());
        }
        Ok(topic.clone())
    }
}

/// The aliases that the broker has set. The topic that was given one first gives way to a new one.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    numbers: HashMap<Text, NonZeroU16>,
    /// In the order of the numbers, from 1.
    topics: Vec<Text>,
    next: usize,
    most: u16,
}

/// How a topic is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alias {
    /// The client knows this number.
    Known(NonZeroU16),
    /// The number stands for the topic from now on.
    New(NonZeroU16),
    /// In full.
    None,
}

/// A topic that is shorter saves nothing: a property takes three bytes.
const SHORTEST: usize = 4;

impl Outgoing {
    /// `most` is the lower of the client's maximum and ours.
    pub(super) fn new(most: u16) -> Self {
        Self {
            most,
            ..Self::default()
        }
    }

    pub(super) fn of(&mut self, topic: &Text) -> Alias {
        if self.most == 0 || topic.as_bytes().len() < SHORTEST {
            return Alias::None;
        }
        if let Some(&number) = self.numbers.get(topic.as_str()) {
            return Alias::Known(number);
        }
        let name = topic.detached();
        let at = self.next;
        self.next = (self.next + 1) % usize::from(self.most);
        let number = u16::try_from(at + 1).ok().and_then(NonZeroU16::new);
        let number = number.expect("a place below `most` has a 16-bit number");
        match self.topics.get_mut(at) {
            Some(slot) => {
                let gone = std::mem::replace(slot, name.clone());
                self.numbers.remove(gone.as_str());
            }
            None => self.topics.push(name.clone()),
        }
        self.numbers.insert(name, number);
        Alias::New(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: u16) -> NonZeroU16 {
        NonZeroU16::new(value).unwrap()
    }

    #[test]
    fn an_alias_stands_for_the_last_topic_it_came_with() {
        let mut incoming = Incoming::new(2);
        let none = Text::default();
        assert_eq!(incoming.resolve(number(1), &none), Err(Wrong::Unknown));
        assert_eq!(incoming.resolve(number(2), &"a".into()), Ok("a".into()));
        assert_eq!(incoming.resolve(number(2), &none), Ok("a".into()));
        assert_eq!(incoming.resolve(number(1), &none), Err(Wrong::Unknown));
        assert_eq!(incoming.resolve(number(2), &"b".into()), Ok("b".into()));
        assert_eq!(incoming.resolve(number(2), &none), Ok("b".into()));
        assert_eq!(
            incoming.resolve(number(3), &"c".into()),
            Err(Wrong::TooHigh)
        );
    }

    #[test]
    fn numbers_are_given_in_turn_and_taken_back() {
        let mut outgoing = Outgoing::new(2);
        assert_eq!(outgoing.of(&"long/a".into()), Alias::New(number(1)));
        assert_eq!(outgoing.of(&"long/a".into()), Alias::Known(number(1)));
        assert_eq!(outgoing.of(&"long/b".into()), Alias::New(number(2)));
        assert_eq!(outgoing.of(&"long/c".into()), Alias::New(number(1)));
        assert_eq!(outgoing.of(&"long/b".into()), Alias::Known(number(2)));
        assert_eq!(outgoing.of(&"long/a".into()), Alias::New(number(2)));
        assert_eq!((outgoing.topics.len(), outgoing.numbers.len()), (2, 2));
    }

    #[test]
    fn short_topics_and_clients_without_aliases_get_none() {
        assert_eq!(Outgoing::new(9).of(&"a/b".into()), Alias::None);
        assert_eq!(Outgoing::new(0).of(&"long/a".into()), Alias::None);
    }
}
