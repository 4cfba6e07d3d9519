//! What recording costs: HTTP/1.1 keep-alive, 1 KiB answers, 32 connections, every exchange stored by a player
//! in another process over Mosquitto at QoS 1, against a bare hyper reverse proxy and nginx in the same run.
//!
//! Load, origin, broker and player share the machine's cores with the proxy under test, as they do in every
//! figure here. Prints lines `RATIO name value target`; `cargo bench --bench proxy`. Needs wrk, nginx,
//! mosquitto and curl. Rounds alternate, so that a busy machine is as hard on one as on the other.
//!
//! What bounds it: with two cores the throughput of the recording proxy is that of everything on the way to
//! the player's disk; the CPU per exchange of the recorder alone is the fairer figure for larger machines.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails where it stands"
)]

mod support;

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::Iter;
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use support::{
    Running, Scratch, ask, free_port, listening, local, median, mosquitto, node, own, wait,
};

/// The allocator of `qproxy`, so that the bare proxy is not measured with a slower one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: &str = "32";
const LARGE_BYTES: usize = 1 << 30;

/// A number from the environment, for longer or shorter runs.
fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap())
}

fn main() {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("--origin") => serve(origin()),
        Some("--bare") => serve(bare(args.next().expect("the upstream's port"))),
        _ => compare(),
    }
}

fn serve(server: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(server);
}

async fn bind() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    support::listens_on(listener.local_addr().unwrap());
    listener
}

/// Answers 1 KiB to everything but `/large`, which has a gigabyte.
async fn origin() {
    let listener = bind().await;
    let content = Bytes::from(vec![b'x'; 1024]);
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let _ = socket.set_nodelay(true);
        let content = content.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<hyper::body::Incoming>| {
                let body = match request.uri().path() {
                    "/large" => large(),
                    _ => Either::Left(Full::new(content.clone())),
                };
                let response = Response::builder().header("content-type", "text/plain");
                let response = response.body(body).unwrap();
                async move { Ok::<_, Infallible>(response) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

type Frames = std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>;

fn large() -> Either<Full<Bytes>, StreamBody<Iter<Frames>>> {
    let frame = Bytes::from(vec![b'x'; 64 << 10]);
    let frames: Vec<_> = (0..LARGE_BYTES / frame.len())
        .map(|_| Ok(Frame::data(frame.clone())))
        .collect();
    Either::Right(StreamBody::new(futures_util::stream::iter(frames)))
}

/// The least that a hyper reverse proxy can do: a pooled client, and nothing looked at.
async fn bare(upstream: String) {
    let listener = bind().await;
    let mut connector = hyper_util::client::legacy::connect::HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, hyper::body::Incoming> =
        Client::builder(TokioExecutor::new()).build(connector);
    let authority = format!("127.0.0.1:{upstream}");
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let _ = socket.set_nodelay(true);
        let (client, authority) = (client.clone(), authority.clone());
        tokio::spawn(async move {
            let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
                let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
                *request.uri_mut() = Uri::builder()
                    .scheme("http")
                    .authority(authority.as_str())
                    .path_and_query(path)
                    .build()
                    .unwrap();
                client.request(request)
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

fn nginx(folder: &Path, upstream: u16) -> (Running, u16) {
    let port = free_port();
    let conf = format!(
        "daemon off; master_process off; pid {0}/nginx.pid; error_log /dev/null;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f;\n\
         uwsgi_temp_path {0}/u; scgi_temp_path {0}/s; keepalive_requests 100000000;\n\
         upstream o {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://o; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; }} }} }}\n",
        folder.display(),
    );
    let path = folder.join("nginx.conf");
    fs::write(&path, conf).unwrap();
    let running = Running::start(
        Command::new("nginx")
            .arg("-c")
            .arg(&path)
            .arg("-p")
            .arg(folder),
    );
    listening(port);
    (running, port)
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    per_second: f64,
    p99_ms: f64,
    requests: f64,
}

#[allow(clippy::cast_precision_loss, reason = "seconds")]
fn wrk(port: u16) -> Load {
    let seconds = number("BENCH_SECONDS", 6);
    let output = Command::new("wrk")
        .args([
            "-t1",
            "-c",
            CONNECTIONS,
            "--latency",
            &format!("-d{seconds}s"),
        ])
        .arg(format!("http://127.0.0.1:{port}/"))
        .output()
        .expect("cannot run wrk: install it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = |label: &str| -> String {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(label));
        line.unwrap_or_else(|| panic!("{text}")).trim()[label.len()..]
            .trim()
            .to_owned()
    };
    let p99 = value("99%");
    let p99_ms = match (
        p99.strip_suffix("us"),
        p99.strip_suffix("ms"),
        p99.strip_suffix('s'),
    ) {
        (Some(us), ..) => us.parse::<f64>().unwrap() / 1000.0,
        (_, Some(ms), _) => ms.parse().unwrap(),
        (.., Some(s)) => s.parse::<f64>().unwrap() * 1000.0,
        _ => panic!("{p99}"),
    };
    assert!(!text.contains("Non-2xx"), "{text}");
    let per_second: f64 = value("Requests/sec:").parse().unwrap();
    Load {
        per_second,
        p99_ms,
        requests: per_second * seconds as f64,
    }
}

struct Recorder {
    process: Running,
    port: u16,
    api: u16,
}

impl Recorder {
    /// A record node in front of the origin; `Forward` copies nothing.
    fn start(folder: &Path, name: &str, mode: &str, origin: u16, broker: u16) -> Self {
        let (port, api) = (free_port(), free_port());
        let mut http = local(port);
        http["downstream"] = format!("http://127.0.0.1:{origin}").into();
        let mut config = serde_json::json!({
            "mode": mode, "node": name, "http": http, "api": local(api), "store": { "path": "data" },
        });
        if mode == "Record" {
            config["peer"] = local(broker);
        }
        let process = node(folder, name, &config);
        listening(port);
        Self { process, port, api }
    }

    fn status(&self) -> serde_json::Value {
        ask(self.api, "/api/status")["ledger"]["recorder"].clone()
    }

    /// Waits until the broker has, and the player has stored, all that was captured; tells how long it took.
    fn drained(&self) -> Duration {
        let start = Instant::now();
        wait("an empty spool", || {
            let status = self.status();
            let stored = status["players"][0]["watermark"].as_u64()?;
            (stored == status["captured"].as_u64()?).then_some(())
        });
        start.elapsed()
    }
}

struct Setup {
    folder: Scratch,
    origin: u16,
    bare: (Running, u16),
    nginx: (Running, u16),
    broker: (Running, u16),
    player: Running,
    player_api: u16,
    forward: Recorder,
    recorder: Recorder,
    _origin: Running,
}

impl Setup {
    fn new() -> Self {
        let folder = Scratch::new();
        let (running, origin) = own(folder.path(), "origin", &["--origin"]);
        let bare = own(folder.path(), "bare", &["--bare", &origin.to_string()]);
        let nginx = nginx(folder.path(), origin);
        let broker = mosquitto(folder.path());
        let player_api = free_port();
        let player = support::player(folder.path(), "player", broker.1, player_api);
        let start = |name, mode| Recorder::start(folder.path(), name, mode, origin, broker.1);
        Self {
            forward: start("forward", "Forward"),
            recorder: start("recorder", "Record"),
            origin,
            bare,
            nginx,
            broker,
            player,
            player_api,
            _origin: running,
            folder,
        }
    }
}

/// What one server did in one round.
#[derive(Debug, Clone, Copy)]
struct Measured {
    per_second: f64,
    p99_ms: f64,
    cpu_us: f64,
}

impl Measured {
    fn of(server: &Running, port: u16, settle: impl FnOnce()) -> Self {
        let before = server.cpu();
        let load = wrk(port);
        settle();
        Self {
            per_second: load.per_second,
            p99_ms: load.p99_ms,
            cpu_us: (server.cpu() - before) / load.requests * 1e6,
        }
    }

    fn show(&self, name: &str) {
        let Self {
            per_second,
            p99_ms,
            cpu_us,
        } = self;
        println!(
            "  {name:<10} {per_second:>7.0}/s   p99 {p99_ms:>6.2} ms   {cpu_us:>5.1} us CPU each"
        );
    }
}

struct Round {
    bare: Measured,
    nginx: Measured,
    forward: Measured,
    recording: Measured,
    player_us: f64,
    broker_us: f64,
    rss_mib: f64,
}

impl Round {
    fn run(setup: &Setup) -> Self {
        let Setup {
            bare,
            nginx,
            forward,
            recorder,
            ..
        } = setup;
        let bare = Measured::of(&bare.0, bare.1, || ());
        let nginx = Measured::of(&nginx.0, nginx.1, || ());
        let forward = Measured::of(&forward.process, forward.port, || ());
        let (player, broker) = (setup.player.cpu(), setup.broker.0.cpu());
        let before = captured(recorder);
        let recording = Measured::of(&recorder.process, recorder.port, || {
            recorder.drained();
        });
        let exchanges = captured(recorder) - before;
        Self {
            bare,
            nginx,
            forward,
            recording,
            player_us: (setup.player.cpu() - player) / exchanges * 1e6,
            broker_us: (setup.broker.0.cpu() - broker) / exchanges * 1e6,
            rss_mib: recorder.process.rss_mib(),
        }
    }

    fn show(&self, at: u64) {
        println!("round {at}");
        self.bare.show("bare hyper");
        self.nginx.show("nginx");
        self.forward.show("forwarding");
        self.recording.show("recording");
        let Self {
            player_us,
            broker_us,
            rss_mib,
            ..
        } = self;
        println!(
            "  player {player_us:.1} us, broker {broker_us:.1} us per exchange; recorder {rss_mib:.0} MiB"
        );
    }
}

#[allow(clippy::cast_precision_loss, reason = "far under 2^53")]
fn captured(recorder: &Recorder) -> f64 {
    recorder.status()["captured"].as_u64().unwrap_or(0) as f64
}

fn compare() {
    let setup = Setup::new();
    // Nobody is measured while its connections are made and its first pages touched.
    for port in [
        setup.bare.1,
        setup.nginx.1,
        setup.forward.port,
        setup.recorder.port,
    ] {
        wrk(port);
    }
    setup.recorder.drained();
    let mut rounds = Vec::new();
    for at in 1..=number("BENCH_ROUNDS", 5) {
        let round = Round::run(&setup);
        round.show(at);
        rounds.push(round);
    }
    let figure = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of).collect());
    let ratio = |name: &str, value: f64, target: &str| println!("RATIO {name} {value:.2} {target}");
    ratio(
        "recording_throughput_vs_bare_hyper",
        figure(&|r| r.recording.per_second / r.bare.per_second),
        ">=0.5",
    );
    ratio(
        "recorder_cpu_vs_bare_hyper",
        figure(&|r| r.recording.cpu_us / r.bare.cpu_us),
        "<=1.6",
    );
    ratio(
        "recording_p99_vs_nginx",
        figure(&|r| r.recording.p99_ms / r.nginx.p99_ms),
        "<=1.25",
    );
    ratio(
        "recording_p99_vs_forwarding",
        figure(&|r| r.recording.p99_ms / r.forward.p99_ms),
        "-",
    );
    ratio(
        "recording_exchanges_per_second",
        figure(&|r| r.recording.per_second),
        "-",
    );
    ratio("recorder_rss_mib", figure(&|r| r.rss_mib), "<=100");
    let growth = rounds.last().unwrap().rss_mib - rounds[0].rss_mib;
    ratio("recorder_rss_growth_mib", growth, "<=5");
    ledgers(&setup);
    broker_away(&setup);
    ledgers(&setup);
    large_body(&setup);
}

/// Both ends' books: nothing may be dropped, missing or lost.
fn ledgers(setup: &Setup) {
    let recorder = setup.recorder.status();
    println!(
        "recorder: captured {} dropped {}",
        recorder["captured"], recorder["dropped"]
    );
    // The player looks at its ledger several times a second.
    let all = wait("the player's ledger", || {
        let status = ask(setup.player_api, "/api/status");
        let lives = status["ledger"]["player"]["recorders"].as_array()?.clone();
        let highest = |life: &serde_json::Value| life["watermark"] == recorder["captured"];
        lives.iter().any(highest).then_some(lives)
    });
    for life in all {
        println!(
            "player:   stored {} dropped {} missing {} lost {}",
            life["stored"], life["dropped"], life["missing"], life["lost"]
        );
    }
}

/// A broker that stands still: traffic goes on as before, the spool grows, and drains when it is back.
fn broker_away(setup: &Setup) {
    let recorder = &setup.recorder;
    let forward = wrk(setup.forward.port);
    let there = wrk(recorder.port);
    recorder.drained();
    setup.broker.0.signal("STOP");
    let away = wrk(recorder.port);
    let status = recorder.status();
    let rss = recorder.process.rss_mib();
    setup.broker.0.signal("CONT");
    let took = recorder.drained().as_secs_f64();
    println!(
        "broker stopped: {:.0}/s p99 {:.2} ms (broker there: {:.0}/s p99 {:.2} ms; forwarding: {:.0}/s p99 {:.2} ms)",
        away.per_second,
        away.p99_ms,
        there.per_second,
        there.p99_ms,
        forward.per_second,
        forward.p99_ms
    );
    println!(
        "broker stopped: {} of {} unsent, player lag {}, spool {:.0} MiB, recorder {rss:.0} MiB; drained in {took:.1} s",
        status["unsent"],
        status["captured"],
        status["players"][0]["lag"],
        status["spool_bytes"].as_f64().unwrap_or(0.0) / 1048576.0,
    );
    println!(
        "RATIO throughput_broker_stopped_vs_there {:.2} >=1.0",
        away.per_second / there.per_second
    );
    println!("RATIO recorder_rss_broker_stopped_mib {rss:.0} <=100");
}

/// A gigabyte through a recorder that has just started.
fn large_body(setup: &Setup) {
    let start = |name| {
        Recorder::start(
            setup.folder.path(),
            name,
            "Record",
            setup.origin,
            setup.broker.1,
        )
    };
    let recorder = start("large");
    let get = |path: &str| {
        let url = format!("http://127.0.0.1:{}{path}", recorder.port);
        let arguments = [
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{size_download} %{time_total}",
        ];
        let output = Command::new("curl")
            .args(arguments)
            .arg(url)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    get("/");
    recorder.drained();
    let before = recorder.process.rss_mib();
    recorder.process.forget_peak();
    let got = get("/large");
    let peak = recorder.process.peak_mib();
    assert!(got.starts_with(&LARGE_BYTES.to_string()), "{got}");
    recorder.drained();
    println!(
        "a body of 1 GiB: bytes and seconds {got}; recorder {before:.0} MiB before, {peak:.0} MiB at most"
    );
    println!("RATIO large_body_adds_mib {:.1} <=20", peak - before);
    println!("recorder: {}", recorder.status());
}
