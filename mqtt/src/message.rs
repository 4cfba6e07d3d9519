//! What the program receives.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

pub use crate::codec::{PayloadFormat, QoS, SubscriptionId, Text, UserProperty};
use crate::codec::{Publish, PublishProperties};
use crate::queue::Queue;
use crate::session::{AckId, Settled};

/// A message that arrived.
///
/// In manual mode the server keeps it until [`Message::ack`]. One that is dropped without is not acknowledged: the
/// server sends it again in the next connection, and later messages can still be acknowledged.
///
/// ```no_run
/// # fn example(message: &qproxy_mqtt::Message) {
/// println!("{} ({:?}): {} bytes", message.topic, message.qos, message.payload.len());
/// if let (Some(topic), Some(data)) = (message.response_topic(), message.correlation_data()) {
///     println!("answer to {topic} with {data:?}");
/// }
/// for (name, value) in message.user_properties() {
///     println!("{name} = {value}");
/// }
/// message.ack();
/// # }
/// ```
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
    properties: Option<Box<PublishProperties>>,
    receipt: Option<Receipt>,
}

impl Message {
    pub(crate) fn new(publish: Publish, receipt: Option<Receipt>) -> Self {
        let Publish {
            dup,
            qos,
            retain,
            topic,
            payload,
            properties,
            ..
        } = publish;
        Self {
            topic,
            payload,
            qos,
            retain,
            dup,
            properties,
            receipt,
        }
    }

    /// All properties; none in MQTT 3.1.1, and none where the publisher gave none.
    ///
    /// ```no_run
    /// # fn example(message: &qproxy_mqtt::Message) {
    /// if let Some(properties) = message.properties() {
    ///     println!("{properties:?}");
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn properties(&self) -> Option<&PublishProperties> {
        self.properties.as_deref()
    }

    /// Where an answer is expected.
    #[must_use]
    pub fn response_topic(&self) -> Option<&Text> {
        self.properties()?.response_topic.as_ref()
    }

    /// What an answer has to give back.
    #[must_use]
    pub fn correlation_data(&self) -> Option<&Bytes> {
        self.properties()?.correlation_data.as_ref()
    }

    /// What the payload is, in the publisher's words.
    ///
    /// ```no_run
    /// # fn example(message: &qproxy_mqtt::Message) -> bool {
    /// message.content_type().is_some_and(|it| it == "application/json")
    /// # }
    /// ```
    #[must_use]
    pub fn content_type(&self) -> Option<&Text> {
        self.properties()?.content_type.as_ref()
    }

    /// What the payload is said to be; nobody has checked it.
    ///
    /// ```no_run
    /// # use qproxy_mqtt::message::PayloadFormat;
    /// # fn example(message: &qproxy_mqtt::Message) -> Option<&str> {
    /// match message.payload_format() {
    ///     PayloadFormat::Utf8 => std::str::from_utf8(&message.payload).ok(),
    ///     PayloadFormat::Bytes => None,
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn payload_format(&self) -> PayloadFormat {
        let said = self.properties().and_then(|said| said.payload_format);
        said.unwrap_or_default()
    }

    /// How long the message is still of use, counted from its arrival.
    ///
    /// ```no_run
    /// # fn example(message: &qproxy_mqtt::Message, arrived: std::time::Instant) -> bool {
    /// message.expiry().is_none_or(|time| arrived.elapsed() < time)
    /// # }
    /// ```
    #[must_use]
    pub fn expiry(&self) -> Option<Duration> {
        let seconds = self.properties()?.message_expiry?;
        Some(Duration::from_secs(seconds.into()))
    }

    /// Names and values for the program, in the publisher's order; a name may come more than once.
    #[must_use]
    pub fn user_properties(&self) -> &[UserProperty] {
        self.properties()
            .map_or(&[], |said| said.user_properties.as_slice())
    }

    /// The identifiers of the subscriptions that brought the message.
    ///
    /// ```no_run
    /// # use qproxy_mqtt::message::SubscriptionId;
    /// # fn example(message: &qproxy_mqtt::Message, doors: SubscriptionId) -> bool {
    /// message.subscription_ids().contains(&doors)
    /// # }
    /// ```
    #[must_use]
    pub fn subscription_ids(&self) -> &[SubscriptionId] {
        self.properties()
            .map_or(&[], |said| said.subscription_ids.as_slice())
    }

    /// What it counts for against the bound on bytes.
    pub(crate) fn cost(&self) -> usize {
        self.payload.len() + properties_cost(self.properties())
    }

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
            .field("properties", &self.properties)
            .finish_non_exhaustive()
    }
}

/// What properties count for against a bound on bytes, about.
pub(crate) fn properties_cost(properties: Option<&PublishProperties>) -> usize {
    let Some(it) = properties else {
        return 0;
    };
    let text = |text: &Option<Text>| text.as_ref().map_or(0, |text| text.as_bytes().len());
    let pairs = it.user_properties.iter();
    let pairs: usize = pairs
        .map(|(name, value)| {
            size_of::<UserProperty>() + name.as_bytes().len() + value.as_bytes().len()
        })
        .sum();
    size_of::<PublishProperties>()
        + text(&it.response_topic)
        + text(&it.content_type)
        + it.correlation_data.as_ref().map_or(0, Bytes::len)
        + it.subscription_ids.len() * size_of::<SubscriptionId>()
        + pairs
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
