//! Redis servers of our own: each on a free port in a temporary directory, stopped when dropped.
//!
//! Also used by the unit tests of the store. Nothing is skipped where redis-server is missing: the test fails and
//! says what to install.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running redis-server.
pub(crate) struct RedisServer {
    process: Child,
    port: u16,
    bus_port: u16,
    options: Vec<String>,
    dir: tempfile::TempDir,
}

impl RedisServer {
    /// Starts a server and waits until it answers. `BUS_PORT` in an option stands for a second free port.
    pub(crate) async fn start(options: &[&str]) -> Self {
        // Between our letting go of a free port and the server's taking it somebody else may be quicker.
        for _ in 0..5 {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let (port, bus_port) = free_ports();
            let bus = bus_port.to_string();
            let options: Vec<_> = options
                .iter()
                .map(|o| o.replace("BUS_PORT", &bus))
                .collect();
            let process = spawn(dir.path(), port, &options);
            let mut server = Self {
                process,
                port,
                bus_port,
                options,
                dir,
            };
            if server.answers().await {
                return server;
            }
        }
        panic!("redis-server did not start on any of five ports");
    }

    /// Starts it again on the same port, empty.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.process = spawn(self.dir.path(), self.port, &self.options);
        assert!(self.answers().await, "redis-server did not start again");
    }

    /// Waits for the server; tells whether it came up or ended.
    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.process.try_wait().is_ok_and(|ended| ended.is_some()) {
                return false;
            }
            if self.try_command::<String>(&["PING"]).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "redis-server did not answer on port {} within {PATIENCE:?}",
            self.port
        );
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The port that `BUS_PORT` stands for.
    pub(crate) fn bus_port(&self) -> u16 {
        self.bus_port
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends one command.
    pub(crate) async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let answer = self.try_command(words).await;
        answer.unwrap_or_else(|error| panic!("redis refused {words:?}: {error}"))
    }

    async fn try_command<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async(&mut connection).await
    }

    /// Stops it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A Redis Cluster of three masters.
pub(crate) struct RedisCluster {
    /// The masters.
    pub(crate) nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts three servers, joins them, and waits until every one says that the cluster works.
    pub(crate) async fn start() -> Self {
        let options = ["--cluster-enabled", "yes", "--cluster-port", "BUS_PORT"];
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(RedisServer::start(&options).await);
        }
        let slots = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        for (at, (node, (first, last))) in nodes.iter().zip(slots).enumerate() {
            let epoch = (at + 1).to_string();
            node.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])
                .await;
            node.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", first, last])
                .await;
        }
        for other in &nodes[1..] {
            let (port, bus) = (other.port.to_string(), other.bus_port.to_string());
            nodes[0]
                .command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])
                .await;
        }
        let cluster = Self { nodes };
        let deadline = Instant::now() + PATIENCE;
        while !cluster.works().await {
            assert!(
                Instant::now() < deadline,
                "the cluster did not form in {PATIENCE:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cluster
    }

    async fn works(&self) -> bool {
        for node in &self.nodes {
            let info: String = node.command(&["CLUSTER", "INFO"]).await;
            if !info.contains("cluster_state:ok") || !info.contains("cluster_known_nodes:3") {
                return false;
            }
        }
        true
    }

    /// Where its masters listen.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }
}

fn spawn(dir: &Path, port: u16, options: &[String]) -> Child {
    let spawned = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .arg("--dir")
        .arg(dir)
        .args(options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    spawned.expect("redis-server must be installed for this test: apt-get install -y redis-server")
}

/// Two ports that nobody uses right now.
fn free_ports() -> (u16, u16) {
    let bind = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (one, other) = (bind(), bind());
    let port = |listener: &TcpListener| listener.local_addr().expect("a bound listener").port();
    (port(&one), port(&other))
}
