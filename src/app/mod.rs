//! Joins everything: settings -> bound sockets -> running -> drained.
//!
//! Sockets are bound and stores opened before anything is served, so that a node either starts whole or says what
//! is in its way. A broker that is away stops nothing: a recorder spools, a player answers from what it has.

mod error;
mod limits;
mod keys;
mod authority;
mod check;
mod bus;
mod restart;
mod lag;
mod unfinished;
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

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use authority::{NewAuthority, authority_certificate};
pub use check::check;
pub use error::Error;
pub use keys::new_key;

use crate::api;
use crate::capture::Capture;
use crate::config::Settings;
use crate::proxy;
use crate::record::NodeId;
use crate::sync::{Roles, Topics};
use bus::{Bus, Ends};
use lag::Lag;
use metrics::Metrics;
use player::Player;
use recorder::{Bound, Recorder};
use replays::ReplayDesk;
use restart::keep_running;
use results::Results;
use status::{NodeStatus, Remote};
use unfinished::Unfinished;

/// How long exchanges in flight may go on at shutdown.
const DRAIN_GRACE: Duration = Duration::from_secs(10);
/// How long what was captured may take to reach the disk at shutdown.
const FLUSH_GRACE: Duration = Duration::from_secs(5);
/// How long the parts on the bus may take to end.
const BUS_GRACE: Duration = Duration::from_secs(10);

/// One address that the node listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// What it is: `record`, `forward`, `tcp`, `answer`, `answer-tcp`, `api`, `broker`.
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
        let (node, topics) = names(&settings)?;
        for key in &settings.unused {
            tracing::warn!(
                key,
                mode = settings.mode.as_str(),
                "this key does nothing in this mode"
            );
        }
        let keys = keys::read(&settings.encryption)?;
        let metrics = Metrics::default();
        let mut listening = Vec::new();

        let recorder = match settings.mode.records() {
            true => Some(Recorder::open(&settings, &node, &keys, &metrics).await?),
            false => None,
        };
        let capture = recorder
            .as_ref()
            .map_or_else(Capture::disabled, |r| r.capture.clone());
        let mut bound =
            recorder::bind_proxies(&settings, &capture, &metrics, &mut listening).await?;

        let results = Arc::new(Results::new(
            &settings.mqtt.root,
            results::Content::under(&keys),
            metrics.unpublished.clone(),
        ));
        let events = api::Events::default();
        let player = match settings.mode.plays() {
            true => {
                let opened = player::open_store(&settings, &keys, &metrics).await?;
                Some(Player::new(&settings, opened, results.clone(), &metrics)?)
            }
            false => None,
        };
        if let Some(player) = &player {
            bound.extend(player.bind(&settings, &mut listening).await?);
        }

        let broker = bus::start_broker(&settings, &mut listening).await?;
        let endpoint = bus::endpoint(&settings, broker.as_ref())?;
        let bus = Bus {
            node: &node,
            topics: &topics,
            settings: &settings,
            keys: &keys,
            metrics: &metrics,
        };
        let joined = bus.join(
            endpoint.as_ref(),
            recorder.as_ref(),
            player.as_ref(),
            &listening,
        );
        let (mut parts, ends) = joined;
        if let Some(player) = &player {
            parts.talkers.clone_from(&player.talkers);
            parts.answerer.clone_from(&player.answerer);
        }
        parts.unfinished = Unfinished::new(metrics.unfinished.clone());
        if let Some(station) = &parts.station {
            results.connect(station.client());
        }

        let address = endpoint
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let lag = parts.lag.clone();
        let unfinished = parts.unfinished.clone();
        let status = Arc::new(NodeStatus::new(node, settings.mode, address, parts));
        let api_parts = api_parts(&status, player.as_ref(), &events, &metrics);
        let api = api::serve(api_config(&settings).await?, api_parts).await?;
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
        app.watch_store(&ends, unfinished, settings.incomplete_after);
        app.run_bus(ends, &status, &events, &lag, &metrics);
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

    /// Looks for records of which a piece is missing.
    fn watch_store(&self, ends: &Ends, unfinished: Unfinished, patience: Duration) {
        if let (Some((_, feed)), Some(player)) = (&ends.subscriber, &self.player) {
            let (store, stop) = (player.store.clone(), self.stop_bus.clone());
            let watch = unfinished.watch(store, feed.clone(), patience, stop);
            self.bus.spawn(watch);
        }
    }

    /// Starts what runs for as long as the node does.
    fn run_bus(
        &self,
        ends: Ends,
        status: &Arc<NodeStatus>,
        events: &api::Events,
        lag: &Lag,
        metrics: &Metrics,
    ) {
        let stop = &self.stop_bus;
        if let Some(recorder) = &self.recorder {
            self.bus
                .spawn(lag.clone().watch(recorder.spool.clone(), stop.clone()));
        }
        let restarts = &metrics.restarts;
        if let Some(station) = ends.station {
            let control = Arc::new(Remote {
                status: status.clone(),
                capture: self.capture.clone(),
            });
            let roles = Roles {
                control,
                publisher: ends.publisher_handle,
            };
            let (status, restarts) = (status.clone(), restarts.clone());
            let part = (station, roles);
            self.bus
                .spawn(keep_running(part, status, restarts, stop.clone()));
        }
        if let Some(publisher) = ends.publisher {
            let (status, restarts) = (status.clone(), restarts.clone());
            self.bus
                .spawn(keep_running(publisher, status, restarts, stop.clone()));
        }
        if let (Some((subscriber, feed)), Some(player)) = (ends.subscriber, &self.player) {
            if let Some(live) = &player.live {
                self.bus
                    .spawn(player::feed_live(live.clone(), feed.clone(), stop.clone()));
            }
            self.bus.spawn(player::announce(
                feed,
                events.clone(),
                lag.clone(),
                stop.clone(),
            ));
            self.bus
                .spawn(player::expire(player.store.clone(), stop.clone()));
            let (status, restarts) = (status.clone(), restarts.clone());
            self.bus
                .spawn(keep_running(subscriber, status, restarts, stop.clone()));
        }
    }
}

/// The node's name and topics, checked.
fn names(settings: &Settings) -> Result<(NodeId, Topics), Error> {
    let setting = |key: &str, error: &dyn fmt::Display| Error::Setting {
        key: key.to_owned(),
        message: error.to_string(),
    };
    let node = NodeId::new(&settings.node).map_err(|error| setting("node", &error))?;
    let root = &settings.mqtt.root;
    let topics = Topics::new(root).map_err(|error| setting("mqtt.root", &error))?;
    Ok((node, topics))
}

fn api_parts(
    status: &Arc<NodeStatus>,
    player: Option<&Player>,
    events: &api::Events,
    metrics: &Metrics,
) -> api::Parts {
    api::Parts {
        store: player.map(|player| player.store.clone()),
        backups: player.and_then(|player| player.backups.clone()),
        status: status.clone(),
        replays: player
            .map(|player| -> Arc<dyn api::Replays> { Arc::new(ReplayDesk(player.runs.clone())) }),
        events: events.clone(),
        registry: Arc::new(metrics.registry()),
        metrics: metrics.api.clone(),
    }
}

async fn api_config(settings: &Settings) -> Result<api::Config, Error> {
    let typed = &settings.api;
    Ok(api::Config {
        listen: limits::resolve("api", &typed.listen).await?,
        token: typed.token.clone(),
        allowed_hosts: typed.allowed_hosts.clone(),
        incomplete_after: settings.incomplete_after,
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
