//! The last retained message of each topic, bounded by number and bytes.
//!
//! Sorted by topic, so a subscription looks only at the topics that begin with its literal part.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use qproxy_mqtt::codec::Text;
use qproxy_mqtt::topic;

use super::filter;
use super::message::Message;

/// All retained messages.
#[derive(Debug)]
pub(super) struct Retained {
    messages: BTreeMap<Text, Arc<Message>>,
    bytes: usize,
    most_messages: usize,
    most_bytes: usize,
    /// No message expires before this.
    soonest_expiry: Option<Duration>,
}

/// What became of a message that asked to be retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is the topic's retained message now, or has removed it (empty payload).
    Yes,
    /// There is no room; what the topic had before is gone too, since it is no longer its last message.
    NoRoom,
}

impl Retained {
    pub(super) fn new(most_messages: usize, most_bytes: usize) -> Self {
        Self {
            messages: BTreeMap::new(),
            bytes: 0,
            most_messages,
            most_bytes,
            soonest_expiry: None,
        }
    }

    /// Whether anything can be retained at all.
    pub(super) fn is_available(&self) -> bool {
        self.most_messages > 0 && self.most_bytes > 0
    }

    /// Replaces the topic's message; an empty payload removes it (MQTT 3.1.1 section 3.3.1.3).
    pub(super) fn put(&mut self, message: &Arc<Message>) -> Kept {
        if let Some(old) = self.messages.remove(&*message.topic) {
            self.bytes -= old.bytes();
        }
        if message.payload.is_empty() {
            return Kept::Yes;
        }
        let fits = self.messages.len() < self.most_messages
            && self.bytes + message.bytes() <= self.most_bytes;
        if !fits {
            return Kept::NoRoom;
        }
        self.bytes += message.bytes();
        self.soonest_expiry = [self.soonest_expiry, message.expires()]
            .into_iter()
            .flatten()
            .min();
        self.messages
            .insert(message.topic.clone(), Arc::clone(message));
        Kept::Yes
    }

    /// Lets go what has expired, and returns how many that were. Looks only when something has.
    pub(super) fn drop_expired(&mut self, now: Duration) -> usize {
        if self.soonest_expiry.is_none_or(|soonest| soonest > now) {
            return 0;
        }
        let before = self.messages.len();
        self.messages.retain(|_, message| !message.has_expired(now));
        self.bytes = self.messages.values().map(|message| message.bytes()).sum();
        let expiries = self
            .messages
            .values()
            .filter_map(|message| message.expires());
        self.soonest_expiry = expiries.min();
        before - self.messages.len()
    }

    /// The messages whose topic matches `wanted` and that are of use `now`, in the order of their topics.
    pub(super) fn matching<'a>(
        &'a self,
        wanted: &'a str,
        now: Duration,
    ) -> impl Iterator<Item = &'a Arc<Message>> {
        let prefix = filter::literal_prefix(wanted);
        let end = if wanted.contains(['+', '#']) {
            Bound::Unbounded
        } else {
            Bound::Included(wanted)
        };
        self.messages
            .range::<str, _>((Bound::Included(prefix), end))
            .take_while(move |(topic, _)| topic.starts_with(prefix))
            .filter(move |(name, message)| {
                topic::matches(wanted, name) && !message.has_expired(now)
            })
            .map(|(_, message)| message)
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &str) -> Arc<Message> {
        Arc::new(Message::for_test(topic, payload))
    }

    fn topics(retained: &Retained, wanted: &str) -> Vec<String> {
        retained
            .matching(wanted, Duration::ZERO)
            .map(|message| message.topic.to_string())
            .collect()
    }

    #[test]
    fn finds_by_filter_in_topic_order() {
        let mut retained = Retained::new(10, 1000);
        for topic in ["b/é", "a/x", "a", "a/y/z", "ab/x", "$SYS/a"] {
            assert_eq!(retained.put(&message(topic, "1")), Kept::Yes);
        }
        assert_eq!(topics(&retained, "a/#"), ["a", "a/x", "a/y/z"]);
        assert_eq!(topics(&retained, "#"), ["a", "a/x", "a/y/z", "ab/x", "b/é"]);
        assert_eq!(topics(&retained, "+/x"), ["a/x", "ab/x"]);
        assert_eq!(topics(&retained, "b/é"), ["b/é"]);
        assert_eq!(topics(&retained, "$SYS/#"), ["$SYS/a"]);
    }

    #[test]
    fn empty_payload_removes() {
        let mut retained = Retained::new(10, 1000);
        retained.put(&message("a", "1"));
        retained.put(&message("a", ""));
        assert_eq!((retained.len(), retained.bytes()), (0, 0));
    }

    #[test]
    fn expired_messages_are_not_found_and_then_gone() {
        let second = Duration::from_secs(1);
        let mut short = Message::for_test("a", "1");
        short.expire_after(Some(5), Duration::ZERO);
        let mut retained = Retained::new(10, 1000);
        retained.put(&Arc::new(short));
        retained.put(&message("b", "1"));
        assert_eq!(retained.drop_expired(second), 0);
        assert_eq!(retained.matching("#", 4 * second).count(), 2);
        assert_eq!(retained.matching("#", 5 * second).count(), 1);
        assert_eq!(retained.drop_expired(5 * second), 1);
        assert_eq!((retained.len(), retained.drop_expired(9 * second)), (1, 0));
        assert_eq!(retained.bytes(), message("b", "1").bytes());
    }

    #[test]
    fn is_bounded_by_number_and_bytes_but_replaces() {
        let mut retained = Retained::new(2, 100);
        retained.put(&message("a", "1"));
        retained.put(&message("b", "1"));
        assert_eq!(retained.put(&message("c", "1")), Kept::NoRoom);
        assert_eq!(retained.put(&message("a", "22")), Kept::Yes);
        let large = "x".repeat(200);
        assert_eq!(retained.put(&message("a", &large)), Kept::NoRoom);
        assert_eq!(topics(&retained, "#"), ["b"], "a stale message is not kept");
    }
}
