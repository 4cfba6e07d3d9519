//! What the subscriber does with messages: read, note, commit, acknowledge.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use qproxy_mqtt::codec::Subscription;
use qproxy_mqtt::{MqttClient, QoS};
use tokio::time::{Instant, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use crate::record::{Epoch, Item, NodeId, Outside, Record, SequenceRange};
use crate::store::{self, Arrival, Batch, Receipt};

use super::super::error::Error;
use super::super::intake::{Intake, Malformed, kind};
use super::super::ledger::{Changed, Ledger, Noted};
use super::super::notice::{self, Head, ResendAnswer};
use super::super::repair::{Key, Repair};
use super::super::topics::Topic;

use super::super::error::chain;
use super::Subscriber;

pub(super) type Asked = (Key, Result<ResendAnswer, String>);

pub(super) struct Running<'a> {
    pub(super) subscriber: &'a Subscriber,
    pub(super) client: MqttClient,
    pub(super) intake: Intake,
    pub(super) ledger: Ledger,
    pub(super) repair: Repair,
    pub(super) asked: FuturesUnordered<BoxFuture<'static, Asked>>,
    /// Whether a ledger is kept.
    pub(super) accounts: bool,
    /// What each life's last acknowledgement said: watermark, highest, missing.
    pub(super) told: HashMap<Key, (u64, u64, u64)>,
    pub(super) since_ack: usize,
    pub(super) idle_ack_due: Instant,
    pub(super) lost_written: bool,
    /// Since then it may have lost what it had.
    pub(super) store_was_away: bool,
}

/// What came of reading a batch of messages.
#[derive(Default)]
pub(super) struct Read {
    arrivals: Vec<(NodeId, SequenceRange, Arrival)>,
    refused: Vec<(usize, Malformed)>,
    /// How many messages were read: more may wait than may be in memory decoded.
    messages: usize,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commit {
    /// It is stored.
    Done,
    /// No store takes it; what arrived counts as lost.
    TooLarge,
    /// Shutdown came first.
    Stopped,
}

impl<'a> Running<'a> {
    pub(super) fn new(
        subscriber: &'a Subscriber,
        client: MqttClient,
        stored: Vec<store::Settled>,
    ) -> Self {
        Self {
            intake: Intake {
                rules: subscriber.rules.clone(),
                max_decompressed: subscriber.config.max_message_decompressed,
                keys: subscriber.config.keys.clone(),
                metrics: subscriber.metrics.clone(),
                max_decoded: subscriber.config.batch_decoded,
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
            store_was_away: false,
        }
    }

    pub(super) async fn run(
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

    pub(super) async fn subscribe(&mut self) -> Result<(), Error> {
        let server = self.subscriber.endpoint.to_string();
        let failed = |source| Error::Mqtt {
            client_id: self.subscriber.client_id.clone(),
            server: server.clone(),
            source: Box::new(source),
        };
        self.client.start().await.map_err(failed)?;
        let filters = self.subscriber.filters();
        let wanted = filters
            .iter()
            .map(|filter| Subscription::new(filter.clone(), QoS::AtLeastOnce));
        let codes = self
            .client
            .subscribe_many(wanted.collect())
            .await
            .map_err(failed)?;
        for (filter, code) in filters.into_iter().zip(codes) {
            if code.is_error() {
                return Err(Error::Refused { server, filter });
            }
        }
        Ok(())
    }

    /// Stores messages and acknowledges them, as many at once as may be in memory decoded; `false` where shutdown came
    /// first.
    pub(super) async fn take(
        &mut self,
        messages: &[qproxy_mqtt::Message],
        shutdown: &CancellationToken,
    ) -> bool {
        let mut rest = messages;
        while !rest.is_empty() {
            let read = self.read(rest);
            let (batch, later) = rest.split_at(read.messages);
            if !self.take_batch(batch, read, shutdown).await {
                return false;
            }
            rest = later;
        }
        true
    }

    async fn take_batch(
        &mut self,
        messages: &[qproxy_mqtt::Message],
        read: Read,
        shutdown: &CancellationToken,
    ) -> bool {
        let metrics = self.subscriber.metrics.clone();
        metrics.received_messages.inc_by(messages.len() as u64);
        let bytes: usize = messages.iter().map(|message| message.payload.len()).sum();
        metrics.received_bytes.inc_by(bytes as u64);
        for (index, error) in &read.refused {
            self.quarantine(&messages[*index], &chain(error));
            if error.is_size() {
                self.lose_places(&messages[*index]);
            }
        }
        let mut fresh = self.note(&read.arrivals);
        let arrivals = read.arrivals.into_iter().map(|(_, _, arrival)| arrival);
        let arrivals: Vec<_> = arrivals.collect();
        // What changed is taken only to be committed; without arrivals it waits for the next commit.
        if !arrivals.is_empty() {
            let batch = with(self.ledger.take_changed(), arrivals);
            match self.commit(batch, messages, shutdown).await {
                Commit::Done => {}
                Commit::TooLarge => fresh.clear(),
                Commit::Stopped => return false,
            }
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

    /// Reads the first messages, as many as may be in memory decoded; heads between them go to the ledger at once.
    pub(super) fn read(&mut self, messages: &[qproxy_mqtt::Message]) -> Read {
        let mut read = Read::default();
        let mut bytes = 0;
        for (index, message) in messages.iter().enumerate() {
            if bytes >= self.subscriber.config.batch_decoded {
                break;
            }
            read.messages += 1;
            let result = match self.subscriber.topics.parse(&message.topic) {
                Some(Topic::Items(node)) => {
                    self.intake.read(&node, &message.payload).map(|taken| {
                        bytes = bytes.saturating_add(taken.bytes);
                        let of_node = taken
                            .items
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

    pub(super) fn head(&mut self, node: &NodeId, head: Head) {
        if self.accounts && head.highest <= notice::MAX_SEQUENCE {
            self.ledger.announced(node, Epoch(head.epoch), head.highest);
        }
    }

    /// Notes what arrived; gives the records that are new, where somebody listens.
    pub(super) fn note(
        &mut self,
        arrivals: &[(NodeId, SequenceRange, Arrival)],
    ) -> Vec<Arc<Record>> {
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
                        .get_or_create(&gap.reason.as_str().into());
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

    /// Puts a batch until the store takes it, or says that it never will.
    pub(super) async fn commit(
        &mut self,
        batch: Batch,
        messages: &[qproxy_mqtt::Message],
        shutdown: &CancellationToken,
    ) -> Commit {
        let accounts = Batch {
            arrivals: Vec::new(),
            settled: batch.settled.clone(),
            news: batch.news.clone(),
            forgotten: batch.forgotten.clone(),
        };
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
                    ..accounts.clone()
                }
            });
            let started = Instant::now();
            match self.subscriber.store.put(batch).await {
                Ok(receipt) => {
                    self.store_was_away |= receipt.behind;
                    self.committed(receipt, &kinds, &starts, started);
                    return Commit::Done;
                }
                Err(error @ store::Error::TooLarge { .. }) => {
                    self.give_up(accounts, messages, &error);
                    return Commit::TooLarge;
                }
                Err(error) => {
                    self.store_was_away |= matches!(error, store::Error::Unavailable { .. });
                    self.subscriber.refused(&error);
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = shutdown.cancelled() => return Commit::Stopped,
                    }
                    pause = (pause * 2).min(self.subscriber.config.longest_pause);
                }
            }
        }
    }

    pub(super) fn committed(
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
            .get_or_create(&"record".into())
            .inc_by(receipt.records);
        metrics
            .stored_items
            .get_or_create(&"piece".into())
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

    pub(super) fn quarantine(&self, message: &qproxy_mqtt::Message, why: &str) {
        tracing::warn!(
            topic = message.topic.as_str(),
            error = why,
            "message cannot be read"
        );
        self.subscriber.metrics.quarantined.inc();
        let quarantine = &self.subscriber.handle.quarantine;
        quarantine.keep(now_us(), &message.topic, &message.payload, why.to_owned());
    }
}

/// A batch of what arrived and what that changed.
pub(super) fn with(changed: Changed, arrivals: Vec<Arrival>) -> Batch {
    Batch {
        arrivals,
        settled: changed.settled,
        news: changed.news,
        forgotten: changed.forgotten,
    }
}

fn started_us(arrival: &Arrival) -> Option<i64> {
    match &arrival.decoded.item {
        Item::Record(Record::Exchange(exchange)) => Some(exchange.timing.started_us),
        Item::Record(Record::Stream(stream)) => Some(stream.timing.started_us),
        Item::Sealed(sealed) => match &sealed.outside {
            Outside::Record(clear) => Some(clear.timing.started_us),
            Outside::Chunk { .. } | Outside::Segments { .. } => None,
        },
        _ => None,
    }
}

pub(super) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::FingerprintRules;
    use crate::store::embedded::{Config, Embedded};
    use crate::sync::{Endpoint, Metrics, SubscriberConfig, Topics};

    fn subscriber(folder: &tempfile::TempDir) -> (Subscriber, MqttClient) {
        let store = Embedded::open(Config::new(folder.path()), store::Metrics::default()).unwrap();
        let endpoint = Endpoint::new("127.0.0.1", 1);
        let client = MqttClient::new(endpoint.client_config("p".to_owned()));
        let (subscriber, _) = Subscriber::new(
            SubscriberConfig::default(),
            endpoint,
            NodeId::new("play").unwrap(),
            Topics::new("q").unwrap(),
            Arc::new(store),
            client.clone(),
            FingerprintRules::default(),
            Metrics::default(),
        );
        (subscriber, client)
    }

    #[tokio::test]
    async fn what_changed_waits_for_a_commit() {
        let folder = tempfile::tempdir().unwrap();
        let (subscriber, client) = subscriber(&folder);
        let node = NodeId::new("rec").unwrap();
        let mut running = Running::new(&subscriber, client, Vec::new());
        let range = SequenceRange { first: 1, last: 1 };
        running
            .ledger
            .arrived(&node, Epoch(1), range, Instant::now());
        assert!(running.take(&[], &CancellationToken::new()).await);
        assert_eq!(running.ledger.take_changed().settled.len(), 1);
    }

    fn away() -> store::Error {
        store::Error::Unavailable {
            address: "redis".to_owned(),
            source: "away".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_at_the_start_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (subscriber, _) = subscriber(&folder);
        let mut answers = vec![Ok(5), Err(away()), Err(away())];
        let shown = subscriber.handle.clone();
        let read = || -> BoxFuture<'_, _> {
            assert_eq!(shown.status().blocked.is_some(), answers.len() < 3);
            let answer = answers.pop().unwrap();
            Box::pin(async move { answer })
        };
        let shutdown = CancellationToken::new();
        let value = subscriber.patiently(read, &shutdown).await.unwrap();
        assert_eq!(value, Some(5));
        assert_eq!(shown.status().blocked, None);

        shutdown.cancel();
        let never = || -> BoxFuture<'_, Result<u8, _>> { Box::pin(async { Err(away()) }) };
        let value = subscriber.patiently(never, &shutdown).await.unwrap();
        assert_eq!(value, None);
    }
}
