//! Publishing: awaited, deferred, or never waiting.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::codec::{Publish, QoS, Text};
use crate::driver::Shared;
use crate::error::Error;
use crate::queue::Queued;
use crate::topic;

use super::MqttClient;

/// How a message is published.
#[derive(Debug, Clone, Copy, Default)]
pub struct PublishOptions {
    /// How hard to try.
    pub qos: QoS,
    /// Whether the server keeps it for later subscribers.
    pub retain: bool,
    /// Instead of the client's `publish_timeout`.
    pub timeout: Option<Duration>,
}

impl From<QoS> for PublishOptions {
    fn from(qos: QoS) -> Self {
        Self {
            qos,
            ..Self::default()
        }
    }
}

/// The outcome of a deferred publish; a future. Dropping it does not take the message back.
#[derive(Debug)]
#[must_use = "without waiting for it nobody learns whether the message was delivered"]
pub struct PublishToken(oneshot::Receiver<Result<(), Error>>);

impl Future for PublishToken {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|result| result.unwrap_or(Err(Error::Stopped)))
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
    /// # Errors
    /// As [`MqttClient::publish`].
    pub async fn publish_with(
        &self,
        topic: impl Into<Text>,
        payload: impl Into<Bytes>,
        options: PublishOptions,
    ) -> Result<(), Error> {
        let publish = async { self.publish_deferred(topic, payload, options).await?.await };
        match options.timeout.or(self.shared().config.publish_timeout) {
            None => publish.await,
            Some(limit) => tokio::time::timeout(limit, publish)
                .await
                .unwrap_or(Err(Error::Timeout(limit))),
        }
    }

    /// Puts a message into the queue, waiting for room where the policy says so, and returns a token to wait for
    /// later. Thousands can be under way; they stay in order.
    ///
    /// # Errors
    /// The message was not queued.
    pub async fn publish_deferred(
        &self,
        topic: impl Into<Text>,
        payload: impl Into<Bytes>,
        options: impl Into<PublishOptions>,
    ) -> Result<PublishToken, Error> {
        let (queued, token) = prepare(self.shared(), topic.into(), payload.into(), options.into())?;
        self.shared().queue.publish(queued).await?;
        Ok(token)
    }

    /// As [`MqttClient::publish_deferred`], but never waits.
    ///
    /// # Errors
    /// The message was not queued; [`Error::QueueFull`] where it would have to wait.
    pub fn try_publish(
        &self,
        topic: impl Into<Text>,
        payload: impl Into<Bytes>,
        options: impl Into<PublishOptions>,
    ) -> Result<PublishToken, Error> {
        let (queued, token) = prepare(self.shared(), topic.into(), payload.into(), options.into())?;
        self.shared().queue.try_publish(queued)?;
        Ok(token)
    }
}

/// Checks everything that could go wrong later on the wire.
pub(super) fn prepare(
    shared: &Shared,
    topic: Text,
    payload: Bytes,
    options: PublishOptions,
) -> Result<(Queued, PublishToken), Error> {
    topic::validate_topic(&topic)?;
    check_size(shared, 9 + topic.as_bytes().len() + payload.len())?;
    let (sender, receiver) = oneshot::channel();
    let PublishOptions { qos, retain, .. } = options;
    let publish = Publish {
        dup: false,
        qos,
        retain,
        topic,
        id: None,
        payload,
        properties: None,
    };
    Ok((
        Queued {
            publish,
            done: Some(sender),
        },
        PublishToken(receiver),
    ))
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
