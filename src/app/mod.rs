//! Joins everything: settings -> bound sockets -> running -> drained.
//!
//! Sockets are bound and stores opened before anything is served, so that a node either starts whole or says what
//! is in its way. A broker that is away stops nothing: a recorder spools, a player answers from what it has.

mod error;
mod limits;
mod metrics;
mod outlet;
mod recorder;
mod responder;
mod replays;
mod results;
mod player;
mod status;
pub mod shop;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::Error;

use crate::api;
use crate::capture::Capture;
use crate::config::{self, Settings};
use crate::proxy;
use crate::record::NodeId;
use crate::sync::{
    Compression, Endpoint, Presence, Publisher, PublisherConfig, PublisherHandle, Roles, Station,
    Subscriber, SubscriberConfig, Tls, Topics,
};
use metrics::Metrics;
use player::Player;
use recorder::{Bound, Recorder};
use replays::ReplayDesk;
use results::Results;
use status::{NodeStatus, Parts, Remote};

/// How long exchanges in flight may go on at shutdown.
const DRAIN_GRACE: Duration = Duration::from_secs(10);
/// How long what was captured may take to reach the disk at shutdown.
const FLUSH_GRACE: Duration = Duration::from_secs(5);
/// How long the parts on the bus may take to end.
const BUS_GRACE: Duration = Duration::from_secs(10);

/// One address that the node listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// What it is: `record`, `forward`, `tcp`, `answer`, `api`, `broker`.
    pub label: &'static str,
    /// A URL, or `host:port`.
    pub address: String,
    /// What happens there.
    pub note: String,
}

impl Listening {
    fn new(label: &'static str, address: impl Into<String>, note: impl Into<String>) -> Self {
        Self {
            label,
            address: address.into(),
            note: note.into(),
        }
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {}  {}", self.label, self.address, self.note)
    }
}

/// A running node.
pub struct App {
    listening: Vec<Listening>,
    proxies: Vec<proxy::Running>,
    capture: Capture,
    recorder: Option<Recorder>,
    player: Option<Player>,
    api: api::Running,
    broker: Option<broker_mock::RunningBroker>,
    bus: TaskTracker,
    stop_bus: CancellationToken,
}

impl App {
    /// Starts a node.
    ///
    /// # Errors
    /// [`Error`], which names the key that is to blame; nothing is left running.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let node = NodeId::new(&settings.node).map_err(|error| Error::Setting {
            key: "node".into(),
            message: error.to_string(),
        })?;
        let topics = Topics::new(&settings.mqtt.root).map_err(|error| Error::Setting {
            key: "mqtt.root".into(),
            message: error.to_string(),
        })?;
        if settings.mqtt.protocol == config::MqttVersion::V5 {
            let message = "this version speaks MQTT 3.1.1 only: leave the key out".to_owned();
            return Err(Error::Setting {
                key: "mqtt.protocol".into(),
                message,
            });
        }
        for key in &settings.unused {
            tracing::warn!(
                key,
                mode = settings.mode.as_str(),
                "this key does nothing in this mode"
            );
        }
        let metrics = Metrics::default();
        let mut listening = Vec::new();

        let recorder = match settings.mode.records() {
            true => Some(Recorder::open(&settings, &node, &metrics).await?),
            false => None,
        };
        let capture = recorder
            .as_ref()
            .map_or_else(Capture::disabled, |r| r.capture.clone());
        let mut bound =
            recorder::bind_proxies(&settings, &capture, &metrics, &mut listening).await?;

        let results = Arc::new(Results::new(
            &settings.mqtt.root,
            metrics.unpublished.clone(),
        ));
        let events = api::Events::default();
        let player = match settings.mode.plays() {
            true => {
                let store = player::open_store(&settings, &metrics).await?;
                Some(Player::new(&settings, store, results.clone(), &metrics)?)
            }
            false => None,
        };
        if let Some(player) = &player {
            bound.extend(
                player
                    .bind(&settings, &metrics, &mut listening)
                    .await?
                    .map(Bound::Http),
            );
        }

        let broker = start_broker(&settings, &mut listening).await?;
        let endpoint = endpoint(&settings, broker.as_ref());
        let bus = Bus {
            node: &node,
            topics: &topics,
            settings: &settings,
            metrics: &metrics,
        };
        let joined = bus.join(
            endpoint.as_ref(),
            recorder.as_ref(),
            player.as_ref(),
            &listening,
        );
        let (parts, ends) = joined;
        if let Some(station) = &parts.station {
            results.connect(station.client());
        }

        let address = endpoint
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let status = Arc::new(NodeStatus::new(node, settings.mode, address, parts));
        let api_parts = api::Parts {
            store: player.as_ref().map(|player| player.store.clone()),
            status: status.clone(),
            replays: player.as_ref().map(|player| -> Arc<dyn api::Replays> {
                Arc::new(ReplayDesk(player.runs.clone()))
            }),
            events: events.clone(),
            registry: Arc::new(metrics.registry()),
            metrics: metrics.api.clone(),
        };
        let api = api::serve(api_config(&settings.api).await?, api_parts).await?;
        listening.push(Listening::new(
            "api",
            format!("http://{}", api.local_addr()),
            "dashboard and API",
        ));

        let mut app = Self {
            listening,
            proxies: Vec::new(),
            capture,
            recorder,
            player,
            api,
            broker,
            bus: TaskTracker::new(),
            stop_bus: CancellationToken::new(),
        };
        app.run_bus(ends, &status, &events);
        app.proxies = bound.into_iter().map(Bound::serve).collect();
        Ok(app)
    }

    /// Where the node listens.
    #[must_use]
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// Stops: no new connections, exchanges in flight end, what was captured goes to disk and, as far as there is
    /// time, to the broker; then the rest ends.
    pub async fn shutdown(self) {
        let drains = self
            .proxies
            .into_iter()
            .map(|proxy| proxy.shutdown(DRAIN_GRACE));
        for drained in futures_util::future::join_all(drains).await {
            if drained.aborted > 0 {
                tracing::warn!(connections = drained.aborted, "closed in mid-exchange");
            }
        }
        if !self.capture.shutdown(FLUSH_GRACE).await {
            tracing::error!("captured exchanges did not reach the disk in time");
        }
        if let Some(player) = &self.player {
            player.runs.shutdown().await;
        }
        self.stop_bus.cancel();
        self.bus.close();
        if tokio::time::timeout(BUS_GRACE, self.bus.wait())
            .await
            .is_err()
        {
            tracing::warn!("the connections to the broker did not end in time");
        }
        self.api.shutdown().await;
        if let Some(recorder) = self.recorder {
            let flushed = tokio::task::spawn_blocking(move || recorder.spool.flush()).await;
            if let Ok(Err(error)) = flushed {
                tracing::error!(error = chain(&error), "the spool did not reach the disk");
            }
        }
        if let Some(player) = self.player
            && let Err(error) = player.store.close().await
        {
            tracing::error!(error = chain(&error), "the store did not close in order");
        }
        if let Some(broker) = self.broker {
            broker.shutdown().await;
        }
    }

    /// Starts what runs for as long as the node does.
    fn run_bus(&self, ends: Ends, status: &Arc<NodeStatus>, events: &api::Events) {
        let stop = &self.stop_bus;
        let watched = |part: &'static str, work: BusTask| {
            let status = status.clone();
            self.bus.spawn(async move {
                if let Err(error) = work.await {
                    status.failed(part, &chain(&error));
                }
            });
        };
        if let Some(station) = ends.station {
            let control = Arc::new(Remote {
                status: status.clone(),
                capture: self.capture.clone(),
            });
            let roles = Roles {
                control,
                publisher: ends.publisher_handle,
            };
            watched("control", Box::pin(station.run(roles, stop.clone())));
        }
        if let Some(publisher) = ends.publisher {
            watched("publisher", Box::pin(publisher.run(stop.clone())));
        }
        if let (Some((subscriber, feed)), Some(player)) = (ends.subscriber, &self.player) {
            if let Some(live) = &player.live {
                self.bus
                    .spawn(player::feed_live(live.clone(), feed.clone(), stop.clone()));
            }
            self.bus
                .spawn(player::announce(feed, events.clone(), stop.clone()));
            self.bus
                .spawn(player::expire(player.store.clone(), stop.clone()));
            watched("subscriber", Box::pin(subscriber.run(stop.clone())));
        }
    }
}

type BusTask = futures_util::future::BoxFuture<'static, Result<(), crate::sync::Error>>;

/// The parts on the bus, to be run.
#[derive(Default)]
struct Ends {
    station: Option<Station>,
    publisher: Option<Publisher>,
    publisher_handle: Option<PublisherHandle>,
    subscriber: Option<(Subscriber, crate::sync::Feed)>,
}

/// What the parts on the bus have in common.
struct Bus<'a> {
    node: &'a NodeId,
    topics: &'a Topics,
    settings: &'a Settings,
    metrics: &'a Metrics,
}

impl Bus<'_> {
    /// Makes the node's connections; none where it meets nobody.
    fn join(
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
            state: crate::sync::State::Online,
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
            ends.publisher = Some(publisher);
            ends.publisher_handle = Some(publisher_handle);
        }
        if let Some(player) = player {
            let (subscriber, subscriber_handle) = Subscriber::new(
                SubscriberConfig::default(),
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

async fn start_broker(
    settings: &Settings,
    listening: &mut Vec<Listening>,
) -> Result<Option<broker_mock::RunningBroker>, Error> {
    let Some(address) = &settings.broker else {
        return Ok(None);
    };
    let mut limits = broker_mock::Config::new(limits::resolve("broker", address).await?);
    limits.app_id.clone_from(&settings.mqtt.app_id);
    limits.token.clone_from(&settings.mqtt.token);
    let broker = broker_mock::Broker::bind(limits).await?;
    let address = broker.local_addr().to_string();
    listening.push(Listening::new(
        "broker",
        address,
        "embedded MQTT 3.1.1 broker",
    ));
    Ok(Some(broker))
}

/// Where the node meets others: the configured peer, else its own broker.
fn endpoint(settings: &Settings, own: Option<&broker_mock::RunningBroker>) -> Option<Endpoint> {
    let mut endpoint = match (&settings.peer, own) {
        (Some(peer), _) => {
            let mut endpoint = Endpoint::new(peer.endpoint.host.as_str(), peer.endpoint.port);
            let ca = settings.mqtt.ca.clone();
            endpoint.tls = peer.tls.then(|| Tls {
                ca,
                ..Tls::default()
            });
            endpoint
        }
        (None, Some(broker)) => {
            let address = broker.local_addr();
            let host = match address.ip() {
                ip if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
                ip if ip.is_unspecified() => "::1".to_owned(),
                ip => ip.to_string(),
            };
            Endpoint::new(host, address.port())
        }
        (None, None) => return None,
    };
    let keep_alive = settings.mqtt.keep_alive.as_secs();
    endpoint.keep_alive = u16::try_from(keep_alive).unwrap_or(u16::MAX);
    endpoint.app_id.clone_from(&settings.mqtt.app_id);
    endpoint.token.clone_from(&settings.mqtt.token);
    Some(endpoint)
}

async fn api_config(typed: &config::ApiSettings) -> Result<api::Config, Error> {
    Ok(api::Config {
        listen: limits::resolve("api", &typed.listen).await?,
        token: typed.token.clone(),
        allowed_hosts: typed.allowed_hosts.clone(),
        ..api::Config::default()
    })
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}
