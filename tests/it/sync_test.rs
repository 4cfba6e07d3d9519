//! The bus end to end, over a real Mosquitto: spool -> publisher -> broker -> subscriber -> store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use qproxy::mqtt_client::client::MqttClient;
use qproxy::mqtt_client::message::QoS;
use qproxy::record::{
    Body, ConnectionId, Epoch, Exchange, Fingerprint, FingerprintRules, Gap, GapReason, Headers,
    IdSource, Item, NodeId, Origin, Outcome, Protocol, Record, RecordId, Request, Response,
    SegmentBatch, Sequence, Side, Subject, Timing, wire,
};
use qproxy::spool::{self, Spool};
use qproxy::store::embedded::Embedded;
use qproxy::store::{self, Store};
use qproxy::sync::{
    Compression, Control, Endpoint, LifeStatus, LiveSettings, Metrics, Presence, Publisher,
    PublisherConfig, PublisherHandle, RepairConfig, Roles, State, Station, StationHandle,
    Subscriber, SubscriberConfig, SubscriberHandle, Topics,
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::eventually;
use crate::support::mosquitto::{Mosquitto, Options};

const RECORDER: &str = "rec";
const PLAYER: &str = "play";

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn topics() -> Topics {
    Topics::new("qproxy").unwrap()
}

/// What a test tells a node to do, noted.
#[derive(Default)]
struct Told {
    pauses: AtomicUsize,
    settings: Mutex<Vec<LiveSettings>>,
}

impl Control for Told {
    fn status(&self) -> serde_json::Value {
        serde_json::json!({ "here": true })
    }

    fn pause(&self) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
    }

    fn resume(&self) {}

    fn apply(&self, settings: LiveSettings) {
        self.settings.lock().push(settings);
    }
}

/// Tasks of one node, stopped together.
struct Tasks {
    stop: CancellationToken,
    tasks: JoinSet<Result<(), qproxy::sync::Error>>,
}

impl Tasks {
    fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}

fn station(endpoint: &Endpoint, name: &str) -> (Station, StationHandle) {
    let presence = Presence {
        node: name.to_owned(),
        state: State::Online,
        mode: "test".to_owned(),
        version: "0".to_owned(),
        epoch: 0,
        addresses: Vec::new(),
        since: String::new(),
    };
    let metrics = Metrics::default();
    Station::new(endpoint.clone(), topics(), node(name), presence, metrics)
}

struct Recorder {
    spool: Spool,
    handle: PublisherHandle,
    station: StationHandle,
    told: Arc<Told>,
    metrics: Metrics,
    next: u64,
    ids: IdSource,
    tasks: Tasks,
}

impl Recorder {
    fn start(endpoint: &Endpoint, directory: &TempDir, config: PublisherConfig) -> Self {
        let spool = spool::Config::new(directory.path().join("spool"), node(RECORDER));
        let spool = Spool::open(spool, spool::Metrics::default()).unwrap();
        let metrics = Metrics::default();
        let (mut publisher, handle) = Publisher::new(
            config,
            endpoint.clone(),
            node(RECORDER),
            topics(),
            spool.clone(),
            metrics.clone(),
        );
        let (bus, station) = station(endpoint, RECORDER);
        let told = Arc::new(Told::default());
        let roles = Roles {
            control: told.clone(),
            publisher: Some(handle.clone()),
        };
        let mut tasks = Tasks::new();
        let stop = tasks.stop.clone();
        tasks.tasks.spawn(async move { publisher.run(stop).await });
        let stop = tasks.stop.clone();
        tasks.tasks.spawn(async move { bus.run(roles, stop).await });
        Self {
            spool,
            handle,
            station,
            told,
            metrics,
            next: 1,
            ids: IdSource::default(),
            tasks,
        }
    }

    fn record(&mut self, count: u64) {
        let messages: Vec<_> = (0..count)
            .map(|_| {
                let message = message(self.spool.epoch(), self.next, 200, &self.ids);
                self.next += 1;
                message
            })
            .collect();
        self.spool.append(&messages).unwrap();
    }
}

struct Player {
    store: Arc<Embedded>,
    store_is: Arc<Moody>,
    handle: SubscriberHandle,
    station: StationHandle,
    metrics: Metrics,
    tasks: Tasks,
}

impl Player {
    fn start(endpoint: &Endpoint, directory: &TempDir) -> Self {
        let config = store::embedded::Config::new(directory.path().join("store"));
        let store = Arc::new(Embedded::open(config, store::Metrics::default()).unwrap());
        let store_is = Arc::new(Moody {
            inner: store.clone(),
            full: AtomicBool::new(false),
            too_small: AtomicBool::new(false),
            largest: AtomicUsize::new(0),
        });
        let (bus, station) = station(endpoint, PLAYER);
        let metrics = Metrics::default();
        let config = SubscriberConfig {
            tick: Duration::from_millis(50),
            repair: RepairConfig {
                gap_delay: Duration::from_millis(300),
                first_pause: Duration::from_millis(300),
                ..RepairConfig::default()
            },
            ..SubscriberConfig::default()
        };
        let (subscriber, handle) = Subscriber::new(
            config,
            endpoint.clone(),
            node(PLAYER),
            topics(),
            store_is.clone(),
            station.client(),
            FingerprintRules::default(),
            metrics.clone(),
        );
        let roles = Roles {
            control: Arc::new(Told::default()),
            publisher: None,
        };
        let mut tasks = Tasks::new();
        let stop = tasks.stop.clone();
        tasks.tasks.spawn(async move { subscriber.run(stop).await });
        let stop = tasks.stop.clone();
        tasks.tasks.spawn(async move { bus.run(roles, stop).await });
        Self {
            store,
            store_is,
            handle,
            station,
            metrics,
            tasks,
        }
    }

    fn life(&self, epoch: Epoch) -> Option<LifeStatus> {
        let status = self.handle.status();
        status
            .recorders
            .into_iter()
            .find(|life| life.epoch == epoch.0)
    }

    async fn has(&self, epoch: Epoch, highest: u64) -> LifeStatus {
        let what = format!("player settles all up to {highest}");
        eventually(&what, || async {
            self.life(epoch)
                .is_some_and(|life| life.watermark == highest && life.missing == 0)
        })
        .await;
        self.life(epoch).unwrap()
    }
}

fn exchange(epoch: Epoch, seq: u64, body: usize, ids: &IdSource) -> Item {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let started_us = i64::try_from(now.as_micros()).unwrap();
    Item::Record(Record::Exchange(Box::new(Exchange {
        id: ids.next_id(started_us),
        origin: Origin {
            node: node(RECORDER),
            epoch,
            seq: Sequence(seq),
        },
        service: "shop".into(),
        protocol: Protocol::Http1,
        connection: ConnectionId(1),
        client: "127.0.0.1:5".into(),
        upstream: None,
        tls: None,
        timing: Timing {
            started_us,
            ..Timing::default()
        },
        request: Request {
            method: "GET".into(),
            target: format!("/{seq}").into(),
            version: "HTTP/1.1".into(),
            headers: Headers::default(),
            body: Body::empty(),
            trailers: Headers::default(),
        },
        response: Some(Response {
            status: 200,
            headers: Headers::default(),
            body: Body::inline(Bytes::from(vec![b'x'; body])),
            trailers: Headers::default(),
            informational: Vec::new(),
        }),
        outcome: Outcome::Ok,
        flow: qproxy::record::Flow::default(),
        stream: None,
        redactions: Vec::new(),
    })))
}

/// The exchange number `seq`; every seventh is a 500, so that there are several topics.
fn message(epoch: Epoch, seq: u64, body: usize, ids: &IdSource) -> spool::Message {
    let status = if seq.is_multiple_of(7) { "500" } else { "200" };
    spool::Message {
        epoch,
        seq: Sequence(seq),
        span: 1,
        subject: Subject::Traffic {
            service: "shop".into(),
            protocol: "http".into(),
            method: "GET".into(),
            status: status.into(),
        },
        payload: encoded(&exchange(epoch, seq, body, ids)),
    }
}

fn encoded(item: &Item) -> Bytes {
    let mut payload = Vec::new();
    wire::encode(item, &mut payload);
    payload.into()
}

async fn records(store: &Embedded) -> u64 {
    store.stats().await.unwrap().records
}

/// A store that refuses while it is told to, and else is the embedded one.
struct Moody {
    inner: Arc<Embedded>,
    full: AtomicBool,
    /// It takes no batch that holds anything.
    too_small: AtomicBool,
    /// The bytes of the largest batch so far.
    largest: AtomicUsize,
}

#[async_trait::async_trait]
impl Store for Moody {
    async fn put(&self, batch: store::Batch) -> Result<store::Receipt, store::Error> {
        let bytes = batch.arrivals.iter().map(|item| item.decoded.raw.len());
        self.largest.fetch_max(bytes.sum(), Ordering::Relaxed);
        if self.full.load(Ordering::Relaxed) {
            return Err(store::Error::Full("no room, says the test".to_owned()));
        }
        if self.too_small.load(Ordering::Relaxed) && !batch.arrivals.is_empty() {
            return Err(store::Error::TooLarge {
                path: "a test".into(),
                source: "it is too large".into(),
            });
        }
        self.inner.put(batch).await
    }

    async fn get(&self, id: RecordId) -> Result<Option<Record>, store::Error> {
        self.inner.get(id).await
    }

    async fn delete(&self, id: RecordId) -> Result<bool, store::Error> {
        self.inner.delete(id).await
    }

    async fn list(&self, query: &store::Query) -> Result<store::Page, store::Error> {
        self.inner.list(query).await
    }

    async fn lookup(
        &self,
        fingerprint: Fingerprint,
        limit: usize,
    ) -> Result<Vec<RecordId>, store::Error> {
        self.inner.lookup(fingerprint, limit).await
    }

    async fn newest(
        &self,
        fingerprint: Fingerprint,
        limit: usize,
    ) -> Result<Vec<RecordId>, store::Error> {
        self.inner.newest(fingerprint, limit).await
    }

    async fn chunk(
        &self,
        id: RecordId,
        side: Side,
        index: u32,
    ) -> Result<Option<Bytes>, store::Error> {
        self.inner.chunk(id, side, index).await
    }

    async fn segments(
        &self,
        id: RecordId,
        index: u32,
    ) -> Result<Option<SegmentBatch>, store::Error> {
        self.inner.segments(id, index).await
    }

    async fn settled(&self) -> Result<Vec<store::Settled>, store::Error> {
        self.inner.settled().await
    }

    async fn expire(&self, now_us: i64) -> Result<store::Expired, store::Error> {
        self.inner.expire(now_us).await
    }

    async fn stats(&self) -> Result<store::Stats, store::Error> {
        self.inner.stats().await
    }

    async fn close(&self) -> Result<(), store::Error> {
        self.inner.close().await
    }
}

struct Rig {
    broker: Mosquitto,
    endpoint: Endpoint,
    recorder: TempDir,
    player: TempDir,
}

impl Rig {
    async fn start() -> Self {
        let options = Options {
            persistence: true,
            ..Options::default()
        };
        let broker = Mosquitto::start(options).await;
        let endpoint = Endpoint::new("127.0.0.1", broker.config("x").port);
        Self {
            broker,
            endpoint,
            recorder: TempDir::new().unwrap(),
            player: TempDir::new().unwrap(),
        }
    }

    fn recorder(&self) -> Recorder {
        Recorder::start(&self.endpoint, &self.recorder, PublisherConfig::default())
    }

    fn player(&self) -> Player {
        Player::start(&self.endpoint, &self.player)
    }

    async fn outsider(&self) -> MqttClient {
        let client = MqttClient::new(self.broker.config("outsider"));
        client.connect().await.unwrap();
        client
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_items_arrive_once_each_and_the_spool_is_released() {
    let rig = Rig::start().await;
    let player = rig.player();
    let config = PublisherConfig {
        compression: Compression::Zstd,
        ..PublisherConfig::default()
    };
    let mut recorder = Recorder::start(&rig.endpoint, &rig.recorder, config);
    for _ in 0..50 {
        recorder.record(100);
    }
    let life = player.has(recorder.spool.epoch(), 5000).await;
    assert_eq!((life.stored, life.dropped, life.lost), (5000, 0, 0));
    assert_eq!(records(&player.store).await, 5000);
    eventually(
        "the spool is released and the player's acknowledgement heard",
        || async {
            let status = recorder.handle.status();
            let caught_up = status
                .players
                .first()
                .is_some_and(|p| p.watermark == 5000 && p.live);
            status.acknowledged == 5000 && status.unsent == 0 && caught_up
        },
    )
    .await;
    let published = recorder.metrics.published_messages.get();
    assert!(published < 5000, "{published} messages: nothing was packed");
    assert_eq!(recorder.metrics.acked_messages.get(), published);
    recorder.tasks.stop().await;
    player.tasks.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_restart_in_the_middle_loses_nothing() {
    let mut rig = Rig::start().await;
    let player = rig.player();
    let mut recorder = rig.recorder();
    recorder.record(500);
    eventually("the first arrive", || async {
        records(&player.store).await > 0
    })
    .await;
    rig.broker.stop();
    recorder.record(500);
    rig.broker.launch().await;
    recorder.record(500);
    let life = player.has(recorder.spool.epoch(), 1500).await;
    assert_eq!((life.stored, life.lost), (1500, 0));
    assert_eq!(records(&player.store).await, 1500);
    recorder.tasks.stop().await;
    player.tasks.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_restarts_goes_on_where_it_was() {
    let rig = Rig::start().await;
    let mut recorder = rig.recorder();
    let player = rig.player();
    recorder.record(300);
    let epoch = recorder.spool.epoch();
    player.has(epoch, 300).await;
    player.tasks.stop().await;
    player.store.close().await.unwrap();
    recorder.record(300);
    let player = rig.player();
    let life = player.has(epoch, 600).await;
    assert_eq!((life.stored, life.lost), (600, 0));
    assert_eq!(records(&player.store).await, 600);
    recorder.tasks.stop().await;
    player.tasks.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_that_comes_late_fills_in_from_the_spool() {
    let rig = Rig::start().await;
    let mut recorder = rig.recorder();
    recorder.record(2500);
    eventually("the broker has taken all", || async {
        recorder.handle.status().acknowledged == 2500
    })
    .await;
    let player = rig.player();
    let life = player.has(recorder.spool.epoch(), 2500).await;
    assert_eq!((life.stored, life.lost), (2500, 0));
    assert_eq!(records(&player.store).await, 2500);
    assert!(recorder.metrics.resent_items.get() >= 2500);
    recorder.tasks.stop().await;
    player.tasks.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_spool_does_not_have_is_lost_and_what_was_dropped_is_told() {
    let rig = Rig::start().await;
    let recorder = rig.recorder();
    let player = rig.player();
    let outsider = rig.outsider().await;
    // An earlier life, of which the recorder has nothing: 1 to 4 missing, 5 there, 6 to 8 dropped.
    let old = Epoch(3);
    let origin = Origin {
        node: node(RECORDER),
        epoch: old,
        seq: Sequence(6),
    };
    let gap = Item::Gap(Gap {
        origin,
        count: 3,
        reason: GapReason::CaptureOverload,
    });
    let payload = [
        encoded(&exchange(old, 5, 10, &IdSource::default())),
        encoded(&gap),
    ];
    eventually("player is connected", || async {
        player.handle.status().connected
    })
    .await;
    let topic = topics().items(&node(RECORDER), &Subject::Gap);
    outsider
        .publish(topic, payload.concat(), QoS::AtLeastOnce)
        .await
        .unwrap();
    let life = player.has(old, 8).await;
    assert_eq!((life.stored, life.dropped, life.lost), (1, 3, 4));
    assert_eq!(player.metrics.lost.get(), 4);
    let settled = player.store.settled().await.unwrap();
    let coverage = &settled.iter().find(|s| s.epoch == old).unwrap().coverage;
    assert_eq!((coverage.watermark(), coverage.lost()), (8, 4));
    recorder.tasks.stop().await;
    player.tasks.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_is_back_pressure_not_loss() {
    let rig = Rig::start().await;
    let player = rig.player();
    player.store_is.full.store(true, Ordering::Relaxed);
    let mut recorder = rig.recorder();
    recorder.record(50);
    eventually("the status says why nothing is stored", || async {
        let blocked = player.handle.status().blocked;
        blocked.is_some_and(|why| why.contains("no room"))
    })
    .await;
    assert_eq!(records(&player.store).await, 0);
    player.store_is.full.store(false, Ordering::Relaxed);
    let life = player.has(recorder.spool.epoch(), 50).await;
    assert_eq!((life.stored, life.lost), (50, 0));
    assert_eq!(records(&player.store).await, 50);
    assert_eq!(player.handle.status().blocked, None);
    recorder.tasks.stop().await;
    player.tasks.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_quarantined_and_stops_nothing() {
    let rig = Rig::start().await;
    let player = rig.player();
    eventually("player is connected", || async {
        player.handle.status().connected
    })
    .await;
    let outsider = rig.outsider().await;
    let foreign = encoded(&exchange(Epoch(1), 1, 10, &IdSource::default()));
    for (topic, payload) in [
        (
            "qproxy/traffic/rec/shop/http/GET/200",
            Bytes::from_static(b"\xc1garbage"),
        ),
        ("qproxy/traffic/other/shop/http/GET/200", foreign),
        ("qproxy/head/rec", Bytes::from_static(b"{}")),
    ] {
        outsider
            .publish(topic, payload, QoS::AtLeastOnce)
            .await
            .unwrap();
    }
    let mut recorder = rig.recorder();
    recorder.record(10);
    player.has(recorder.spool.epoch(), 10).await;
    let quarantine = player.handle.status().quarantine;
    assert_eq!((quarantine.len(), player.metrics.quarantined.get()), (3, 3));
    assert!(
        quarantine[1].reason.contains("`rec`"),
        "{}",
        quarantine[1].reason
    );
    recorder.tasks.stop().await;
    player.tasks.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_unpacks_to_too_much_is_refused_once_and_its_places_are_lost() {
    const BOMB_BYTES: usize = 64 << 20;
    let rig = Rig::start().await;
    let player = rig.player();
    eventually("player is connected", || async {
        player.handle.status().connected
    })
    .await;
    let outsider = rig.outsider().await;
    let (epoch, ids) = (Epoch(1), IdSource::default());
    let topic = "qproxy/traffic/rec/shop/http/GET/200";
    for (seq, packing) in [(1, Compression::Zstd), (2, Compression::Lz4)] {
        let bomb = packing.pack(encoded(&exchange(epoch, seq, BOMB_BYTES, &ids)).to_vec());
        assert!(bomb.len() < BOMB_BYTES / 200, "{} bytes", bomb.len());
        let sent = outsider.publish(topic, bomb, QoS::AtLeastOnce).await;
        sent.unwrap();
    }
    let small = encoded(&exchange(epoch, 3, 10, &ids));
    let sent = outsider.publish(topic, small, QoS::AtLeastOnce).await;
    sent.unwrap();

    let life = player.has(epoch, 3).await;
    assert_eq!((life.stored, life.lost, life.missing), (1, 2, 0));
    assert_eq!(records(&player.store).await, 1);
    assert_eq!(player.metrics.too_large.get(), 2);
    let quarantine = player.handle.status().quarantine;
    let said = |at: usize| quarantine[at].reason.contains("unpacks to more than");
    assert!(
        said(0) && said(1) && quarantine.len() == 2,
        "{quarantine:?}"
    );
    eventually("the losses are committed", || async {
        let settled = player.store.settled().await.unwrap();
        settled.iter().any(|life| life.coverage.lost() == 2)
    })
    .await;

    let mut recorder = rig.recorder();
    recorder.record(10);
    player.has(recorder.spool.epoch(), 10).await;
    assert_eq!(player.metrics.too_large.get(), 2, "none comes again");
    recorder.tasks.stop().await;
    player.tasks.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_store_takes_is_lost_and_not_tried_for_ever() {
    let rig = Rig::start().await;
    let player = rig.player();
    player.store_is.too_small.store(true, Ordering::Relaxed);
    let mut recorder = rig.recorder();
    recorder.record(20);
    let life = player.has(recorder.spool.epoch(), 20).await;
    assert_eq!((life.stored, life.lost), (0, 20));
    player.store_is.too_small.store(false, Ordering::Relaxed);
    recorder.record(10);
    let life = player.has(recorder.spool.epoch(), 30).await;
    assert_eq!((life.stored, life.lost), (10, 20));
    assert_eq!(records(&player.store).await, 10);
    assert_eq!(player.metrics.lost.get(), 20);
    recorder.tasks.stop().await;
    player.tasks.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_messages_that_unpack_to_much_is_stored_part_by_part() {
    const BODY_BYTES: usize = 12 << 20;
    let rig = Rig::start().await;
    let player = rig.player();
    eventually("player is connected", || async {
        player.handle.status().connected
    })
    .await;
    // What waits at the store piles up in front of it, packed.
    player.store_is.full.store(true, Ordering::Relaxed);
    let outsider = rig.outsider().await;
    let (epoch, ids) = (Epoch(1), IdSource::default());
    for seq in 1..=12 {
        let item = encoded(&exchange(epoch, seq, BODY_BYTES, &ids));
        let packed = Compression::Zstd.pack(item.to_vec());
        let topic = "qproxy/traffic/rec/shop/http/GET/200";
        let sent = outsider.publish(topic, packed, QoS::AtLeastOnce).await;
        sent.unwrap();
    }
    player.store_is.full.store(false, Ordering::Relaxed);
    let life = player.has(epoch, 12).await;
    assert_eq!((life.stored, life.lost), (12, 0));
    let largest = player.store_is.largest.load(Ordering::Relaxed);
    assert!(largest <= 48 << 20, "a batch of {largest} bytes");
    player.tasks.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_too_large_for_any_message_becomes_a_counted_gap() {
    let rig = Rig::start().await;
    let player = rig.player();
    let mut recorder = rig.recorder();
    recorder.record(1);
    let large = message(recorder.spool.epoch(), 2, 100_000, &recorder.ids);
    recorder.spool.append(&[large]).unwrap();
    recorder.next = 3;
    recorder.record(1);
    let life = player.has(recorder.spool.epoch(), 3).await;
    assert_eq!((life.stored, life.dropped), (2, 1));
    assert_eq!(recorder.metrics.oversize_items.get(), 1);
    recorder.tasks.stop().await;
    player.tasks.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_see_each_other_take_calls_and_live_settings() {
    let rig = Rig::start().await;
    let recorder = rig.recorder();
    let player = rig.player();
    let state_of = |name: &'static str, nodes: Vec<Presence>| {
        nodes.into_iter().find(|p| p.node == name).map(|p| p.state)
    };
    eventually("both are online", || async {
        state_of(RECORDER, player.station.nodes()) == Some(State::Online)
            && state_of(PLAYER, recorder.station.nodes()) == Some(State::Online)
    })
    .await;
    let outsider = rig.outsider().await;
    let status = outsider.query("qproxy/node/rec/status", "").await.unwrap();
    assert_eq!(status, r#"{"here":true}"#);
    outsider.query("qproxy/node/rec/pause", "").await.unwrap();
    assert_eq!(recorder.told.pauses.load(Ordering::Relaxed), 1);
    let refused = outsider
        .query("qproxy/node/rec/resend", "{}")
        .await
        .unwrap_err();
    assert!(matches!(
        refused,
        qproxy::mqtt_client::Error::Query(qproxy::mqtt_client::error::QueryError::Failed(_))
    ));
    for settings in ["no json", r#"{"enabled":false}"#] {
        outsider
            .publish("qproxy/config/_all", settings, QoS::AtLeastOnce)
            .await
            .unwrap();
    }
    eventually("settings arrive", || async {
        !recorder.told.settings.lock().is_empty()
    })
    .await;
    assert_eq!(recorder.told.settings.lock()[0].enabled, Some(false));
    recorder.tasks.stop().await;
    eventually("the recorder has said goodbye", || async {
        state_of(RECORDER, player.station.nodes()) == Some(State::Offline)
    })
    .await;
    player.tasks.stop().await;
}
