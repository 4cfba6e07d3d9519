//! What the benchmarks have in common: child processes, their CPU time and memory, and the servers that
//! take part. Each benchmark uses a part of it.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "shared by programs"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot run should say where"
)]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A folder that ends with the benchmark, and the processes that were started in it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("qproxy-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child process that ends with the benchmark.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.signal("KILL");
        let _ = self.0.wait();
    }
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let errors = match std::env::var_os("BENCH_STDERR") {
            Some(_) => Stdio::inherit(),
            None => Stdio::null(),
        };
        let child = command.stdout(Stdio::null()).stderr(errors).spawn();
        Self(child.unwrap_or_else(|error| panic!("cannot run {name}: {error}")))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// CPU time used so far, user and system, in seconds.
    pub fn cpu(&self) -> f64 {
        ticks(&format!("/proc/{}/stat", self.0.id()))
    }

    pub fn rss_mib(&self) -> f64 {
        memory_mib(self.0.id(), "VmRSS:")
    }

    /// The most memory since [`Running::forget_peak`].
    pub fn peak_mib(&self) -> f64 {
        memory_mib(self.0.id(), "VmHWM:")
    }

    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.0.id()), "5").unwrap();
    }

    pub fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let _ = Command::new("kill").args(["-s", name, &id]).status();
    }
}

fn memory_mib(id: u32, label: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(label)).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}

/// The CPU time in a `stat` file, in seconds; Linux shows it in hundredths.
pub fn ticks(stat: &str) -> f64 {
    let stat = fs::read_to_string(stat).unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields.get(at).map_or(0.0, |n| n.parse::<f64>().unwrap());
    (ticks(11) + ticks(12)) / 100.0
}

/// Starts this very program with other arguments; it writes its port to the file that `PORT_FILE` names.
pub fn own(folder: &Path, name: &str, arguments: &[&str]) -> (Running, u16) {
    let file = folder.join(name);
    let mut command = Command::new(std::env::current_exe().unwrap());
    let child = Running::start(command.args(arguments).env("PORT_FILE", &file));
    let port = wait(name, || fs::read_to_string(&file).ok()?.parse().ok());
    (child, port)
}

/// Tells the parent where this program listens.
pub fn listens_on(address: SocketAddr) {
    fs::write(
        std::env::var("PORT_FILE").unwrap(),
        address.port().to_string(),
    )
    .unwrap();
}

pub fn wait<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within two minutes");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub fn listening(port: u16) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait(&address.to_string(), || {
        std::net::TcpStream::connect(address).ok()
    });
}

/// Mosquitto as it is installed: 20 messages in flight and 1,000 queued per client.
pub fn mosquitto(folder: &Path) -> (Running, u16) {
    let port = free_port();
    let path = folder.join("mosquitto.conf");
    let conf = format!("listener {port} 127.0.0.1\nallow_anonymous true\n");
    fs::write(&path, conf).unwrap();
    let running = Running::start(Command::new("mosquitto").arg("-c").arg(&path));
    listening(port);
    (running, port)
}

/// A QProxy node: the one built with the benchmark, or that of `QPROXY_BIN`, to compare two releases.
pub fn node(folder: &Path, name: &str, config: &serde_json::Value) -> Running {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let binary = std::env::var_os("QPROXY_BIN");
    let mut command = Command::new(binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_qproxy").into()));
    command
        .env("CONFIG_PATH", folder.join("config.json"))
        .env("RUST_LOG", "warn");
    let running = Running::start(command.current_dir(&folder));
    listening(u16::try_from(config["api"]["port"].as_u64().unwrap()).unwrap());
    running
}

pub fn local(port: u16) -> serde_json::Value {
    serde_json::json!({ "host": "127.0.0.1", "port": port })
}

/// A playback node that stores what it hears from the broker.
pub fn player(folder: &Path, name: &str, broker: u16, api: u16) -> Running {
    let config = serde_json::json!({
        "mode": "Playback", "node": name, "peer": local(broker), "http": local(0),
        "api": local(api), "store": { "path": "data" },
    });
    node(folder, name, &config)
}

pub fn ask(port: u16, path: &str) -> serde_json::Value {
    let url = format!("http://127.0.0.1:{port}{path}");
    let output = Command::new("curl").args(["-sS", &url]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
