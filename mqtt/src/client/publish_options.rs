//! How a message is published, beyond its QoS.

use std::time::Duration;

use bytes::Bytes;

use crate::codec::{PayloadFormat, PublishProperties, QoS, Text};

/// How a message is published.
///
/// ```
/// # use std::time::Duration;
/// # use qproxy_mqtt::{QoS, client::PublishOptions};
/// let options = PublishOptions::new(QoS::AtLeastOnce)
///     .expiry(Duration::from_secs(30))
///     .content_type("application/json")
///     .user_property("trace", "4bf92f35");
/// ```
#[derive(Debug, Clone, Default)]
pub struct PublishOptions {
    /// How hard to try.
    pub qos: QoS,
    /// Whether the server keeps it for later subscribers.
    pub retain: bool,
    /// Instead of the client's `publish_timeout`.
    pub timeout: Option<Duration>,
    /// How long the message is of use. One that is still waiting by then is not sent, and fails with
    /// [`Error::Expired`](crate::Error::Expired); in MQTT 5.0 the server drops it as well, and is told what is left of
    /// the time, in whole seconds, rounded up.
    pub expiry: Option<Duration>,
    /// The rest of what MQTT 5.0 can say; in 3.1.1 such a publish is refused. The methods below fill it. Expiry, topic
    /// alias and subscription identifiers in it are the client's own business, and ignored.
    pub properties: Option<Box<PublishProperties>>,
}

impl PublishOptions {
    /// With this QoS and nothing else.
    #[must_use]
    pub fn new(qos: QoS) -> Self {
        qos.into()
    }

    /// The server keeps it for later subscribers.
    ///
    /// ```
    /// # use qproxy_mqtt::{QoS, client::PublishOptions};
    /// assert!(PublishOptions::new(QoS::AtMostOnce).retain().retain);
    /// ```
    #[must_use]
    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// Instead of the client's `publish_timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    /// # use qproxy_mqtt::{QoS, client::PublishOptions};
    ///
    /// let options = PublishOptions::new(QoS::AtLeastOnce).timeout(Duration::from_secs(3));
    /// assert_eq!(options.timeout, Some(Duration::from_secs(3)));
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long the message is of use.
    #[must_use]
    pub fn expiry(mut self, expiry: Duration) -> Self {
        self.expiry = Some(expiry);
        self
    }

    /// Where an answer is expected; MQTT 5.0.
    ///
    /// ```
    /// # use qproxy_mqtt::{QoS, client::PublishOptions};
    /// let options = PublishOptions::new(QoS::AtLeastOnce)
    ///     .response_topic("answers/lamp-1")
    ///     .correlation_data("7");
    /// let said = options.properties.expect("they were set");
    /// assert_eq!(said.response_topic, Some("answers/lamp-1".into()));
    /// assert_eq!(said.correlation_data, Some("7".into()));
    /// ```
    #[must_use]
    pub fn response_topic(mut self, topic: impl Into<Text>) -> Self {
        self.properties().response_topic = Some(topic.into());
        self
    }

    /// To be given back with the answer; MQTT 5.0.
    ///
    /// ```
    /// # use qproxy_mqtt::{QoS, client::PublishOptions};
    /// let options = PublishOptions::new(QoS::AtLeastOnce).correlation_data(vec![0, 7]);
    /// let said = options.properties.and_then(|it| it.correlation_data);
    /// assert_eq!(said.as_deref(), Some(&[0, 7][..]));
    /// ```
    #[must_use]
    pub fn correlation_data(mut self, data: impl Into<Bytes>) -> Self {
        self.properties().correlation_data = Some(data.into());
        self
    }

    /// What the payload is, for example `application/json`; MQTT 5.0.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<Text>) -> Self {
        self.properties().content_type = Some(content_type.into());
        self
    }

    /// What the payload is said to be. A server may refuse text that is not UTF-8; MQTT 5.0.
    ///
    /// ```
    /// # use qproxy_mqtt::{QoS, client::PublishOptions};
    /// use qproxy_mqtt::message::PayloadFormat;
    ///
    /// let options = PublishOptions::new(QoS::AtMostOnce).payload_format(PayloadFormat::Utf8);
    /// let said = options.properties.and_then(|it| it.payload_format);
    /// assert_eq!(said, Some(PayloadFormat::Utf8));
    /// ```
    #[must_use]
    pub fn payload_format(mut self, format: PayloadFormat) -> Self {
        self.properties().payload_format = Some(format);
        self
    }

    /// One more name and value for whoever receives the message; MQTT 5.0.
    #[must_use]
    pub fn user_property(mut self, name: impl Into<Text>, value: impl Into<Text>) -> Self {
        let pair = (name.into(), value.into());
        self.properties().user_properties.push(pair);
        self
    }

    fn properties(&mut self) -> &mut PublishProperties {
        self.properties.get_or_insert_default()
    }
}

impl From<QoS> for PublishOptions {
    fn from(qos: QoS) -> Self {
        Self {
            qos,
            ..Self::default()
        }
    }
}
