//! The player's driver: MQTT -> store, and only then the acknowledgement.
//!
//! It takes everything that waits, commits it with the coverage that it settles, and acknowledges; it never
//! waits for more while something is unacknowledged, since brokers keep only a few messages in flight. A
//! store that refuses is asked again with the same messages: nothing is acknowledged that is not stored. What
//! cannot be read goes to quarantine and never stops the rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use qproxy_mqtt::codec::{SubscribeCode, Subscription};
use qproxy_mqtt::session::AckMode;
use qproxy_mqtt::{MqttClient, QoS};
use tokio::time::{Instant, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use crate::record::{Epoch, FingerprintRules, Item, NodeId, Record, SequenceRange};
use crate::store::{self, Arrival, Batch, Receipt, Store};

use super::endpoint::Endpoint;
use super::error::Error;
use super::intake::{Intake, Malformed, kind};
use super::ledger::{Ledger, LedgerConfig, Noted};
use super::live::Feed;
use super::metrics::{Metrics, reason};
use super::notice::{self, Ack, Head, ResendAnswer};
use super::quarantine::Quarantine;
use super::repair::{Key, Repair, RepairConfig, Request};
use super::status::{LifeStatus, PlayerSideStatus};
use super::topics::{Topic, Topics, shared};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriberConfig {
    /// What it subscribes to.
    pub scope: Scope,
    /// Messages in one commit, at most.
    pub batch_messages: usize,
    /// Bytes that wait in memory to be committed, at most.
    pub inbound_bytes: usize,
    /// The largest message after unpacking.
    pub max_message_decompressed: usize,
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
            max_message_decompressed: 8 << 20,
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

type Asked = (Key, Result<ResendAnswer, String>);

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
    /// [`Error`] where it cannot go on; what was not acknowledged stays with the broker.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut settings = self.endpoint.client_config(self.client_id.clone());
        settings.clean_session = !self.config.persistent_session;
        settings.ack_mode = AckMode::Manual;
        settings.inbound_messages = self.config.batch_messages;
        settings.inbound_bytes = self.config.inbound_bytes;
        let client = MqttClient::new(settings);
        let stored = self.store.settled().await?;
        let events = client.events();
        let watch = super::control::log_events(self.endpoint.clone(), "subscriber", events);
        let mut messages = client.messages();
        let mut running = Running::new(self, client.clone(), stored);
        let result = tokio::select! {
            result = running.run(&mut messages, &shutdown) => result,
            never = watch => match never {},
        };
        if let Err(error) = client.disconnect().await {
            tracing::debug!(%error, "subscriber left without the last acknowledgements");
        }
        result
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

struct Running {
    subscriber: Subscriber,
    client: MqttClient,
    intake: Intake,
    ledger: Ledger,
    repair: Repair,
    asked: FuturesUnordered<BoxFuture<'static, Asked>>,
    /// Whether a ledger is kept.
    accounts: bool,
    /// What each life's last acknowledgement said: watermark, highest, missing.
    told: HashMap<Key, (u64, u64, u64)>,
    since_ack: usize,
    idle_ack_due: Instant,
    lost_written: bool,
}

/// What came of reading a batch of messages.
#[derive(Default)]
struct Read {
    arrivals: Vec<(NodeId, SequenceRange, Arrival)>,
    refused: Vec<(usize, Malformed)>,
}

impl Running {
    fn new(subscriber: Subscriber, client: MqttClient, stored: Vec<store::Settled>) -> Self {
        Self {
            intake: Intake {
                rules: subscriber.rules.clone(),
                max_decompressed: subscriber.config.max_message_decompressed,
            },
            ledger: Ledger::new(subscriber.config.ledger, stored),
            repair: Repair::new(subscriber.config.repair),
            accounts: subscriber.config.scope.services.is_empty(),
            subscriber,
            client,
            asked: FuturesUnordered::new(),
            told: HashMap::new(),
            since_ack: 0,
            idle_ack_due: Instant::now(),
            lost_written: true,
        }
    }

    async fn run(
        &mut self,
        messages: &mut qproxy_mqtt::client::Messages,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        tokio::select! {
            subscribed = self.subscribe() => subscribed?,
            () = shutdown.cancelled() => return Ok(()),
        }
        let most = self.subscriber.config.batch_messages;
        let period = self.subscriber.config.tick;
        let mut tick = interval_at(Instant::now() + period, period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                _ = tick.tick() => self.tick(shutdown).await,
                Some((key, answer)) = self.asked.next() => self.answered(&key, answer),
                count = messages.recv_many(&mut waiting, most) => {
                    if count == 0 {
                        return Ok(());
                    }
                    if !self.take(&waiting, shutdown).await {
                        return Ok(());
                    }
                    waiting.clear();
                }
            }
        }
    }

    async fn subscribe(&mut self) -> Result<(), Error> {
        let server = self.subscriber.endpoint.to_string();
        let failed = |source| Error::Mqtt {
            client_id: self.subscriber.client_id.clone(),
            server: server.clone(),
            source,
        };
        self.client.start().await.map_err(failed)?;
        let filters = self.subscriber.filters();
        let wanted = filters.iter().map(|filter| Subscription {
            filter: filter.clone().into(),
            qos: QoS::AtLeastOnce,
        });
        let codes = self
            .client
            .subscribe_many(wanted.collect())
            .await
            .map_err(failed)?;
        for (filter, code) in filters.into_iter().zip(codes) {
            if !matches!(code, SubscribeCode::Granted(_)) {
                return Err(Error::Refused { server, filter });
            }
        }
        Ok(())
    }

    /// Stores a batch of messages and acknowledges them; `false` where shutdown came first.
    async fn take(
        &mut self,
        messages: &[qproxy_mqtt::Message],
        shutdown: &CancellationToken,
    ) -> bool {
        let metrics = self.subscriber.metrics.clone();
        metrics.received_messages.inc_by(messages.len() as u64);
        let bytes: usize = messages.iter().map(|message| message.payload.len()).sum();
        metrics.received_bytes.inc_by(bytes as u64);
        let read = self.read(messages);
        for (index, error) in &read.refused {
            self.quarantine(&messages[*index], error);
        }
        let fresh = self.note(&read.arrivals);
        let arrivals = read.arrivals.into_iter().map(|(_, _, arrival)| arrival);
        let batch = Batch {
            arrivals: arrivals.collect(),
            settled: self.ledger.take_changed(),
        };
        if !batch.arrivals.is_empty() && !self.commit(batch, messages, shutdown).await {
            return false;
        }
        messages.iter().for_each(qproxy_mqtt::Message::ack);
        for record in fresh {
            self.subscriber.handle.feed.send(record);
        }
        self.since_ack += messages.len();
        if self.since_ack >= self.subscriber.config.ack_messages {
            self.acknowledge(Instant::now());
        }
        true
    }

    /// Reads messages; heads between them go to the ledger at once.
    fn read(&mut self, messages: &[qproxy_mqtt::Message]) -> Read {
        let mut read = Read::default();
        for (index, message) in messages.iter().enumerate() {
            let result = match self.subscriber.topics.parse(&message.topic) {
                Some(Topic::Items(node)) => {
                    self.intake.read(&node, &message.payload).map(|items| {
                        let of_node = items
                            .into_iter()
                            .map(|(range, item)| (node.clone(), range, item));
                        read.arrivals.extend(of_node);
                    })
                }
                Some(Topic::Head(node)) => notice::read::<Head>(&message.payload)
                    .map(|head| self.head(&node, head))
                    .map_err(Malformed::Notice),
                _ => Err(Malformed::Topic),
            };
            if let Err(error) = result {
                read.refused.push((index, error));
            }
        }
        read
    }

    fn head(&mut self, node: &NodeId, head: Head) {
        if self.accounts && head.highest <= notice::MAX_SEQUENCE {
            self.ledger.announced(node, Epoch(head.epoch), head.highest);
        }
    }

    /// Notes what arrived; gives the records that are new, where somebody listens.
    fn note(&mut self, arrivals: &[(NodeId, SequenceRange, Arrival)]) -> Vec<Arc<Record>> {
        let now = Instant::now();
        let metrics = &self.subscriber.metrics;
        let listened = self.subscriber.handle.feed.has_listeners();
        let mut fresh = Vec::new();
        for (node, range, arrival) in arrivals {
            let item = &arrival.decoded.item;
            let noted = match item {
                _ if !self.accounts => Noted::New,
                Item::Gap(gap) => self.ledger.told_dropped(gap, *range, now),
                _ => self.ledger.arrived(node, item.origin().epoch, *range, now),
            };
            match (noted, item) {
                (Noted::Unaccounted, _) => {
                    metrics.unaccounted.inc();
                }
                (Noted::New, Item::Gap(gap)) => {
                    let told = metrics
                        .dropped_told
                        .get_or_create(&reason(gap.reason.as_str()));
                    told.inc_by(range.count());
                }
                (Noted::New, Item::Record(record)) if listened => {
                    fresh.push(Arc::new(record.clone()));
                }
                _ => {}
            }
        }
        fresh
    }

    /// Puts a batch until the store takes it; `false` where shutdown came first.
    async fn commit(
        &mut self,
        batch: Batch,
        messages: &[qproxy_mqtt::Message],
        shutdown: &CancellationToken,
    ) -> bool {
        let settled = batch.settled.clone();
        let kinds: Vec<_> = batch
            .arrivals
            .iter()
            .map(|a| kind(&a.decoded.item))
            .collect();
        let starts: Vec<_> = batch.arrivals.iter().filter_map(started_us).collect();
        let mut next = Some(batch);
        let mut pause = self.subscriber.config.first_pause;
        loop {
            // The batch was given away; what it held is read again from the messages.
            let batch = next.take().unwrap_or_else(|| {
                let arrivals = self.read(messages).arrivals.into_iter();
                Batch {
                    arrivals: arrivals.map(|(_, _, arrival)| arrival).collect(),
                    settled: settled.clone(),
                }
            });
            let started = Instant::now();
            match self.subscriber.store.put(batch).await {
                Ok(receipt) => {
                    self.committed(receipt, &kinds, &starts, started);
                    return true;
                }
                Err(error) => {
                    self.refused(&error);
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = shutdown.cancelled() => return false,
                    }
                    pause = (pause * 2).min(self.subscriber.config.longest_pause);
                }
            }
        }
    }

    fn committed(
        &self,
        receipt: Receipt,
        kinds: &[&'static str],
        starts: &[i64],
        started: Instant,
    ) {
        let metrics = &self.subscriber.metrics;
        metrics
            .commit_seconds
            .observe(started.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        metrics.commit_items.observe(kinds.len() as f64);
        metrics
            .stored_items
            .get_or_create(&reason("record"))
            .inc_by(receipt.records);
        metrics
            .stored_items
            .get_or_create(&reason("piece"))
            .inc_by(receipt.pieces);
        metrics.duplicates.inc_by(receipt.duplicates);
        let now = now_us();
        for start in starts {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a delay in seconds needs no 53 bits"
            )]
            let delay = now.saturating_sub(*start).max(0) as f64 / 1e6;
            metrics.sync_delay_seconds.observe(delay);
        }
        if self
            .subscriber
            .handle
            .status
            .lock()
            .blocked
            .take()
            .is_some()
        {
            tracing::info!("store takes records again");
        }
    }

    fn refused(&self, error: &store::Error) {
        let why = match error {
            store::Error::Io { .. } => "io",
            store::Error::Full(_) => "full",
            store::Error::Unavailable { .. } => "unavailable",
            store::Error::Corrupt { .. } => "corrupt",
            store::Error::Closed => "closed",
        };
        self.subscriber
            .metrics
            .store_failures
            .get_or_create(&reason(why))
            .inc();
        let mut status = self.subscriber.handle.status.lock();
        if status.blocked.is_none() {
            tracing::error!(%error, "store refuses records; nothing is acknowledged until it takes them");
        }
        status.blocked = Some(error.to_string());
    }

    fn quarantine(&self, message: &qproxy_mqtt::Message, error: &Malformed) {
        let why = chain(error);
        tracing::warn!(
            topic = message.topic.as_str(),
            error = why,
            "message cannot be read"
        );
        self.subscriber.metrics.quarantined.inc();
        let quarantine = &self.subscriber.handle.quarantine;
        quarantine.keep(now_us(), &message.topic, &message.payload, why);
    }

    /// Looks for gaps, asks for them, acknowledges what moved, shows the state.
    async fn tick(&mut self, shutdown: &CancellationToken) {
        let now = Instant::now();
        if self.accounts {
            if self.subscriber.config.scope.group.is_some() {
                match self.subscriber.store.settled().await {
                    Ok(stored) => self.ledger.merge(&stored),
                    Err(error) => self.refused(&error),
                }
            }
            let overdue = self
                .ledger
                .overdue(self.subscriber.config.repair.gap_delay, now);
            let hopeless: Vec<_> = self.repair.given_up(&overdue, now).cloned().collect();
            for gap in hopeless {
                self.lose(&(gap.node, gap.epoch), gap.range);
            }
            for request in self.repair.plan(&overdue, now) {
                self.ask(request);
            }
            self.write_losses(shutdown).await;
            self.acknowledge(now);
        }
        self.show();
    }

    fn ask(&self, request: Request) {
        let topic = self.subscriber.topics.command(&request.node, "resend");
        let control = self.subscriber.control.clone();
        tracing::debug!(node = %request.node, ?request.body, "asking for what is missing");
        self.asked.push(Box::pin(async move {
            let key = (request.node, Epoch(request.body.epoch));
            let answer = match control.query(topic, notice::write(&request.body)).await {
                Ok(answer) => notice::read(&answer).map_err(|error| chain(&error)),
                Err(error) => Err(chain(&error)),
            };
            (key, answer)
        }));
    }

    fn answered(&mut self, key: &Key, answer: Result<ResendAnswer, String>) {
        let asked = &self.subscriber.metrics.resends_asked;
        match answer {
            Ok(answer) => {
                asked.get_or_create(&reason("answered")).inc();
                for range in self.repair.answered(key, &answer, Instant::now()) {
                    self.lose(key, range);
                }
            }
            Err(error) => {
                asked.get_or_create(&reason("failed")).inc();
                tracing::debug!(node = %key.0, error, "recorder did not send again");
                self.repair.failed(key, Instant::now());
            }
        }
    }

    fn lose(&mut self, key: &Key, range: SequenceRange) {
        let lost = self.ledger.told_lost(&key.0, key.1, range);
        if lost > 0 {
            self.subscriber.metrics.lost.inc_by(lost);
            self.lost_written = false;
            tracing::error!(node = %key.0, epoch = key.1.0, first = range.first, last = range.last, lost, "lost");
        }
    }

    /// Losses are committed by themselves: nothing may arrive for a long time.
    async fn write_losses(&mut self, shutdown: &CancellationToken) {
        if self.lost_written {
            return;
        }
        let batch = Batch {
            arrivals: Vec::new(),
            settled: self.ledger.take_changed(),
        };
        self.lost_written = self.commit(batch, &[], shutdown).await;
    }

    /// Tells each recorder what is committed, where that moved or enough time has passed.
    fn acknowledge(&mut self, now: Instant) {
        self.since_ack = 0;
        if !self.accounts {
            return;
        }
        let idle = now >= self.idle_ack_due;
        if idle {
            self.idle_ack_due = now + self.subscriber.config.ack_idle;
        }
        let delay = self.subscriber.config.repair.gap_delay;
        let mut newest: HashMap<&NodeId, Epoch> = HashMap::new();
        for (node, epoch, _) in self.ledger.lives() {
            newest.insert(node, epoch);
        }
        for (node, epoch, life) in self.ledger.lives() {
            let gaps: Vec<_> = life.old_gaps(delay, now).collect();
            let missing_count = gaps.iter().map(|range| range.count()).sum();
            let state = (
                life.coverage.watermark(),
                life.coverage.highest(),
                missing_count,
            );
            let key = (node.clone(), epoch);
            let moved = self.told.get(&key) != Some(&state);
            if !moved && !(idle && newest.get(node) == Some(&epoch)) {
                continue;
            }
            let ack = Ack {
                epoch: epoch.0,
                watermark: state.0,
                highest: state.1,
                missing_count,
                missing: gaps
                    .into_iter()
                    .take(Ack::MAX_RANGES)
                    .map(Into::into)
                    .collect(),
            };
            let topic = self.subscriber.topics.ack(node, &self.subscriber.player);
            let sent =
                self.subscriber
                    .control
                    .try_publish(topic, notice::write(&ack), QoS::AtMostOnce);
            if sent.is_ok() {
                self.told.insert(key, state);
            }
        }
        let known: std::collections::HashSet<Key> = self
            .ledger
            .lives()
            .map(|(node, epoch, _)| (node.clone(), epoch))
            .collect();
        self.told.retain(|key, _| known.contains(key));
    }

    fn show(&self) {
        let lives = self.ledger.lives().map(|(node, epoch, life)| {
            let coverage = &life.coverage;
            let (highest, missing) = (life.highest(), life.missing());
            LifeStatus {
                node: node.to_string(),
                epoch: epoch.0,
                watermark: coverage.watermark(),
                highest,
                missing,
                dropped: coverage.dropped(),
                lost: coverage.lost(),
                stored: highest
                    .saturating_sub(missing)
                    .saturating_sub(coverage.dropped())
                    .saturating_sub(coverage.lost()),
            }
        });
        let recorders: Vec<_> = lives.collect();
        let missing: u64 = recorders.iter().map(|life| life.missing).sum();
        let missing = i64::try_from(missing).unwrap_or(i64::MAX);
        self.subscriber.metrics.missing.set(missing);
        let mut status = self.subscriber.handle.status.lock();
        status.connected = self.client.is_connected();
        status.recorders = recorders;
    }
}

fn started_us(arrival: &Arrival) -> Option<i64> {
    match &arrival.decoded.item {
        Item::Record(Record::Exchange(exchange)) => Some(exchange.timing.started_us),
        Item::Record(Record::Stream(stream)) => Some(stream.timing.started_us),
        _ => None,
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
}

/// An error with all its sources on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}
