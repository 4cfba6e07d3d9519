//! Subscribing and unsubscribing.

use std::future::Future;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::oneshot;

use crate::codec::{
    self, Packet, PacketId, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeProperties,
    Subscription, SubscriptionId, Text, Unsubscribe, Version,
};
use crate::driver::Shared;
use crate::error::{Error, ServerReason};
use crate::inbox::Messages;
use crate::queue::{Answer, Answered, Control};
use crate::topic;

use super::{MqttClient, publish};

/// How to subscribe. A [`QoS`] alone will do; the rest is of MQTT 5.0 and refused in 3.1.1.
///
/// ```
/// use qproxy_mqtt::{QoS, client::SubscribeOptions};
///
/// let options = SubscribeOptions {
///     no_local: true,
///     ..QoS::AtLeastOnce.into()
/// };
/// assert_eq!(options.qos, QoS::AtLeastOnce);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// The most that is wanted.
    pub qos: QoS,
    /// Leaves out what this client publishes itself.
    pub no_local: bool,
    /// Messages keep the retain flag with which they were published.
    pub retain_as_published: bool,
    /// Which retained messages come at the start.
    pub retain_handling: RetainHandling,
    /// Comes back with each message that this subscription brings; see
    /// [`Message::subscription_ids`](crate::Message::subscription_ids).
    pub id: Option<SubscriptionId>,
}

impl From<QoS> for SubscribeOptions {
    fn from(qos: QoS) -> Self {
        Self {
            qos,
            ..Self::default()
        }
    }
}

impl SubscribeOptions {
    fn with(self, filter: Text) -> Subscription {
        Subscription {
            filter,
            qos: self.qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: self.retain_handling,
        }
    }
}

impl MqttClient {
    /// Subscribes to one filter; returns the QoS that the server grants.
    ///
    /// The subscription is renewed whenever the server has lost it. While there is no connection it waits, for
    /// `request_timeout` at most. Given up while it waits for a connection, the subscription is not made; given up while
    /// it waits for the answer, it may have been.
    ///
    /// ```no_run
    /// # use qproxy_mqtt::QoS;
    /// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), qproxy_mqtt::Error> {
    /// let granted = client.subscribe("lamp/+", QoS::ExactlyOnce).await?;
    /// if granted < QoS::ExactlyOnce {
    ///     println!("messages may come twice");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The filter is not legal, the server refuses it, or the client has stopped.
    pub async fn subscribe(
        &self,
        filter: impl Into<Text>,
        options: impl Into<SubscribeOptions>,
    ) -> Result<QoS, Error> {
        subscribe(self.shared(), filter.into(), options.into()).await
    }

    /// Subscribes to several filters in one packet; returns what became of each, in their order.
    ///
    /// ```no_run
    /// use qproxy_mqtt::{QoS, codec::Subscription};
    ///
    /// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), qproxy_mqtt::Error> {
    /// let filters = ["lamp/+", "door/#"].map(|it| Subscription::new(it, QoS::AtLeastOnce));
    /// for code in client.subscribe_many(filters.to_vec()).await? {
    ///     println!("{code}, granted {:?}", code.granted_qos());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A filter is not legal, or the client has stopped. A filter that the server refuses is no error here.
    pub async fn subscribe_many(
        &self,
        filters: Vec<Subscription>,
    ) -> Result<Vec<ReasonCode>, Error> {
        if filters.is_empty() {
            return Ok(Vec::new());
        }
        let answer = subscribe_to(self.shared(), filters, None).await?;
        Ok(answer.codes)
    }

    /// Subscribes, and gives the messages of this filter a receiver of their own. Where filters overlap, the
    /// receiver that was made first takes the message. Dropping it does not unsubscribe. Of a shared filter,
    /// `$share/{group}/{filter}`, it is what stands behind the group that counts.
    ///
    /// ```no_run
    /// # use qproxy_mqtt::QoS;
    /// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), qproxy_mqtt::Error> {
    /// let mut doors = client.subscribe_stream("door/#", QoS::AtLeastOnce).await?;
    /// while let Some(message) = doors.recv().await {
    ///     println!("{}", message.topic);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`MqttClient::subscribe`].
    pub async fn subscribe_stream(
        &self,
        filter: impl Into<Text>,
        options: impl Into<SubscribeOptions>,
    ) -> Result<Messages, Error> {
        let filter = filter.into();
        topic::validate_filter(&filter)?;
        let messages = self.shared().inbox.filtered(&filter);
        self.subscribe(filter, options).await?;
        Ok(messages)
    }

    /// Gives a filter up. Messages that are on their way may still come. One that the server does not know is given
    /// up all the same.
    ///
    /// ```no_run
    /// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), qproxy_mqtt::Error> {
    /// client.unsubscribe("lamp/+").await
    /// # }
    /// ```
    ///
    /// # Errors
    /// The filter is not legal, the server refuses, or the client has stopped.
    pub async fn unsubscribe(&self, filter: impl Into<Text>) -> Result<(), Error> {
        unsubscribe(self.shared(), filter.into()).await
    }

    /// Gives several filters up in one packet; returns what became of each, in their order. MQTT 3.1.1 calls every
    /// one a success.
    ///
    /// ```no_run
    /// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), qproxy_mqtt::Error> {
    /// let codes = client.unsubscribe_many(vec!["lamp/+".into(), "door/#".into()]).await?;
    /// assert_eq!(codes.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A filter is not legal, or the client has stopped.
    pub async fn unsubscribe_many(&self, filters: Vec<Text>) -> Result<Vec<ReasonCode>, Error> {
        if filters.is_empty() {
            return Ok(Vec::new());
        }
        Ok(unsubscribe_from(self.shared(), filters).await?.codes)
    }
}

pub(super) async fn subscribe(
    shared: &Shared,
    filter: Text,
    options: SubscribeOptions,
) -> Result<QoS, Error> {
    let wanted = vec![options.with(filter.clone())];
    let answer = subscribe_to(shared, wanted, options.id).await?;
    match answer.codes.first() {
        Some(code) => code.granted_qos().ok_or_else(|| {
            let source = ServerReason::new(*code, answer.text);
            Error::SubscribeRefused { filter, source }
        }),
        None => Err(Error::Stopped),
    }
}

pub(super) async fn unsubscribe(shared: &Shared, filter: Text) -> Result<(), Error> {
    let answer = unsubscribe_from(shared, vec![filter.clone()]).await?;
    match answer.codes.first() {
        Some(&code) if code.is_error() => {
            let source = ServerReason::new(code, answer.text);
            Err(Error::UnsubscribeRefused { filter, source })
        }
        _ => Ok(()),
    }
}

async fn subscribe_to(
    shared: &Shared,
    filters: Vec<Subscription>,
    id: Option<SubscriptionId>,
) -> Result<Answer, Error> {
    for wanted in &filters {
        topic::validate_filter(&wanted.filter)?;
        check_version(shared, wanted, id)?;
    }
    let properties = id.map(|id| {
        Box::new(SubscribeProperties {
            subscription_id: Some(id),
            ..SubscribeProperties::default()
        })
    });
    let packet = Subscribe {
        id: PacketId::MIN,
        filters: filters.clone(),
        properties,
    };
    check_encoding(shared, &Packet::Subscribe(packet))?;
    ask(shared, |answered| Control::Subscribe(filters, id, answered)).await
}

async fn unsubscribe_from(shared: &Shared, filters: Vec<Text>) -> Result<Answer, Error> {
    for filter in &filters {
        topic::validate_filter(filter)?;
    }
    let packet = Unsubscribe {
        id: PacketId::MIN,
        filters: filters.clone(),
        user_properties: Vec::new(),
    };
    check_encoding(shared, &Packet::Unsubscribe(packet))?;
    ask(shared, |answered| Control::Unsubscribe(filters, answered)).await
}

fn check_version(
    shared: &Shared,
    wanted: &Subscription,
    id: Option<SubscriptionId>,
) -> Result<(), Error> {
    let plain = Subscription::new(wanted.filter.clone(), wanted.qos);
    if shared.config.protocol == Version::V311 && (*wanted != plain || id.is_some()) {
        return Err(Error::NeedsV5("an option of a subscription"));
    }
    Ok(())
}

/// Options may be at odds with the filter, and a shared filter with 5.0: what cannot be written has to be refused here.
fn check_encoding(shared: &Shared, packet: &Packet) -> Result<(), Error> {
    let mut buf = BytesMut::new();
    codec::encode(packet, shared.config.protocol, &mut buf)?;
    publish::check_size(shared, buf.len())
}

async fn ask(shared: &Shared, control: impl FnOnce(Answered) -> Control) -> Result<Answer, Error> {
    let (sender, receiver) = oneshot::channel();
    shared.queue.control(control(Some(sender)))?;
    let answered = async { receiver.await.unwrap_or(Err(Error::Stopped)) };
    within(shared.config.request_timeout, answered).await
}

async fn within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match limit {
        None => work.await,
        Some(limit) => tokio::time::timeout(limit, work)
            .await
            .unwrap_or(Err(Error::Timeout(limit))),
    }
}
