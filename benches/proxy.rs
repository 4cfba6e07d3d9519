//! What recording costs: HTTP/1.1 keep-alive, 1 KiB answers, 32 connections, every exchange stored by a player
//! in another process over Mosquitto at QoS 1, against a bare hyper reverse proxy and nginx in the same run.
//!
//! Load, origin, broker and player share the machine's cores with the proxy under test, as they do in every
//! figure here. Prints lines `RATIO name value target`; `cargo bench --bench proxy`. Needs wrk, nginx, mosquitto.
//!
//! What bounds it: with two cores the throughput of the recording proxy is that of everything on the way to
//! the player's disk; the CPU per exchange of the recorder alone is the fairer figure for larger machines.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

const CONNECTIONS: &str = "32";
const SECONDS: u64 = 6;
const ROUNDS: usize = 3;

fn main() {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("--origin") => serve(origin()),
        Some("--bare") => serve(bare(args.next().expect("the upstream's port"))),
        _ => compare(),
    }
}

fn serve(server: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(server);
}

async fn bind() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // The parent reads the port from here.
    fs::write(std::env::var("PORT_FILE").unwrap(), port.to_string()).unwrap();
    listener
}

/// Answers 1 KiB to everything.
async fn origin() {
    let listener = bind().await;
    let content = Bytes::from(vec![b'x'; 1024]);
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let _ = socket.set_nodelay(true);
        let content = content.clone();
        tokio::spawn(async move {
            let service = service_fn(|_| {
                let response = Response::builder()
                    .header("content-type", "text/plain")
                    .body(Full::new(content.clone()))
                    .unwrap();
                async move { Ok::<_, Infallible>(response) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
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

/// A child process that ends with the benchmark.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("cannot run {name}: {error}")))
    }

    /// CPU time used so far, user and system, in seconds.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / 100.0
    }

    fn rss_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

fn own(folder: &Path, name: &str, arguments: &[&str]) -> (Running, u16) {
    let file = folder.join(name);
    let mut command = Command::new(std::env::current_exe().unwrap());
    let child = Running::start(command.args(arguments).env("PORT_FILE", &file));
    let port = wait(name, || fs::read_to_string(&file).ok()?.parse().ok());
    (child, port)
}

fn wait<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not come up");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn listening(port: u16) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait(&address.to_string(), || std::net::TcpStream::connect(address).ok());
}

fn nginx(folder: &Path, upstream: u16) -> (Running, u16) {
    let port = free_port();
    let conf = format!(
        "daemon off; worker_processes 1; pid {0}/nginx.pid; error_log /dev/null;\n\
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
    let running = Running::start(Command::new("nginx").arg("-c").arg(&path).arg("-p").arg(folder));
    listening(port);
    (running, port)
}

fn mosquitto(folder: &Path) -> (Running, u16) {
    let port = free_port();
    let path = folder.join("mosquitto.conf");
    fs::write(&path, format!("listener {port} 127.0.0.1\nallow_anonymous true\n")).unwrap();
    let running = Running::start(Command::new("mosquitto").arg("-c").arg(&path));
    listening(port);
    (running, port)
}

fn node(folder: &Path, name: &str, config: &serde_json::Value) -> Running {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_qproxy"));
    command.env("CONFIG_PATH", folder.join("config.json")).env("RUST_LOG", "warn");
    let running = Running::start(command.current_dir(&folder));
    listening(u16::try_from(config["api"]["port"].as_u64().unwrap()).unwrap());
    running
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    per_second: f64,
    p99_ms: f64,
    requests: f64,
}

fn wrk(port: u16) -> Load {
    let output = Command::new("wrk")
        .args(["-t1", "-c", CONNECTIONS, "--latency", &format!("-d{SECONDS}s")])
        .arg(format!("http://127.0.0.1:{port}/"))
        .output()
        .expect("cannot run wrk: install it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = |label: &str| -> String {
        let line = text.lines().find(|line| line.trim_start().starts_with(label));
        line.unwrap_or_else(|| panic!("{text}")).trim()[label.len()..].trim().to_owned()
    };
    let p99 = value("99%");
    let p99_ms = match (p99.strip_suffix("us"), p99.strip_suffix("ms"), p99.strip_suffix('s')) {
        (Some(us), ..) => us.parse::<f64>().unwrap() / 1000.0,
        (_, Some(ms), _) => ms.parse().unwrap(),
        (.., Some(s)) => s.parse::<f64>().unwrap() * 1000.0,
        _ => panic!("{p99}"),
    };
    assert!(!text.contains("Non-2xx"), "{text}");
    let per_second: f64 = value("Requests/sec:").parse().unwrap();
    Load { per_second, p99_ms, requests: per_second * SECONDS as f64 }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ask(port: u16, path: &str) -> serde_json::Value {
    let url = format!("http://127.0.0.1:{port}{path}");
    let output = Command::new("curl").args(["-sS", &url]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn compare() {
    let folder = std::env::temp_dir().join(format!("qproxy-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (_origin, origin) = own(&folder, "origin", &["--origin"]);
    let (bare, bare_port) = own(&folder, "bare", &["--bare", &origin.to_string()]);
    let (_nginx, nginx_port) = nginx(&folder, origin);
    let (_broker, broker) = mosquitto(&folder);
    let (record_port, recorder_api, player_api) = (free_port(), free_port(), free_port());
    let local = |port: u16| serde_json::json!({ "host": "127.0.0.1", "port": port });
    let player = node(&folder, "player", &serde_json::json!({
        "mode": "Playback", "node": "player", "peer": local(broker), "http": local(0),
        "api": local(player_api), "store": { "path": "data" },
    }));
    let mut http = local(record_port);
    http["downstream"] = format!("http://127.0.0.1:{origin}").into();
    let recorder = node(&folder, "recorder", &serde_json::json!({
        "mode": "Record", "node": "recorder", "peer": local(broker), "http": http,
        "api": local(recorder_api), "store": { "path": "spool" },
    }));
    listening(record_port);

    let mut figures: Vec<[f64; 6]> = Vec::new();
    let mut exchanges = 0.0;
    for _ in 0..ROUNDS {
        let before = bare.cpu();
        let plain = wrk(bare_port);
        let plain_cpu = (bare.cpu() - before) / plain.requests;
        let peer = wrk(nginx_port);
        let (before, player_before) = (recorder.cpu(), player.cpu());
        let recorded = wrk(record_port);
        exchanges += recorded.requests;
        drained(recorder_api);
        let cpu = (recorder.cpu() - before) / recorded.requests;
        let player_cpu = (player.cpu() - player_before) / recorded.requests;
        println!(
            "bare {:.0}/s p99 {:.2} ms {:.1} us; nginx {:.0}/s p99 {:.2} ms; \
             recording {:.0}/s p99 {:.2} ms {:.1} us; player {:.1} us; recorder {:.0} MiB",
            plain.per_second, plain.p99_ms, plain_cpu * 1e6, peer.per_second, peer.p99_ms,
            recorded.per_second, recorded.p99_ms, cpu * 1e6, player_cpu * 1e6, recorder.rss_mib(),
        );
        figures.push([
            recorded.per_second / plain.per_second,
            cpu / plain_cpu,
            recorded.p99_ms / peer.p99_ms,
            recorded.per_second,
            recorder.rss_mib(),
            player_cpu * 1e6,
        ]);
    }
    let figure = |at: usize| median(figures.iter().map(|f| f[at]).collect());
    println!("RATIO recording_throughput_vs_bare_hyper {:.2} >=0.5", figure(0));
    println!("RATIO recorder_cpu_vs_bare_hyper {:.2} <=1.6", figure(1));
    println!("RATIO recording_p99_vs_nginx {:.2} <=1.25", figure(2));
    println!("RATIO exchanges_per_second {:.0} >=20000", figure(3));
    println!("RATIO recorder_rss_mib {:.0} <=100", figure(4));
    println!("{exchanges:.0} exchanges were sent; the player's status:");
    println!("{:#}", ask(player_api, "/api/status"));
    println!("{:#}", ask(recorder_api, "/api/status"));
    drop((recorder, player));
    let _ = fs::remove_dir_all(folder);
}

/// Waits until the player has settled all that the recorder captured.
fn drained(recorder_api: u16) {
    wait("an empty spool", || {
        let status = ask(recorder_api, "/api/status");
        (status["ledger"]["recorder"]["unsent"].as_u64()? == 0).then_some(())
    });
}
