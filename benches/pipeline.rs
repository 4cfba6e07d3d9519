//! What the way from a captured exchange to the player's disk takes, without any HTTP: exchanges of a 1 KiB answer
//! go through capture -> spool -> publisher -> broker -> a player in another process -> its store.
//!
//! Once over Mosquitto and once over the embedded broker, each at a fixed 20,000 exchanges a second, and as fast
//! as it goes while at most a few thousand wait for the broker. Prints lines `RATIO name value target`;
//! `cargo bench --bench pipeline`. Needs mosquitto and curl.
//!
//! The recorder's parts run in this process, joined as `app` joins them, so that each thread's share can be told.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails where it stands"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio_util::sync::CancellationToken;

use qproxy::capture::{self, Capture, Connection, Encoded, Outlet, OutletError};
use qproxy::record::{ConnectionId, Epoch, NodeId, Outcome, Protocol};
use qproxy::spool::{self, Spool};
use qproxy::sync::{
    Control, Endpoint, LiveSettings, Metrics, Presence, Publisher, PublisherConfig,
    PublisherHandle, Roles, State, Station, Topics,
};

use support::{Running, Scratch, ask, free_port, mosquitto, own, player, ticks, wait};

/// The allocator of `qproxy`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The rate of the paced run, exchanges per second.
const RATE: u32 = 20_000;
/// How many numbers may wait for the broker in the run without a rate.
const MOST_UNSENT: u64 = 4_000;
/// How many exchanges are handed over between two looks at the clock.
const BURST: u32 = 100;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("--broker") => embedded_broker(),
        _ => compare(),
    }
}

fn embedded_broker() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = broker_mock::Config::new("127.0.0.1:0".parse().unwrap());
        let broker = broker_mock::Broker::bind(config).await.unwrap();
        support::listens_on(broker.local_addr());
        std::future::pending::<()>().await;
    });
}

fn compare() {
    let seconds = std::env::var("BENCH_SECONDS").map_or(8, |text| text.parse().unwrap());
    let lasting = Duration::from_secs(seconds);
    let scratch = Scratch::new();
    let (process, port) = mosquitto(scratch.path());
    measure("mosquitto", scratch.path(), process, port, lasting);
    let (process, port) = own(scratch.path(), "broker", &["--broker"]);
    measure("embedded", scratch.path(), process, port, lasting);
}

fn measure(name: &str, folder: &Path, broker: Running, port: u16, lasting: Duration) {
    let api = free_port();
    let player = player(folder, &format!("player-{name}"), port, api);
    let recorder = Recorder::start(&folder.join(format!("spool-{name}")), port);
    let bench = Bench {
        broker,
        player,
        api,
        recorder,
    };
    bench.run(Some(RATE), Duration::from_secs(1));
    println!("{name}");
    let paced = bench.run(Some(RATE), lasting);
    paced.show("20,000/s");
    let most = bench.run(None, lasting);
    most.show("as it goes");
    bench.books();
    println!(
        "RATIO pipeline_exchanges_per_second_{name} {:.0} >=20000",
        most.per_second
    );
    println!(
        "RATIO pipeline_dropped_{name} {} <=0",
        paced.dropped + most.dropped
    );
}

/// The recorder's half without its proxy.
struct Recorder {
    capture: Capture,
    spool: Spool,
    publisher: PublisherHandle,
    _runtime: tokio::runtime::Runtime,
}

impl Recorder {
    fn start(folder: &Path, port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("publisher")
            .enable_all()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        let node = NodeId::new("recorder").unwrap();
        let spool = spool::Config::new(folder, node.clone());
        let spool = Spool::open(spool, spool::Metrics::default()).unwrap();
        let config = capture::Config::new(node.clone());
        let outlet = Box::new(SpoolOutlet(spool.clone()));
        let capture = Capture::start(config, capture::Metrics::default(), outlet).unwrap();
        let endpoint = Endpoint::new("127.0.0.1", port);
        let topics = Topics::new("qproxy").unwrap();
        let metrics = Metrics::default();
        let presence = Presence {
            node: node.to_string(),
            state: State::Online,
            mode: "record".into(),
            version: "0".into(),
            epoch: spool.epoch().0,
            addresses: Vec::new(),
            since: "0".into(),
        };
        let (station, _) = Station::new(
            endpoint.clone(),
            topics.clone(),
            node.clone(),
            presence,
            metrics.clone(),
        );
        let config = PublisherConfig::default();
        let (mut publisher, handle) =
            Publisher::new(config, endpoint, node, topics, spool.clone(), metrics);
        let roles = Roles {
            control: Arc::new(Deaf),
            publisher: Some(handle.clone()),
        };
        let never = CancellationToken::new();
        let stop = never.clone();
        runtime.spawn(async move { station.run(roles, stop).await });
        runtime.spawn(async move { publisher.run(never).await });
        drop(_inside);
        Self {
            capture,
            spool,
            publisher: handle,
            _runtime: runtime,
        }
    }

    fn captured(&self) -> u64 {
        self.capture.stats().sequence
    }

    fn dropped(&self) -> u64 {
        self.capture.stats().dropped.iter().sum()
    }

    fn stored(&self) -> u64 {
        let status = self.publisher.status();
        status.players.first().map_or(0, |player| player.watermark)
    }
}

/// Takes no calls.
struct Deaf;

impl Control for Deaf {
    fn status(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    fn pause(&self) {}
    fn resume(&self) {}
    fn apply(&self, _: LiveSettings) {}
}

struct SpoolOutlet(Spool);

impl Outlet for SpoolOutlet {
    fn epoch(&self) -> Epoch {
        self.0.epoch()
    }

    fn append(&mut self, batch: &[Encoded]) -> Result<(), OutletError> {
        let epoch = self.0.epoch();
        let message = |encoded: &Encoded| spool::Message {
            epoch,
            seq: encoded.seq,
            span: encoded.span,
            subject: encoded.subject.clone(),
            payload: encoded.payload.clone(),
        };
        let messages: Vec<_> = batch.iter().map(message).collect();
        let appended = self.0.append(&messages);
        appended.map_err(|error| OutletError(Box::new(error)))
    }
}

/// What a proxy hands over for one exchange.
struct Traffic {
    connection: Arc<Connection>,
    request: http::request::Parts,
    headers: HeaderMap,
    content: Bytes,
    upstream: Arc<str>,
}

impl Traffic {
    fn new() -> Self {
        let request = http::Request::get("/").header("host", "127.0.0.1:8080");
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "text/plain"),
            ("content-length", "1024"),
            ("date", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Self {
            connection: Arc::new(Connection {
                id: ConnectionId(1),
                service: "http".into(),
                client: "127.0.0.1:50000".into(),
                protocol: Protocol::Http1,
                tls: None,
            }),
            request: request.body(()).unwrap().into_parts().0,
            headers,
            content: vec![b'x'; 1024].into(),
            upstream: "http://127.0.0.1:8081".into(),
        }
    }

    fn pass(&self, capture: &Capture) {
        let tee = capture.begin(&self.connection, &self.request);
        let tee =
            tee.and_then(|tee| tee.respond(StatusCode::OK, &self.headers, Some(&self.upstream)));
        if let Some(mut tee) = tee {
            tee.data(&self.content);
            tee.end(Outcome::Ok);
        }
    }
}

struct Bench {
    broker: Running,
    player: Running,
    api: u16,
    recorder: Recorder,
}

struct Outcomes {
    exchanges: u64,
    per_second: f64,
    dropped: u64,
    /// CPU per exchange in microseconds, by process and thread.
    cpu: BTreeMap<String, f64>,
    player_mib: f64,
}

impl Bench {
    fn run(&self, rate: Option<u32>, lasting: Duration) -> Outcomes {
        let recorder = &self.recorder;
        let (before, dropped) = (self.cpu(), recorder.dropped());
        let first = recorder.captured();
        let start = Instant::now();
        let load = std::thread::scope(|scope| {
            let load = scope.spawn(|| load_capture(recorder, rate, lasting));
            load.join().unwrap()
        });
        let captured = recorder.captured();
        wait("everything stored", || {
            let captured = recorder.captured();
            (recorder.stored() == captured).then_some(())
        });
        assert!(recorder.captured() >= captured);
        let took = start.elapsed().as_secs_f64();
        let exchanges = recorder.captured() - first;
        #[allow(clippy::cast_precision_loss, reason = "far under 2^53")]
        let count = exchanges as f64;
        let mut now = self.cpu();
        now.insert("recorder/proxy's side of capture".into(), load);
        let used = now.into_iter().map(|(name, seconds)| {
            let earlier = before.get(&name).copied().unwrap_or(0.0);
            (name, (seconds - earlier) / count * 1e6)
        });
        Outcomes {
            exchanges,
            per_second: count / took,
            dropped: recorder.dropped() - dropped,
            cpu: used.collect(),
            player_mib: self.player.rss_mib(),
        }
    }

    /// CPU seconds so far, by process and by name of this process's threads.
    fn cpu(&self) -> BTreeMap<String, f64> {
        let mut cpu = BTreeMap::from([
            ("broker".to_owned(), self.broker.cpu()),
            ("player".to_owned(), self.player.cpu()),
            ("recorder".to_owned(), ticks("/proc/self/stat")),
        ]);
        for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let name = format!("recorder/{}", name.trim());
            let seconds = ticks(&task.path().join("stat").to_string_lossy());
            *cpu.entry(name).or_default() += seconds;
        }
        cpu
    }

    fn books(&self) {
        let captured = self.recorder.captured();
        let life = wait("the player's ledger", || {
            let status = ask(self.api, "/api/status");
            let lives = &status["ledger"]["player"]["recorders"];
            let life = lives.as_array()?.first()?.clone();
            (life["watermark"] == captured).then_some(life)
        });
        println!(
            "  captured {captured}; player stored {} dropped {} missing {} lost {}",
            life["stored"], life["dropped"], life["missing"], life["lost"]
        );
    }
}

impl Outcomes {
    fn show(&self, name: &str) {
        let Self {
            exchanges,
            per_second,
            dropped,
            player_mib,
            ..
        } = self;
        println!(
            "  {name}: {exchanges} stored, {per_second:.0}/s, {dropped} dropped; player {player_mib:.0} MiB"
        );
        let parts = self.cpu.iter().filter(|(_, used)| **used >= 0.05);
        let parts: Vec<_> = parts
            .map(|(name, used)| format!("{name} {used:.1}"))
            .collect();
        println!("    us CPU per exchange: {}", parts.join(", "));
    }
}

/// Hands over exchanges, at a rate or as long as the broker keeps up; tells the CPU seconds that it took.
fn load_capture(recorder: &Recorder, rate: Option<u32>, lasting: Duration) -> f64 {
    let traffic = Traffic::new();
    let start = Instant::now();
    let mut bursts = 0;
    while start.elapsed() < lasting {
        for _ in 0..BURST {
            traffic.pass(&recorder.capture);
        }
        bursts += 1;
        match rate {
            Some(rate) => {
                let due = Duration::from_secs(1) * BURST * bursts / rate;
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
            None => {
                while recorder.spool.stats().unsent > MOST_UNSENT
                    || recorder.capture.stats().waiting_bytes > 4 << 20
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
    // What was handed over has to get its numbers before anybody counts.
    while recorder.capture.stats().waiting_bytes > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    ticks("/proc/thread-self/stat")
}
