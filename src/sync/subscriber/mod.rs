//! The player's driver: MQTT -> store, and only then the acknowledgement.
//!
//! It takes everything that waits, commits it with the coverage that it settles, and acknowledges; it never
//! waits for more while something is unacknowledged, since brokers keep only a few messages in flight. A
//! store that refuses is asked again with the same messages: nothing is acknowledged that is not stored. What
//! cannot be read goes to quarantine and never stops the rest.

mod driver;
mod account;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use qproxy_mqtt::MqttClient;
use qproxy_mqtt::session::AckMode;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::record::{FingerprintRules, Keyring, NodeId};
use crate::store::{self, Store};

use super::control::{Trouble, log_events, stopped};
use super::endpoint::Endpoint;
use super::error::{Error, chain};
use super::ledger::LedgerConfig;
use super::live::Feed;
use super::metrics::Metrics;
use super::quarantine::Quarantine;
use super::repair::RepairConfig;
use super::status::PlayerSideStatus;
use super::topics::{Topics, shared};
use driver::Running;

/// What a player subscribes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Recorders by name; none stands for all.
    pub nodes: Vec<NodeId>,
    /// Services by name; none stands for all. A player that takes only some services cannot tell what it
    /// lacks: it keeps no ledger, asks for nothing again and holds no recorder back.
    pub services: Vec<String>,
    /// The shared subscription group of players that fill one store together.
    pub group: Option<String>,
}

/// How a player takes what arrives.
#[derive(Debug, Clone)]
pub struct SubscriberConfig {
    /// What it subscribes to.
    pub scope: Scope,
    /// Messages in one commit, at most.
    pub batch_messages: usize,
    /// Bytes that wait in memory to be committed, at most.
    pub inbound_bytes: usize,
    /// Bytes of one message after unpacking, at most: no recorder can be set to send more. A larger one is refused once,
    /// and its places count as lost.
    pub max_message_decompressed: usize,
    /// Bytes in memory that a batch takes once it is decoded: no further message is decoded for it beyond. A single message
    /// that takes more is refused as one that unpacks to too much is.
    pub batch_decoded: usize,
    /// The keys that open what is sealed.
    pub keys: Arc<Keyring>,
    /// Limits of the ledger.
    pub ledger: LedgerConfig,
    /// How gaps are repaired.
    pub repair: RepairConfig,
    /// How often it looks for gaps and acknowledges what moved.
    pub tick: Duration,
    /// It acknowledges sooner when this many messages were committed.
    pub ack_messages: usize,
    /// How often it acknowledges when nothing moves.
    pub ack_idle: Duration,
    /// The first pause after the store refused; doubled up to `longest_pause`.
    pub first_pause: Duration,
    /// The longest pause after the store refused.
    pub longest_pause: Duration,
    /// Records that a slow listener of the live feed may lag behind.
    pub feed_records: usize,
    /// Whether the broker keeps our session while we are away.
    pub persistent_session: bool,
}

impl Default for SubscriberConfig {
    fn default() -> Self {
        Self {
            scope: Scope::default(),
            batch_messages: 512,
            inbound_bytes: 16 << 20,
            max_message_decompressed: 16 << 20,
            batch_decoded: 32 << 20,
            keys: Arc::default(),
            ledger: LedgerConfig::default(),
            repair: RepairConfig::default(),
            tick: Duration::from_millis(250),
            ack_messages: 100,
            ack_idle: Duration::from_secs(5),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            feed_records: 1024,
            persistent_session: true,
        }
    }
}

/// The player's end of the bus, to be run.
pub struct Subscriber {
    config: SubscriberConfig,
    endpoint: Endpoint,
    client_id: String,
    player: NodeId,
    topics: Topics,
    store: Arc<dyn Store>,
    control: MqttClient,
    rules: FingerprintRules,
    metrics: Metrics,
    handle: SubscriberHandle,
}

/// What others see of a running [`Subscriber`]; cheap to clone.
#[derive(Debug, Clone)]
pub struct SubscriberHandle {
    feed: Feed,
    quarantine: Arc<Quarantine>,
    status: Arc<Mutex<PlayerSideStatus>>,
}

impl SubscriberHandle {
    /// Records as they are stored.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// How it goes.
    #[must_use]
    pub fn status(&self) -> PlayerSideStatus {
        let mut status = self.status.lock().clone();
        status.quarantine = self.quarantine.list();
        status
    }
}

impl Subscriber {
    /// A subscriber that fills `store`, and speaks to recorders over the `control` connection.
    #[must_use]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part that only app can join"
    )]
    pub fn new(
        config: SubscriberConfig,
        endpoint: Endpoint,
        player: NodeId,
        topics: Topics,
        store: Arc<dyn Store>,
        control: MqttClient,
        rules: FingerprintRules,
        metrics: Metrics,
    ) -> (Self, SubscriberHandle) {
        let handle = SubscriberHandle {
            feed: Feed::new(config.feed_records, metrics.feed_skipped.clone()),
            quarantine: Arc::default(),
            status: Arc::default(),
        };
        let subscriber = Self {
            config,
            client_id: format!("{player}-traffic"),
            endpoint,
            player,
            topics,
            store,
            control,
            rules,
            metrics,
            handle: handle.clone(),
        };
        (subscriber, handle)
    }

    /// Takes what arrives until `shutdown`.
    ///
    /// # Errors
    /// [`Error`] where it cannot go on; what was not acknowledged stays with the broker, and it can be run again.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), Error> {
        let result = self.receive(shutdown).await;
        self.handle.status.lock().connected = false;
        result
    }

    async fn receive(&self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut settings = self.endpoint.client_config(self.client_id.clone());
        // A session that outlives a member of a group would be dealt messages that nobody takes.
        settings.clean_session =
            !self.config.persistent_session || self.config.scope.group.is_some();
        settings.ack_mode = AckMode::Manual;
        settings.inbound_messages = self.config.batch_messages;
        settings.inbound_bytes = self.config.inbound_bytes;
        let client = MqttClient::new(settings);
        let store = self.store.clone();
        let Some(stored) = self.patiently(|| store.settled(), &shutdown).await? else {
            return Ok(());
        };
        let (events, connection) = (client.events(), client.events());
        let (client_id, server) = (self.client_id.clone(), self.endpoint.to_string());
        let watch = log_events(
            self.endpoint.clone(),
            "subscriber",
            events,
            Trouble::default(),
        );
        let mut messages = client.messages();
        let mut running = Running::new(self, client.clone(), stored);
        let result = tokio::select! {
            result = running.run(&mut messages, &shutdown) => result,
            // Without it no message comes any more, and nothing else says so.
            reason = stopped(connection) => Err(Error::Mqtt {
                client_id,
                server,
                source: Box::new(reason),
            }),
            never = watch => match never {},
        };
        if client.is_connected()
            && let Err(error) = client.disconnect().await
        {
            tracing::debug!(%error, "subscriber left without the last acknowledgements");
        }
        result
    }

    /// Reads from the store again until it answers; `None` where shutdown came first.
    async fn patiently<'a, T>(
        &self,
        mut read: impl FnMut() -> BoxFuture<'a, Result<T, store::Error>> + Send,
        shutdown: &CancellationToken,
    ) -> Result<Option<T>, Error> {
        let mut pause = self.config.first_pause;
        loop {
            match read().await {
                Ok(value) => {
                    if self.handle.status.lock().blocked.take().is_some() {
                        tracing::info!("store answers again");
                    }
                    return Ok(Some(value));
                }
                Err(
                    error @ (store::Error::Corrupt { .. }
                    | store::Error::Sealed { .. }
                    | store::Error::Closed),
                ) => {
                    return Err(error.into());
                }
                Err(error) => self.refused(&error),
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = shutdown.cancelled() => return Ok(None),
            }
            pause = (pause * 2).min(self.config.longest_pause);
        }
    }

    /// Counts and shows that the store does not do its part.
    fn refused(&self, error: &store::Error) {
        let kind = match error {
            store::Error::Io { .. } => "io",
            store::Error::Full(_) => "full",
            store::Error::Unavailable { .. } => "unavailable",
            store::Error::Corrupt { .. } => "corrupt",
            store::Error::Sealed { .. } => "sealed",
            store::Error::TooLarge { .. } => "too_large",
            store::Error::Closed => "closed",
        };
        self.metrics
            .store_failures
            .get_or_create(&kind.into())
            .inc();
        let error = chain(error);
        let mut status = self.handle.status.lock();
        if status.blocked.is_none() {
            tracing::error!(
                error,
                "store refuses records; nothing is acknowledged until it takes them"
            );
        }
        status.blocked = Some(error);
    }

    fn filters(&self) -> Vec<String> {
        let Scope {
            nodes,
            services,
            group,
        } = &self.config.scope;
        let nodes: Vec<_> = if nodes.is_empty() {
            vec![None]
        } else {
            nodes.iter().map(Some).collect()
        };
        let services: Vec<_> = if services.is_empty() {
            vec![None]
        } else {
            services.iter().map(|name| Some(name.as_str())).collect()
        };
        let mut filters = Vec::new();
        for node in nodes {
            let of_services = services
                .iter()
                .flat_map(|service| self.topics.item_filters(node, *service));
            filters.extend(of_services.map(|filter| match group {
                Some(group) => shared(group, &filter),
                None => filter,
            }));
            filters.push(self.topics.head_filter(node));
        }
        filters.sort_unstable();
        filters.dedup();
        filters
    }
}
