//! The publisher at work: one task, all its state, no waiting for the network.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use qproxy_mqtt::client::Event;
use qproxy_mqtt::{MqttClient, QoS};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::record::{Epoch, Gap, GapReason, Item, NodeId, Origin, Sequence, Subject, wire};
use crate::spool::{self};

use super::super::error::{Error, chain};
use super::super::flow::{Flow, Heard};
use super::super::notice::{self, Ack, Head};
use super::super::packer::{self, Message, Waiting};
use super::super::status::{PlayerStatus, RecorderStatus};
use super::super::topics::TopicCache;
use super::super::unacked::{Slot, Unacked};

use super::Publisher;

/// Heads of earlier lives that are told.
const HEADS_KEPT: usize = 8;

type Outbound = Message<Option<Slot>>;
type Delivery = (Outbound, Result<(), qproxy_mqtt::Error>);

pub(super) struct Running<'a> {
    publisher: &'a mut Publisher,
    client: MqttClient,
    events: broadcast::Receiver<Event>,
    reader: spool::Reader,
    cache: TopicCache,
    pending: VecDeque<Outbound>,
    repairs: VecDeque<Outbound>,
    in_flight: FuturesUnordered<BoxFuture<'static, Delivery>>,
    unacked: Unacked<(Epoch, Sequence)>,
    flow: Flow,
    /// Per life, up to where the broker has everything.
    heads: BTreeMap<Epoch, u64>,
    head_moved: bool,
    head_due: Instant,
    linger_until: Instant,
    next_repair: Instant,
    retry_at: Instant,
    read_at: Instant,
    pause: Duration,
}

impl<'a> Running<'a> {
    pub(super) fn new(
        publisher: &'a mut Publisher,
        client: MqttClient,
        reader: spool::Reader,
    ) -> Self {
        let now = Instant::now();
        let stats = publisher.spool.stats();
        let mut heads = BTreeMap::new();
        if let Some((epoch, seq)) = stats.oldest_unsent {
            heads.insert(epoch, seq.0.saturating_sub(1));
        }
        // Also where there is nothing to send: a player that hears a head acknowledges it, and thus is there.
        let begun = if stats.oldest_unsent.is_none() {
            stats.highest.0
        } else {
            0
        };
        heads.entry(stats.epoch).or_insert(begun);
        Self {
            cache: TopicCache::new(publisher.topics.clone(), publisher.node.clone()),
            flow: Flow::new(publisher.config.flow),
            pause: publisher.config.first_pause,
            publisher,
            events: client.events(),
            client,
            reader,
            pending: VecDeque::new(),
            repairs: VecDeque::new(),
            in_flight: FuturesUnordered::new(),
            unacked: Unacked::default(),
            heads,
            head_moved: true,
            head_due: now,
            linger_until: now,
            next_repair: now,
            retry_at: now,
            read_at: now,
        }
    }

    pub(super) async fn run(&mut self, shutdown: &CancellationToken) -> Result<(), Error> {
        loop {
            let now = Instant::now();
            self.send_what_may_go(now)?;
            self.tell_head(now);
            let eager = self.in_flight.len() < self.publisher.config.eager_messages;
            let lingers = !eager && now < self.linger_until;
            // Without a connection it stays in the spool, where it is safe from our end and counted if it goes.
            let connected = self.client.is_connected();
            let wants_more = connected && self.pending.is_empty();
            let may_read = wants_more && now >= self.read_at && !lingers;
            let may_repair = self.repairs.is_empty();
            let wake = self.next_wake(now, wants_more && !may_read);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(delivery) = self.in_flight.next() => self.delivered(delivery)?,
                Some((player, ack)) = self.publisher.acks.recv() => self.heard(&player, ack),
                Some(messages) = self.publisher.resends.recv(), if may_repair => {
                    self.publisher.metrics.resent_items.inc_by(messages.len() as u64);
                    self.repairs = self.pack(messages, |_, _| None).into();
                }
                batch = self.reader.next_batch(self.publisher.config.read_bytes), if may_read => {
                    self.read(batch);
                }
                true = something_happened(&mut self.events), if !connected => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Takes a batch from the spool; where the disk refuses, the next attempt comes after a pause.
    fn read(&mut self, batch: Result<Vec<spool::Message>, spool::Error>) {
        match batch {
            Ok(messages) => {
                self.pending = self
                    .pack(messages, |unacked, message| {
                        Some(unacked.push((message.epoch, message.last())))
                    })
                    .into();
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "could not read the spool");
                self.read_at = Instant::now() + self.publisher.config.longest_pause;
            }
        }
    }

    fn pack(
        &mut self,
        messages: Vec<spool::Message>,
        slot: impl Fn(&mut Unacked<(Epoch, Sequence)>, &spool::Message) -> Option<Slot>,
    ) -> Vec<Outbound> {
        let limit = self.publisher.config.max_payload_bytes;
        let waiting: Vec<_> = messages
            .into_iter()
            .map(|message| {
                let kind = match message.subject {
                    Subject::Traffic { .. } => "record",
                    Subject::Body { .. } => "chunk",
                    Subject::Segment { .. } => "segments",
                    Subject::Gap => "gap",
                };
                self.publisher
                    .metrics
                    .published_items
                    .get_or_create(&kind.into())
                    .inc();
                Waiting {
                    slot: slot(&mut self.unacked, &message),
                    epoch: message.epoch,
                    last: message.last().0,
                    topic: self.cache.topic(&message.subject),
                    payload: message.payload,
                }
            })
            .collect();
        packer::pack(waiting, limit)
    }

    fn send_what_may_go(&mut self, now: Instant) -> Result<(), Error> {
        let most = usize::from(self.publisher.config.max_unacked);
        while now >= self.retry_at && self.in_flight.len() < most {
            let room = self.flow.room(now).is_none_or(|room| room > 0);
            if now >= self.next_repair
                && let Some(message) = self.repairs.pop_front()
            {
                let each = Duration::from_secs(1) / self.publisher.config.resend_per_second.max(1);
                self.next_repair = self.next_repair.max(now - each) + each;
                self.send(message)?;
            } else if room && let Some(message) = self.pending.pop_front() {
                self.flow.sent(message.epoch, message.last, now);
                self.linger_until = now + self.publisher.config.linger;
                self.send(message)?;
            } else {
                break;
            }
        }
        let in_flight = i64::try_from(self.in_flight.len()).unwrap_or(i64::MAX);
        self.publisher.metrics.unacked_messages.set(in_flight);
        Ok(())
    }

    fn send(&mut self, message: Outbound) -> Result<(), Error> {
        let config = &self.publisher.config;
        let payload = message.payload(config.compression);
        if payload.len() > config.max_payload_bytes && message.slots.len() == 1 {
            let gap = self.instead_of(message);
            return self.send(gap);
        }
        let metrics = &self.publisher.metrics;
        let bytes = payload.len() as u64;
        match self
            .client
            .try_publish(message.topic.to_string(), payload, QoS::AtLeastOnce)
        {
            Ok(token) => {
                metrics.published_messages.inc();
                metrics.published_bytes.inc_by(bytes);
                let delivery = async move {
                    let result = token.await;
                    (message, result)
                };
                self.in_flight.push(Box::pin(delivery));
                Ok(())
            }
            Err(error) => self.failed(message, error),
        }
    }

    fn delivered(&mut self, (message, result): Delivery) -> Result<(), Error> {
        if let Err(error) = result {
            return self.failed(message, error);
        }
        self.publisher.metrics.acked_messages.inc();
        self.pause = self.publisher.config.first_pause;
        for slot in message.slots.into_iter().flatten() {
            self.unacked.done(&[slot]);
        }
        let mut last: Option<(Epoch, Sequence)> = None;
        while let Some(position) = self.unacked.release() {
            if let Some((epoch, seq)) = last.filter(|(epoch, _)| *epoch != position.0) {
                self.heads.insert(epoch, seq.0);
            }
            last = Some(position);
        }
        if let Some((epoch, seq)) = last {
            self.publisher.spool.acknowledge(epoch, seq);
            self.heads.insert(epoch, seq.0);
            while self.heads.len() > HEADS_KEPT {
                self.heads.pop_first();
            }
            self.head_moved = true;
        }
        Ok(())
    }

    /// A message did not get through: again after a pause, in parts or as a gap where it is too large.
    fn failed(&mut self, message: Outbound, error: qproxy_mqtt::Error) -> Result<(), Error> {
        use qproxy_mqtt::Error as Mqtt;
        match error {
            Mqtt::Stopped | Mqtt::NotConnected | Mqtt::TakenOver(_) | Mqtt::Config(_) => {
                return Err(Error::Mqtt {
                    client_id: self.publisher.client_id.clone(),
                    server: self.publisher.endpoint.to_string(),
                    source: Box::new(error),
                });
            }
            Mqtt::TooLarge { .. } | Mqtt::Topic(_) if message.slots.len() == 1 => {
                let gap = self.instead_of(message);
                self.pending.push_front(gap);
            }
            Mqtt::TooLarge { .. } => {
                for part in message.split().into_iter().rev() {
                    self.pending.push_front(part);
                }
            }
            error => {
                tracing::debug!(%error, "message is published again");
                self.publisher.metrics.republished_messages.inc();
                self.pending.push_front(message);
                self.retry_at = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(self.publisher.config.longest_pause);
            }
        }
        Ok(())
    }

    /// The gap that settles an item which no message can hold.
    fn instead_of(&mut self, message: Outbound) -> Outbound {
        self.publisher.metrics.oversize_items.inc();
        tracing::warn!(
            topic = &*message.topic,
            seq = message.last,
            "item is larger than any message and is dropped"
        );
        let origin = Origin {
            node: self.publisher.node.clone(),
            epoch: message.epoch,
            seq: Sequence(message.last),
        };
        let gap = Item::Gap(Gap {
            origin,
            count: 1,
            reason: GapReason::Oversize,
        });
        let mut payload = Vec::new();
        wire::encode(&gap, &mut payload);
        message.replaced(self.cache.topic(&Subject::Gap), payload.into())
    }

    fn heard(&mut self, player: &NodeId, ack: Ack) {
        let (epoch, highest) = (Epoch(ack.epoch), ack.highest);
        let settled = Sequence(ack.watermark);
        match self.flow.heard(player, ack, Instant::now()) {
            Heard::Joined => {
                tracing::info!(%player, "player is there");
                self.recall_earlier_lives();
            }
            Heard::Known => {}
            Heard::Ignored => {
                self.publisher.metrics.players_ignored.inc();
            }
        }
        self.publisher.spool.confirm(epoch, settled);
        self.recall_head(epoch, highest);
    }

    /// A player lacks the end of an earlier life that was published whole: tell it where that ended.
    fn recall_head(&mut self, epoch: Epoch, highest: u64) {
        let spool = &self.publisher.spool;
        if epoch >= spool.epoch() || self.heads.contains_key(&epoch) {
            return;
        }
        let unsent = spool.stats().oldest_unsent;
        let end = spool.highest(epoch).filter(|end| end.0 > highest);
        if let Some(end) = end.filter(|_| unsent.is_none_or(|(oldest, _)| oldest > epoch)) {
            self.heads.insert(epoch, end.0);
            self.head_moved = true;
        }
    }

    /// A player that is new here may lack earlier lives altogether and cannot name them: tell it where they ended,
    /// as far as the broker has them.
    fn recall_earlier_lives(&mut self) {
        let spool = &self.publisher.spool;
        let unsent = spool.stats().oldest_unsent;
        for (epoch, end) in spool.earlier_lives(HEADS_KEPT - 1) {
            if unsent.is_none_or(|(oldest, _)| oldest > epoch) {
                self.heads.entry(epoch).or_insert(end.0);
                self.head_moved = true;
            }
        }
    }

    fn tell_head(&mut self, now: Instant) {
        let config = &self.publisher.config;
        if now < self.head_due {
            return;
        }
        if self.head_moved || now >= self.head_due + config.head_idle {
            let topic = self.publisher.topics.head(&self.publisher.node);
            for (epoch, highest) in &self.heads {
                let head = Head {
                    epoch: epoch.0,
                    highest: *highest,
                };
                // Told again in a moment if it is lost; QoS 0 is meant for that.
                let _ =
                    self.client
                        .try_publish(topic.clone(), notice::write(&head), QoS::AtMostOnce);
            }
            self.head_moved = false;
            self.head_due = now + config.head_interval;
        }
        self.show(now);
    }

    fn show(&self, now: Instant) {
        let stats = self.publisher.spool.stats();
        let head = self.heads.get(&stats.epoch).copied().unwrap_or(0);
        let players: Vec<_> = self
            .flow
            .players(stats.epoch, now)
            .into_iter()
            .map(|player| {
                let watermark = player.ack.map_or(0, |ack| ack.watermark);
                PlayerStatus {
                    player: player.player.to_string(),
                    watermark,
                    lag: head.saturating_sub(watermark),
                    ahead: player.ahead,
                    live: player.live,
                }
            })
            .collect();
        let lag = players.iter().filter(|p| p.live).map(|p| p.lag).max();
        let lag = i64::try_from(lag.unwrap_or(0)).unwrap_or(i64::MAX);
        self.publisher.metrics.player_lag.set(lag);
        *self.publisher.status.lock() = RecorderStatus {
            epoch: stats.epoch.0,
            highest: stats.highest.0,
            acknowledged: head,
            unsent: stats.unsent,
            in_flight: self.in_flight.len(),
            connected: self.client.is_connected(),
            players,
        };
    }

    /// When there is something to do without anybody saying so; `reads_later` where only time keeps it from reading.
    fn next_wake(&self, now: Instant, reads_later: bool) -> Instant {
        let config = &self.publisher.config;
        let mut wake = if now < self.head_due {
            self.head_due
        } else {
            (self.head_due + config.head_idle).min(now + config.head_interval)
        };
        if reads_later {
            wake = wake.min(self.linger_until.max(self.read_at));
        }
        // With the window full only a delivery makes room, and that wakes us by itself.
        let full = self.in_flight.len() >= usize::from(config.max_unacked);
        if !self.repairs.is_empty() && !full {
            wake = wake.min(self.next_repair.max(self.retry_at));
        }
        if !self.pending.is_empty() {
            let held = self.flow.room(now) == Some(0);
            let opens = self.flow.next_timeout(now).filter(|_| held);
            wake = wake.min(opens.unwrap_or(wake));
            if self.retry_at > now {
                wake = wake.min(self.retry_at);
            }
        }
        wake
    }

    /// Waits for what the broker was handed, so that the next start repeats little.
    pub(super) async fn drain(&mut self) {
        let until = Instant::now() + self.publisher.config.drain;
        while !self.in_flight.is_empty() {
            tokio::select! {
                Some(delivery) = self.in_flight.next() => {
                    if self.delivered(delivery).is_err() {
                        return;
                    }
                }
                () = sleep_until(until) => return,
            }
        }
        self.head_due = Instant::now();
        self.tell_head(self.head_due);
    }
}

/// Waits until the connection may have changed; `false` where it never will again.
async fn something_happened(events: &mut broadcast::Receiver<Event>) -> bool {
    !matches!(
        events.recv().await,
        Err(broadcast::error::RecvError::Closed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Spool;
    use crate::sync::{Endpoint, Metrics, PublisherConfig, Topics};

    fn publisher(folder: &tempfile::TempDir, config: PublisherConfig) -> Publisher {
        let node = NodeId::new("rec").unwrap();
        let spool = spool::Config::new(folder.path(), node.clone());
        let spool = Spool::open(spool, spool::Metrics::default()).unwrap();
        let endpoint = Endpoint::new("127.0.0.1", 1);
        let topics = Topics::new("q").unwrap();
        let metrics = Metrics::default();
        Publisher::new(config, endpoint, node, topics, spool, metrics).0
    }

    fn running(publisher: &mut Publisher) -> Running<'_> {
        let client = MqttClient::new(publisher.endpoint.client_config("r".to_owned()));
        let reader = publisher.spool.reader().unwrap();
        Running::new(publisher, client, reader)
    }

    fn outbound() -> Outbound {
        let waiting = Waiting {
            slot: None,
            epoch: Epoch(1),
            last: 1,
            topic: "q/gap/rec".into(),
            payload: vec![0].into(),
        };
        packer::pack(vec![waiting], 100).remove(0)
    }

    #[tokio::test]
    async fn a_full_window_is_not_woken_for_resends() {
        let folder = tempfile::tempdir().unwrap();
        let config = PublisherConfig {
            max_unacked: 1,
            ..PublisherConfig::default()
        };
        let mut publisher = publisher(&folder, config);
        let mut running = running(&mut publisher);
        let now = Instant::now();
        running.head_due = now + Duration::from_secs(1);
        running.repairs.push_back(outbound());
        assert!(running.next_wake(now, false) <= now);
        running.in_flight.push(Box::pin(std::future::pending()));
        assert_eq!(running.next_wake(now, false), running.head_due);
    }

    #[tokio::test]
    async fn an_idle_recorder_tells_a_head() {
        let folder = tempfile::tempdir().unwrap();
        let mut publisher = publisher(&folder, PublisherConfig::default());
        let running = running(&mut publisher);
        let epoch = running.publisher.spool.epoch();
        assert_eq!(running.heads.get(&epoch), Some(&0));
        assert!(running.head_moved);
    }
}
