//! The node's parts on the MQTT bus: made here, run by the app.

use std::sync::Arc;

use jiff::Timestamp;
use qproxy_mqtt::codec::Version;
use qproxy_mqtt::options::{Proxy, Transport, WebSocketOptions};
use qproxy_mqtt::transport::TransportError;
use secrecy::ExposeSecret;

use super::Listening;
use super::error::Error;
use super::limits;
use super::metrics::Metrics;
use super::player::Player;
use super::recorder::Recorder;
use super::status::{BehindCapture, Parts};
use crate::config::{self, Settings};
use crate::record::{Keyring, NodeId};
use crate::sync::{
    Compression, Endpoint, Feed, Presence, Publisher, PublisherConfig, PublisherHandle, State,
    Station, Subscriber, SubscriberConfig, Tls, Topics,
};

/// The parts on the bus, to be run.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) station: Option<Station>,
    pub(super) publisher: Option<Publisher>,
    pub(super) publisher_handle: Option<PublisherHandle>,
    pub(super) subscriber: Option<(Subscriber, Feed)>,
}

/// What the parts on the bus have in common.
pub(super) struct Bus<'a> {
    pub(super) node: &'a NodeId,
    pub(super) topics: &'a Topics,
    pub(super) settings: &'a Settings,
    pub(super) keys: &'a Arc<Keyring>,
    pub(super) metrics: &'a Metrics,
}

impl Bus<'_> {
    /// Makes the node's connections; none where it meets nobody.
    pub(super) fn join(
        &self,
        endpoint: Option<&Endpoint>,
        recorder: Option<&Recorder>,
        player: Option<&Player>,
        listening: &[Listening],
    ) -> (Parts, Ends) {
        let (mut parts, mut ends) = (Parts::default(), Ends::default());
        let Some(endpoint) = endpoint else {
            return (parts, ends);
        };
        let (node, metrics) = (self.node.clone(), self.metrics.sync.clone());
        let addresses = listening
            .iter()
            .map(|l| format!("{}={}", l.label, l.address))
            .collect();
        let presence = Presence {
            node: node.to_string(),
            state: State::Online,
            mode: self.settings.mode.as_str().to_ascii_lowercase(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: recorder.map_or(0, |recorder| recorder.spool.epoch().0),
            addresses,
            since: format!("{:.3}", Timestamp::now()),
        };
        let (station, handle) = Station::new(
            endpoint.clone(),
            self.topics.clone(),
            node.clone(),
            presence,
            metrics.clone(),
        );
        if let Some(recorder) = recorder {
            let (publisher, publisher_handle) = Publisher::new(
                publisher_config(&self.settings.mqtt),
                endpoint.clone(),
                node.clone(),
                self.topics.clone(),
                recorder.spool.clone(),
                metrics.clone(),
            );
            parts.recorder = Some((
                recorder.capture.clone(),
                recorder.spool.clone(),
                publisher_handle.clone(),
            ));
            parts.behind_capture = BehindCapture {
                spool: self.metrics.spool.clone(),
                sync: metrics.clone(),
            };
            ends.publisher = Some(publisher);
            ends.publisher_handle = Some(publisher_handle);
        }
        if let Some(player) = player {
            let (subscriber, subscriber_handle) = Subscriber::new(
                subscriber_config(&self.settings.mqtt, self.keys),
                endpoint.clone(),
                node,
                self.topics.clone(),
                player.store.clone(),
                handle.client(),
                limits::fingerprint_rules(&self.settings.playback),
                metrics,
            );
            ends.subscriber = Some((subscriber, subscriber_handle.feed().clone()));
            parts.player = Some((player.store.clone(), subscriber_handle));
            parts.live.clone_from(&player.live);
        }
        parts.station = Some(handle);
        ends.station = Some(station);
        (parts, ends)
    }
}

fn subscriber_config(mqtt: &config::MqttSettings, keys: &Arc<Keyring>) -> SubscriberConfig {
    let mut limits = SubscriberConfig {
        keys: Arc::clone(keys),
        ..SubscriberConfig::default()
    };
    limits.scope.group.clone_from(&mqtt.group);
    limits
}

fn publisher_config(mqtt: &config::MqttSettings) -> PublisherConfig {
    let mut limits = PublisherConfig {
        compression: match mqtt.compression {
            config::Compression::None => Compression::None,
            config::Compression::Lz4 => Compression::Lz4,
            config::Compression::Zstd => Compression::Zstd,
        },
        ..PublisherConfig::default()
    };
    limits.max_payload_bytes = mqtt.max_message_bytes;
    limits.flow.window_messages = mqtt.window_messages;
    limits
}

/// Starts the embedded broker where it is wanted.
pub(super) async fn start_broker(
    settings: &Settings,
    listening: &mut Vec<Listening>,
) -> Result<Option<broker_mock::RunningBroker>, Error> {
    let Some(wanted) = &settings.broker else {
        return Ok(None);
    };
    let mut limits = broker_mock::Config::new(limits::resolve("broker", &wanted.listen).await?);
    limits.app_id.clone_from(&settings.mqtt.app_id);
    limits.token.clone_from(&settings.mqtt.token);
    limits.tls = wanted.tls.as_ref().map(broker_tls);
    let broker = broker_mock::Broker::bind(limits).await?;
    let address = broker.local_addr().to_string();
    listening.push(Listening::new(
        "broker",
        address,
        "embedded MQTT broker, versions 3.1.1 and 5",
    ));
    Ok(Some(broker))
}

pub(super) fn broker_tls(files: &config::TlsFiles) -> broker_mock::Tls {
    broker_mock::Tls {
        certificate: files.cert.clone(),
        key: files.key.clone(),
    }
}

/// Where the node meets others: the configured peer, else its own broker.
pub(super) fn endpoint(
    settings: &Settings,
    own: Option<&broker_mock::RunningBroker>,
) -> Result<Option<Endpoint>, Error> {
    let mut endpoint = match (&settings.peer, own) {
        (Some(peer), _) => {
            let mut endpoint = Endpoint::new(peer.endpoint.host.as_str(), peer.endpoint.port);
            let ca = settings.mqtt.ca.clone();
            endpoint.tls = peer.tls.then(|| Tls {
                ca,
                alpn: settings.mqtt.way.alpn.clone(),
                ..Tls::default()
            });
            // The only file of TLS towards the peer that can be configured.
            if let Some(tls) = &endpoint.tls {
                tls.check().map_err(|error| Error::Setting {
                    key: "mqtt.ca".to_owned(),
                    message: super::chain(&error),
                })?;
            }
            endpoint
        }
        // Without TLS also where others need it: the broker lets this machine in without.
        (None, Some(broker)) => {
            let address = broker.local_addr();
            let host = match address.ip() {
                ip if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
                ip if ip.is_unspecified() => "::1".to_owned(),
                ip => ip.to_string(),
            };
            Endpoint::new(host, address.port())
        }
        (None, None) => return Ok(None),
    };
    endpoint.protocol = match settings.mqtt.protocol {
        config::MqttVersion::V311 => Version::V311,
        config::MqttVersion::V5 => Version::V5,
    };
    let keep_alive = settings.mqtt.keep_alive.as_secs();
    endpoint.keep_alive = u16::try_from(keep_alive).unwrap_or(u16::MAX);
    endpoint.app_id.clone_from(&settings.mqtt.app_id);
    endpoint.token.clone_from(&settings.mqtt.token);
    way(&mut endpoint, &settings.mqtt.way)?;
    Ok(Some(endpoint))
}

/// What carries the bytes there.
fn way(endpoint: &mut Endpoint, way: &config::WaySettings) -> Result<(), Error> {
    let setting = |key: &str, error: &TransportError| Error::Setting {
        key: key.to_owned(),
        message: error.to_string(),
    };
    if let Some(path) = &way.websocket {
        let options = WebSocketOptions::default().with_path(path.as_str());
        let options = options.map_err(|error| setting("mqtt.path", &error))?;
        endpoint.transport = Transport::WebSocket(options);
    }
    if let Some(proxy) = &way.proxy {
        let proxy = proxy.expose_secret().parse::<Proxy>();
        endpoint.proxy = Some(proxy.map_err(|error| setting("mqtt.proxy", &error))?);
    }
    Ok(())
}
