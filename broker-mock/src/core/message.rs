//! A message on its way through the broker, shared by all who get it.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use qproxy_mqtt::codec::{QoS, Text};

use super::filter::GroupKey;

/// A message as it was published.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) topic: Text,
    pub(super) payload: Bytes,
    pub(super) qos: QoS,
}

impl Message {
    /// A message in memory of its own: what was decoded is a slice of a read buffer, and one small
    /// message that waits must not keep 64 KiB alive. Topic and payload share one allocation.
    pub(super) fn new(topic: &Text, payload: &Bytes, qos: QoS) -> Self {
        if payload.len() > LARGE {
            let (topic, payload) = (topic.detached(), payload.clone());
            return Self {
                topic,
                payload,
                qos,
            };
        }
        let mut both = BytesMut::with_capacity(topic.as_bytes().len() + payload.len());
        both.put_slice(topic.as_bytes());
        both.put_slice(payload);
        let mut name = both.freeze();
        let payload = name.split_off(topic.as_bytes().len());
        let topic = Text::from_utf8(name).expect("a copy of text is text");
        Self {
            topic,
            payload,
            qos,
        }
    }

    /// What the message counts against the limits.
    pub(super) fn bytes(&self) -> usize {
        self.topic.as_bytes().len() + self.payload.len() + OVERHEAD
    }

    #[cfg(test)]
    pub(super) fn for_test(topic: &str, payload: &str) -> Self {
        Self {
            topic: topic.into(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            qos: QoS::AtLeastOnce,
        }
    }
}

/// A payload over this is most of the read buffer that it lies in, and is not copied.
const LARGE: usize = 32 * 1024;

/// What a message costs beside its text: so that empty messages are not free.
const OVERHEAD: usize = 16;

/// A message for one subscriber.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) message: Arc<Message>,
    /// The lower of the publisher's and the subscriber's.
    pub(super) qos: QoS,
    /// Whether it is sent because of the subscription and not because it was just published.
    pub(super) retain: bool,
    /// The shared subscription it was chosen from; it can go to another member.
    pub(super) group: Option<GroupKey>,
}

/// A count of bytes over all sessions with an upper bound.
#[derive(Debug)]
pub(super) struct Budget {
    used: usize,
    most: usize,
}

/// Who asks for bytes of the [`Budget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// A connected session that holds less than its guaranteed share.
    Guaranteed,
    /// A connected session.
    Online,
    /// A session without a connection: it gets the lower half only.
    Offline,
}

impl Budget {
    pub(super) fn new(most: usize) -> Self {
        Self { used: 0, most }
    }

    /// Takes `bytes` if there is room.
    pub(super) fn take(&mut self, bytes: usize, claim: Claim) -> bool {
        let most = match claim {
            Claim::Guaranteed => usize::MAX,
            Claim::Online => self.most,
            Claim::Offline => self.most / 2,
        };
        let fits = self.used.saturating_add(bytes) <= most;
        if fits {
            self.used += bytes;
        }
        fits
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        debug_assert!(self.used >= bytes, "more given back than was taken");
        self.used = self.used.saturating_sub(bytes);
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }
}
