//! A message on its way through the broker, shared by all who get it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use qproxy_mqtt::codec::{
    Publish, PublishProperties, QoS, SubscriptionId, Text, UserProperty, Will, WillProperties,
};

use super::filter::GroupKey;
use super::session::SessionId;
use super::tree::Wanted;

/// A message as it was published.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) topic: Text,
    pub(super) payload: Bytes,
    pub(super) qos: QoS,
    /// As published; what a receiver sees is in its [`Delivery`].
    pub(super) retain: bool,
    /// Who published it, where a client did.
    pub(super) from: Option<SessionId>,
    /// What of the properties goes on as it came; without aliases, expiry and subscription identifiers.
    properties: Option<Box<PublishProperties>>,
    /// When it is of no use any more.
    expires: Option<Duration>,
    bytes: usize,
}

impl Message {
    /// A message in memory of its own: what was decoded is a slice of a read buffer, and one small
    /// message that waits must not keep 64 KiB alive. Topic and payload share one allocation.
    pub(super) fn new(topic: &Text, payload: &Bytes, qos: QoS) -> Self {
        let bytes = topic.as_bytes().len() + payload.len() + OVERHEAD;
        let (topic, payload) = if payload.len() > LARGE {
            (topic.detached(), payload.clone())
        } else {
            let mut both = BytesMut::with_capacity(topic.as_bytes().len() + payload.len());
            both.put_slice(topic.as_bytes());
            both.put_slice(payload);
            let mut name = both.freeze();
            let payload = name.split_off(topic.as_bytes().len());
            let topic = Text::from_utf8(name).expect("a copy of text is text");
            (topic, payload)
        };
        Self {
            topic,
            payload,
            qos,
            retain: false,
            from: None,
            properties: None,
            expires: None,
            bytes,
        }
    }

    /// What a client has published just now.
    pub(super) fn published(publish: &Publish, from: SessionId, now: Duration) -> Self {
        let mut message = Self::new(&publish.topic, &publish.payload, publish.qos);
        message.retain = publish.retain;
        message.from = Some(from);
        if let Some(properties) = &publish.properties {
            message.expire_after(properties.message_expiry, now);
            message.carry(properties);
        }
        message
    }

    /// The message of a will. Its expiry counts from its publication, for which see [`Message::expire_after`].
    pub(super) fn will(will: &Will, from: SessionId) -> Self {
        let mut message = Self::new(&will.topic, &will.payload, will.qos);
        message.retain = will.retain;
        message.from = Some(from);
        if let Some(properties) = &will.properties {
            message.carry(&as_published(properties));
        }
        message
    }

    /// Starts the Message Expiry Interval, in seconds, where there is one.
    pub(super) fn expire_after(&mut self, seconds: Option<u32>, now: Duration) {
        self.expires = seconds.map(|seconds| now + Duration::from_secs(seconds.into()));
    }

    pub(super) fn expires(&self) -> Option<Duration> {
        self.expires
    }

    pub(super) fn has_expired(&self, now: Duration) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// The properties of the PUBLISH that carries it to an MQTT 5 client; the expiry is what is left of it
    /// [MQTT-3.3.2-6].
    pub(super) fn properties_at(
        &self,
        now: Duration,
        subscription_ids: &[SubscriptionId],
    ) -> Option<Box<PublishProperties>> {
        if self.properties.is_none() && self.expires.is_none() && subscription_ids.is_empty() {
            return None;
        }
        let mut properties = self.properties.clone().unwrap_or_default();
        properties.message_expiry = self.expires.map(|expires| seconds_left(expires, now));
        properties.subscription_ids = subscription_ids.to_vec();
        Some(properties)
    }

    /// What the message counts against the limits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn carry(&mut self, given: &PublishProperties) {
        let cost = property_bytes(given);
        if cost == 0 {
            return;
        }
        self.bytes += cost + PROPERTIES_OVERHEAD;
        self.properties = Some(Box::new(PublishProperties {
            payload_format: given.payload_format,
            response_topic: given.response_topic.as_ref().map(Text::detached),
            correlation_data: given
                .correlation_data
                .as_ref()
                .map(|data| Bytes::copy_from_slice(data)),
            user_properties: given.user_properties.iter().map(detached).collect(),
            content_type: given.content_type.as_ref().map(Text::detached),
            ..PublishProperties::default()
        }));
    }

    #[cfg(test)]
    pub(super) fn for_test(topic: &str, payload: &str) -> Self {
        Self::new(
            &topic.into(),
            &Bytes::copy_from_slice(payload.as_bytes()),
            QoS::AtLeastOnce,
        )
    }
}

/// What properties that go on take in memory, against `Limits::property_bytes`; 0 where there are none.
pub(super) fn property_bytes(properties: &PublishProperties) -> usize {
    let text = |text: &Option<Text>| text.as_ref().map_or(0, |text| 1 + text.as_bytes().len());
    let data = properties.correlation_data.as_ref();
    let user = &properties.user_properties;
    usize::from(properties.payload_format.is_some())
        + text(&properties.response_topic)
        + text(&properties.content_type)
        + data.map_or(0, |data| 1 + data.len())
        + user.iter().map(user_property_bytes).sum::<usize>()
}

/// The same for a will.
pub(super) fn will_property_bytes(properties: &WillProperties) -> usize {
    property_bytes(&as_published(properties))
}

fn as_published(will: &WillProperties) -> PublishProperties {
    PublishProperties {
        payload_format: will.payload_format,
        response_topic: will.response_topic.clone(),
        correlation_data: will.correlation_data.clone(),
        user_properties: will.user_properties.clone(),
        content_type: will.content_type.clone(),
        ..PublishProperties::default()
    }
}

fn user_property_bytes((name, value): &UserProperty) -> usize {
    size_of::<UserProperty>() + name.as_bytes().len() + value.as_bytes().len()
}

fn detached((name, value): &UserProperty) -> UserProperty {
    (name.detached(), value.detached())
}

/// Rounded up: a message that waited for less than a second has lost none.
fn seconds_left(expires: Duration, now: Duration) -> u32 {
    let left = expires.saturating_sub(now);
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// A payload over this is most of the read buffer that it lies in, and is not copied.
const LARGE: usize = 32 * 1024;

/// What a message costs beside its text: so that empty messages are not free.
const OVERHEAD: usize = 16;

/// What properties cost beside their text.
const PROPERTIES_OVERHEAD: usize = size_of::<PublishProperties>();

/// A message for one subscriber.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) message: Arc<Message>,
    /// The lower of the publisher's and the subscriber's.
    pub(super) qos: QoS,
    /// Whether it was kept, or the subscriber wants to know that it was published so.
    pub(super) retain: bool,
    /// Of all subscriptions that brought it.
    pub(super) subscription_ids: Vec<SubscriptionId>,
    /// The shared subscription it was chosen from; it can go to another member.
    pub(super) group: Option<GroupKey>,
}

impl Delivery {
    /// A message that was just published, for who subscribed.
    pub(super) fn of(message: &Arc<Message>, wanted: Wanted, group: Option<GroupKey>) -> Self {
        Self {
            message: Arc::clone(message),
            qos: wanted.qos.min(message.qos),
            retain: message.retain && wanted.retain_as_published,
            subscription_ids: wanted.ids,
            group,
        }
    }
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
