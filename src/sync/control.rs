//! The control connection: presence, live settings, calls from others; apart from traffic, so that a large
//! message never delays a word.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use qproxy_mqtt::client::{Event, PublishOptions};
use qproxy_mqtt::codec::{Subscription, Will};
use qproxy_mqtt::{MqttClient, QoS};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::record::NodeId;

use super::endpoint::Endpoint;
use super::error::{Error, chain};
use super::metrics::Metrics;
use super::notice::{self, Ack, LiveSettings, Presence, State};
use super::publisher::PublisherHandle;
use super::topics::{Topic, Topics};

/// What others may tell a node to do; `app` implements it.
pub trait Control: Send + Sync + 'static {
    /// What `/api/status` shows.
    fn status(&self) -> serde_json::Value;
    /// Stops recording; traffic goes on.
    fn pause(&self);
    /// Records again.
    fn resume(&self);
    /// Takes over live settings.
    fn apply(&self, settings: LiveSettings);
}

/// Nodes whose presence is remembered; more are ignored.
const MAX_NODES: usize = 1024;

/// The node's control connection, to be run.
#[derive(Debug)]
pub struct Station {
    endpoint: Endpoint,
    topics: Topics,
    node: NodeId,
    presence: Presence,
    client: MqttClient,
    metrics: Metrics,
    nodes: Arc<Mutex<BTreeMap<String, Presence>>>,
    trouble: Trouble,
}

/// Why there is no connection at present; empty where there is one, or no attempt has failed yet.
pub(super) type Trouble = Arc<Mutex<String>>;

/// What others see of a running [`Station`]; cheap to clone.
#[derive(Debug, Clone)]
pub struct StationHandle {
    client: MqttClient,
    nodes: Arc<Mutex<BTreeMap<String, Presence>>>,
    trouble: Trouble,
}

impl StationHandle {
    /// The connection, for calls to other nodes.
    #[must_use]
    pub fn client(&self) -> MqttClient {
        self.client.clone()
    }

    /// Every node that has shown itself, by name.
    #[must_use]
    pub fn nodes(&self) -> Vec<Presence> {
        self.nodes.lock().values().cloned().collect()
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.is_connected()
    }

    /// Why there is no connection, and what to look at; `None` where that is not known yet.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        (!trouble.is_empty()).then(|| trouble.clone())
    }
}

/// Which parts of the node take calls.
#[derive(Clone)]
pub struct Roles {
    /// The node itself.
    pub control: Arc<dyn Control>,
    /// Its publisher, where it records.
    pub publisher: Option<PublisherHandle>,
}

impl Station {
    /// The control connection of `node`, which shows `presence` while it lasts.
    #[must_use]
    pub fn new(
        endpoint: Endpoint,
        topics: Topics,
        node: NodeId,
        presence: Presence,
        metrics: Metrics,
    ) -> (Self, StationHandle) {
        let mut settings = endpoint.client_config(format!("{node}-control"));
        settings.will = Some(Will {
            topic: topics.presence(&node).into(),
            payload: notice::write(&offline(&presence)),
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: None,
        });
        let client = MqttClient::new(settings);
        let nodes = Arc::new(Mutex::new(BTreeMap::new()));
        let trouble = Trouble::default();
        let handle = StationHandle {
            client: client.clone(),
            nodes: nodes.clone(),
            trouble: trouble.clone(),
        };
        let station = Self {
            endpoint,
            topics,
            node,
            presence,
            client,
            metrics,
            nodes,
            trouble,
        };
        (station, handle)
    }

    /// Shows the node, takes calls and settings until `shutdown`; then says goodbye.
    ///
    /// # Errors
    /// [`Error`] where it cannot go on; it can be run again.
    pub async fn run(&self, roles: Roles, shutdown: CancellationToken) -> Result<(), Error> {
        let mut messages = self.client.messages();
        let events = self.client.events();
        let mut connections = self.client.events();
        self.client
            .start()
            .await
            .map_err(|source| self.failed(source))?;
        let watch = log_events(
            self.endpoint.clone(),
            "control",
            events,
            self.trouble.clone(),
        );
        let work = async {
            self.subscribe(&roles).await?;
            let _responders = self.respond(&roles).await?;
            self.show();
            loop {
                tokio::select! {
                    message = messages.recv() => match message {
                        Some(message) => self.heard(&message.topic, &message.payload, &roles),
                        None => return Ok(()),
                    },
                    event = connections.recv() => match event {
                        // Our last will may have called us offline meanwhile.
                        Ok(Event::Connected { .. }) | Err(broadcast::error::RecvError::Lagged(_)) => self.show(),
                        Ok(_) => {}
                        Err(broadcast::error::RecvError::Closed) => return Ok(()),
                    },
                }
            }
        };
        let result = tokio::select! {
            result = work => result,
            () = shutdown.cancelled() => Ok(()),
            never = watch => match never {},
        };
        self.say(&offline(&self.presence));
        // Without a connection there is nobody to say goodbye to.
        if self.client.is_connected()
            && let Err(error) = self.client.disconnect().await
        {
            tracing::debug!(%error, "control connection did not end in order");
        }
        result
    }

    async fn subscribe(&self, roles: &Roles) -> Result<(), Error> {
        let mut filters = vec![self.topics.presence_filter()];
        filters.extend(self.topics.settings(&self.node));
        if roles.publisher.is_some() {
            filters.push(self.topics.ack_filter(&self.node));
        }
        let wanted = filters
            .into_iter()
            .map(|filter| Subscription::new(filter, QoS::AtLeastOnce));
        let codes = self.client.subscribe_many(wanted.collect()).await;
        codes.map(drop).map_err(|source| self.failed(source))
    }

    async fn respond(&self, roles: &Roles) -> Result<Vec<qproxy_mqtt::client::Responder>, Error> {
        let mut responders = Vec::new();
        for command in ["status", "pause", "resume", "resend"] {
            let topic = self.topics.command(&self.node, command);
            let roles = roles.clone();
            let handler = move |request: qproxy_mqtt::client::Request| {
                let roles = roles.clone();
                async move {
                    let answer = call(&roles, command, &request.payload).await;
                    answer
                        .map_err(|message| notice::write(&serde_json::json!({ "error": message })))
                }
            };
            let responder = self.client.respond(topic, handler).await;
            responders.push(responder.map_err(|source| self.failed(source))?);
        }
        Ok(responders)
    }

    fn heard(&self, topic: &str, payload: &[u8], roles: &Roles) {
        let (kind, refused) = match self.topics.parse(topic) {
            Some(Topic::Presence(node)) => ("presence", self.present(&node, payload)),
            Some(Topic::Ack { player, .. }) => ("ack", acked(player, payload, roles)),
            // An empty payload takes a retained message back: nothing is set any more.
            Some(Topic::Settings(_)) if payload.is_empty() => return,
            Some(Topic::Settings(_)) => {
                let settings = LiveSettings::parse(payload);
                (
                    "settings",
                    settings.map(|settings| roles.control.apply(settings)),
                )
            }
            _ => return,
        };
        if let Err(error) = refused {
            self.metrics
                .notices_refused
                .get_or_create(&kind.into())
                .inc();
            tracing::warn!(topic, error = chain(&error), "notice is ignored");
        }
    }

    fn present(&self, node: &NodeId, payload: &[u8]) -> Result<(), notice::NoticeError> {
        let mut nodes = self.nodes.lock();
        if payload.is_empty() {
            nodes.remove(node.as_str());
            return Ok(());
        }
        let mut presence: Presence = notice::read(payload)?;
        // The broker let it publish on this topic, whatever it calls itself.
        presence.node = node.to_string();
        if nodes.len() < MAX_NODES || nodes.contains_key(node.as_str()) {
            nodes.insert(node.to_string(), presence);
        }
        Ok(())
    }

    fn show(&self) {
        self.say(&self.presence);
    }

    fn say(&self, presence: &Presence) {
        let options = PublishOptions {
            qos: QoS::AtLeastOnce,
            retain: true,
            ..PublishOptions::default()
        };
        let topic = self.topics.presence(&self.node);
        if let Err(error) = self
            .client
            .try_publish(topic, notice::write(presence), options)
        {
            tracing::warn!(%error, "could not show presence");
        }
    }

    fn failed(&self, source: qproxy_mqtt::Error) -> Error {
        Error::Mqtt {
            client_id: format!("{}-control", self.node),
            server: self.endpoint.to_string(),
            source: Box::new(source),
        }
    }
}

fn acked(player: NodeId, payload: &[u8], roles: &Roles) -> Result<(), notice::NoticeError> {
    let ack: Ack = notice::read(payload)?;
    if let Some(publisher) = &roles.publisher {
        publisher.heard(player, ack);
    }
    Ok(())
}

async fn call(roles: &Roles, command: &str, payload: &[u8]) -> Result<Bytes, String> {
    let done = || notice::write(&serde_json::json!({ "done": command }));
    match command {
        "status" => Ok(notice::write(&roles.control.status())),
        "pause" => {
            roles.control.pause();
            Ok(done())
        }
        "resume" => {
            roles.control.resume();
            Ok(done())
        }
        "resend" => {
            let Some(publisher) = &roles.publisher else {
                return Err("this node does not record".to_owned());
            };
            let request = notice::read(payload).map_err(|error| chain(&error))?;
            let answer = publisher.resend(request).await;
            answer
                .map(|answer| notice::write(&answer))
                .map_err(|error| chain(&error))
        }
        _ => Err(format!("no command `{command}`")),
    }
}

fn offline(presence: &Presence) -> Presence {
    Presence {
        state: State::Offline,
        ..presence.clone()
    }
}

/// Waits until a client has given up for good; tells why.
pub(super) async fn stopped(mut events: broadcast::Receiver<Event>) -> qproxy_mqtt::Error {
    loop {
        match events.recv().await {
            Ok(Event::Stopped { reason }) => return reason,
            // It is the last event of all: no lag hides it.
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return qproxy_mqtt::Error::Stopped,
        }
    }
}

/// Tells the log how a connection goes; never ends.
pub(super) async fn log_events(
    endpoint: Endpoint,
    connection: &'static str,
    mut events: broadcast::Receiver<Event>,
    trouble: Trouble,
) -> Infallible {
    loop {
        match events.recv().await {
            Ok(Event::Connected { session_present }) => {
                trouble.lock().clear();
                tracing::info!(connection, server = %endpoint, session_present, "connected");
            }
            Ok(Event::Disconnected { reason }) => {
                let reason = chain(&reason);
                tracing::warn!(connection, server = %endpoint, reason, "disconnected");
                *trouble.lock() = format!("MQTT server {endpoint}: {reason}");
            }
            Ok(Event::ConnectFailed { reason }) => {
                let line = endpoint.explain(&reason);
                let mut trouble = trouble.lock();
                // The same failure every few seconds is said once.
                if line != *trouble {
                    tracing::warn!(connection, "{line}");
                    *trouble = line;
                }
            }
            Ok(event) => tracing::debug!(connection, ?event, "connection"),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_gave_up_is_noticed_behind_a_crowd_of_events() {
        let (events, listener) = broadcast::channel(2);
        for _ in 0..9 {
            let session_present = true;
            events.send(Event::Connected { session_present }).unwrap();
        }
        let reason = qproxy_mqtt::Error::TakenOver(5);
        events.send(Event::Stopped { reason }).unwrap();
        assert!(matches!(
            stopped(listener).await,
            qproxy_mqtt::Error::TakenOver(5)
        ));
    }
}
