//! Publishing: awaited, deferred, or never waiting.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::task::coop;

use crate::codec::{self, PacketId, Publish, PublishProperties, QoS, ReasonCode, Text, Version};
use crate::driver::{Shared, keep};
use crate::error::Error;
use crate::options::whole_seconds;
use crate::outcomes::{Number, Outcome, Outcomes};
use crate::queue::{Hear, Published, Queued};
use crate::topic;

use super::{MqttClient, PublishOptions};

/// What a PUBLISH has beside topic and payload at most, in bytes: type, length in four, length of the topic, and id.
const LONGEST_HEAD: usize = 9;
/// Tokens to one unit of the budget that tokio gives a task before others have their turn.
const TOKENS_PER_UNIT: u64 = 32;

/// The outcome of a deferred publish; a future. Dropping it does not take the message back.
///
/// ```no_run
/// use qproxy_mqtt::{QoS, codec::ReasonCode};
///
/// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), qproxy_mqtt::Error> {
/// let first = client.publish_deferred("lamp/1", "on", QoS::AtLeastOnce).await?;
/// let second = client.publish_deferred("lamp/2", "on", QoS::AtLeastOnce).await?;
/// first.await?;
/// if second.reason().await? == ReasonCode::NoMatchingSubscribers {
///     println!("nobody is subscribed to lamp/2");
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "without waiting for it nobody learns whether the message was delivered"]
pub struct PublishToken {
    outcomes: Arc<Outcomes>,
    /// Nothing once it has told.
    number: Published,
}

impl PublishToken {
    /// As awaiting it, with what the server said: [`ReasonCode::NoMatchingSubscribers`] where a server of MQTT 5.0
    /// tells that nobody is subscribed, [`ReasonCode::Success`] otherwise.
    ///
    /// # Errors
    /// As [`MqttClient::publish`].
    pub async fn reason(mut self) -> Result<ReasonCode, Error> {
        std::future::poll_fn(|context| self.poll_outcome(context)).await
    }

    pub(super) fn new(shared: &Shared, number: Published) -> Self {
        let outcomes = Arc::clone(shared.queue.outcomes());
        Self { outcomes, number }
    }

    fn poll_outcome(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        let number = self.number.expect("polled after it had told");
        // A program that goes through tokens which are done would be sent away every 128 of them, and another thread woken
        // to go on in its place, for a few nanoseconds of work each; without any end it would never be.
        let unit = match number.get() % TOKENS_PER_UNIT {
            0 => Some(ready!(coop::poll_proceed(context))),
            _ => None,
        };
        let outcome = ready!(self.outcomes.poll(number, context));
        unit.inspect(coop::RestoreOnPending::made_progress);
        self.number = None;
        Poll::Ready(outcome)
    }
}

impl Drop for PublishToken {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.outcomes.give_up(number);
        }
    }
}

impl fmt::Debug for PublishToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number.map(Number::get);
        formatter
            .debug_tuple("PublishToken")
            .field(&number)
            .finish()
    }
}

impl Future for PublishToken {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_outcome(context).map_ok(drop)
    }
}

impl MqttClient {
    /// Publishes, and returns when the server has acknowledged (QoS 1: PUBACK, QoS 2: PUBCOMP); with QoS 0, when
    /// the message is written.
    ///
    /// While there is no connection the message waits in the queue. Cancelled before there was room in the queue,
    /// nothing is published; cancelled after, it is.
    ///
    /// # Errors
    /// See [`Error`]; after [`Error::Timeout`] or [`Error::Stopped`] the message may have been delivered.
    pub async fn publish(
        &self,
        topic: impl Into<Text>,
        payload: impl Into<Bytes>,
        qos: QoS,
    ) -> Result<(), Error> {
        self.publish_with(topic, payload, qos.into()).await
    }

    /// As [`MqttClient::publish`], with options.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use qproxy_mqtt::{QoS, client::PublishOptions};
    ///
    /// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), qproxy_mqtt::Error> {
    /// let options = PublishOptions::new(QoS::AtLeastOnce).retain().timeout(Duration::from_secs(3));
    /// client.publish_with("lamp/1", "on", options).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`MqttClient::publish`].
    pub async fn publish_with(
        &self,
        topic: impl Into<Text>,
        payload: impl Into<Bytes>,
        options: PublishOptions,
    ) -> Result<(), Error> {
        let limit = options.timeout.or(self.shared().config.publish_timeout);
        let publish = async { self.publish_deferred(topic, payload, options).await?.await };
        match limit {
            None => publish.await,
            Some(limit) => tokio::time::timeout(limit, publish)
                .await
                .unwrap_or(Err(Error::Timeout(limit))),
        }
    }

    /// Puts a message into the queue, waiting for room where the policy says so, and returns a token to wait for
    /// later. Thousands can be under way; they stay in order. With `persistence` it returns when the message is saved;
    /// batches of callers share a write.
    ///
    /// ```no_run
    /// # use qproxy_mqtt::QoS;
    /// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), qproxy_mqtt::Error> {
    /// let mut tokens = Vec::new();
    /// for number in 0..1000 {
    ///     let topic = format!("lamp/{number}");
    ///     tokens.push(client.publish_deferred(topic, "on", QoS::AtLeastOnce).await?);
    /// }
    /// for token in tokens {
    ///     token.await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The message was not queued.
    pub async fn publish_deferred(
        &self,
        topic: impl Into<Text>,
        payload: impl Into<Bytes>,
        options: impl Into<PublishOptions>,
    ) -> Result<PublishToken, Error> {
        let shared = self.shared();
        let queued = prepare(shared, topic.into(), payload.into(), options.into())?;
        let mut place = Some(queued);
        let saved = place.as_mut().and_then(keep::hear_of_saving);
        let number = shared.queue.publish(&mut place, Hear::Outcome).await?;
        let token = PublishToken::new(shared, number);
        match saved {
            None => Ok(token),
            Some(saved) => keep::saved(saved, token).await,
        }
    }

    /// As [`MqttClient::publish_deferred`], but never waits.
    ///
    /// ```
    /// # use qproxy_mqtt::{Error, MqttClient, MqttConfig, QoS};
    /// let client = MqttClient::new(MqttConfig::default());
    /// let refused = client.try_publish("lamp/+", "on", QoS::AtMostOnce).unwrap_err();
    /// assert!(matches!(refused, Error::Topic(_)));
    /// let refused = client.try_publish("lamp/1", "on", QoS::AtMostOnce).unwrap_err();
    /// assert!(matches!(refused, Error::NotConnected));
    /// ```
    ///
    /// # Errors
    /// The message was not queued; [`Error::QueueFull`] where it would have to wait.
    pub fn try_publish(
        &self,
        topic: impl Into<Text>,
        payload: impl Into<Bytes>,
        options: impl Into<PublishOptions>,
    ) -> Result<PublishToken, Error> {
        let shared = self.shared();
        let queued = prepare(shared, topic.into(), payload.into(), options.into())?;
        let mut place = Some(queued);
        let number = shared.queue.try_publish(&mut place, Hear::Outcome)?;
        Ok(PublishToken::new(shared, number))
    }
}

/// Checks everything that could go wrong later on the wire.
pub(super) fn prepare(
    shared: &Shared,
    topic: Text,
    payload: Bytes,
    options: PublishOptions,
) -> Result<Queued, Error> {
    topic::validate_name(topic.as_bytes())?;
    let overhead = match shared.config.protocol {
        Version::V311 => LONGEST_HEAD,
        // The length of the properties, also where there are none.
        Version::V5 => LONGEST_HEAD + 1,
    };
    check_size(shared, overhead + topic.as_bytes().len() + payload.len())?;
    let PublishOptions { qos, retain, .. } = options;
    let keeps = qos != QoS::AtMostOnce && shared.config.persistence.is_some();
    let mut publish = Publish {
        dup: false,
        qos,
        retain,
        topic,
        id: None,
        payload,
        properties: None,
    };
    let mut expires = None;
    if options.expiry.is_some() || options.properties.is_some() {
        expires = options.expiry.and_then(|it| Instant::now().checked_add(it));
        publish.properties = wire_properties(shared, options)?;
        check_encoding(shared, &mut publish)?;
    }
    Ok(Queued {
        publish,
        expires,
        done: None,
        keeping: keeps.then(Box::default),
    })
}

/// In 3.1.1 a message can still expire while it waits, but nothing else.
fn wire_properties(
    shared: &Shared,
    options: PublishOptions,
) -> Result<Option<Box<PublishProperties>>, Error> {
    let PublishOptions {
        expiry, properties, ..
    } = options;
    if shared.config.protocol == Version::V311 {
        return match properties {
            None => Ok(None),
            Some(_) => Err(Error::NeedsV5("publishing with properties")),
        };
    }
    let mut properties = properties.unwrap_or_default();
    properties.topic_alias = None;
    properties.subscription_ids.clear();
    properties.message_expiry = expiry.map(whole_seconds);
    Ok(Some(properties))
}

/// Properties hold text of the program's: what cannot be written has to be refused here.
fn check_encoding(shared: &Shared, publish: &mut Publish) -> Result<(), Error> {
    let mut head = BytesMut::new();
    publish.id = (publish.qos != QoS::AtMostOnce).then_some(PacketId::MIN);
    codec::encode_publish_head(publish, shared.config.protocol, &mut head)?;
    check_size(shared, head.len() + publish.payload.len())
}

/// `size` counts the longest possible fixed header.
pub(super) fn check_size(shared: &Shared, size: usize) -> Result<(), Error> {
    let limit = shared.config.max_packet_size;
    if size > limit {
        Err(Error::TooLarge { size, limit })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MqttConfig;
    use crate::codec::MAX_REMAINING_LENGTH;

    #[test]
    fn the_largest_message_is_a_byte_shorter_in_5_0_which_writes_the_length_of_no_properties() {
        for (protocol, head) in [(Version::V311, 4), (Version::V5, 5)] {
            let client = MqttClient::new(MqttConfig {
                protocol,
                max_packet_size: MAX_REMAINING_LENGTH + 5,
                ..MqttConfig::default()
            });
            let refused = |bytes| {
                // Never written to, so no memory stands behind it.
                let payload = vec![0; bytes];
                client.try_publish("t", payload, QoS::AtLeastOnce).err()
            };
            let largest = MAX_REMAINING_LENGTH - head - 1;
            let error = refused(largest);
            assert!(matches!(error, Some(Error::NotConnected)), "{error:?}");
            let error = refused(largest + 1);
            assert!(matches!(error, Some(Error::TooLarge { .. })), "{error:?}");
        }
    }

    #[test]
    fn nobody_waits_for_a_driver_whose_runtime_is_gone_also_where_it_never_ran() {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        for turns in [0, 3] {
            let client = MqttClient::new(MqttConfig {
                host: "127.0.0.1".to_owned(),
                port: 1,
                ..MqttConfig::default()
            });
            let first = runtime();
            first.block_on(async {
                client.start().await.unwrap();
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            });
            let token = client.try_publish("t", "on", QoS::AtLeastOnce);
            drop(first);
            let told = runtime().block_on(token.unwrap());
            assert!(matches!(told, Err(Error::Stopped)), "{told:?}");
            let later = runtime().block_on(client.publish("t", "on", QoS::AtLeastOnce));
            assert!(matches!(later, Err(Error::NotConnected)), "{later:?}");
        }
    }
}
