//! A real RabbitMQ with its MQTT plugin, one for all tests of this process: it takes seconds to start.
//!
//! A node of its own in every respect: name, data, logs, cookie, plugins, ports and port mapper, so that it minds neither
//! an installed RabbitMQ nor another run of the tests, whoever runs them.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::certificates::{self, TlsFiles};
use super::supervised::Supervised;
use super::{quiet_port, until};

/// Debian's wrapper in the PATH changes to the user `rabbitmq` and to directories of the system: this is what it calls.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

pub struct RabbitMq {
    server: Supervised,
    pub port: u16,
    pub tls_port: u16,
    pub tls: TlsFiles,
}

static SERVER_OF_ALL: OnceCell<RabbitMq> = OnceCell::const_new();
/// Held by everybody who uses it; alone by whoever restarts it.
static USE: RwLock<()> = RwLock::const_new(());

/// How long the server stays as it is.
pub enum Use {
    Shared(#[allow(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Alone(#[allow(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

/// The server, which others use too.
pub async fn shared() -> (&'static RabbitMq, Use) {
    let server = SERVER_OF_ALL.get_or_init(|| async { RabbitMq::start() });
    (server.await, Use::Shared(USE.read().await))
}

/// The server with nobody else on it.
pub async fn alone() -> (&'static RabbitMq, Use) {
    let server = SERVER_OF_ALL.get_or_init(|| async { RabbitMq::start() });
    (server.await, Use::Alone(USE.write().await))
}

impl RabbitMq {
    fn start() -> Self {
        assert!(
            Path::new(SERVER).exists(),
            "these tests need RabbitMQ: apt-get install rabbitmq-server, or run ./test.sh which does"
        );
        // Removed by the supervisor.
        let directory = tempfile::tempdir().unwrap().keep();
        let tls = certificates::make(&directory, "RabbitMQ's");
        let (port, tls_port) = (quiet_port(), quiet_port());
        let config = format!(
            "listeners.tcp = none\n\
             mqtt.listeners.tcp.1 = 127.0.0.1:{port}\n\
             mqtt.listeners.ssl.1 = 127.0.0.1:{tls_port}\n\
             ssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
             mqtt.allow_anonymous = true\nmqtt.default_user = guest\nmqtt.default_pass = guest\n\
             mqtt.prefetch = 100\nmqtt.retained_message_store = rabbit_mqtt_retained_msg_store_ets\n\
             disk_free_limit.absolute = 1MB\nvm_memory_high_watermark.absolute = 2GB\n\
             log.console = true\nlog.console.level = warning\n",
            tls.ca.display(),
            tls.certificate.display(),
            tls.key.display(),
        );
        std::fs::write(directory.join("rabbitmq.conf"), config).unwrap();
        std::fs::write(directory.join("plugins"), "[rabbitmq_mqtt].").unwrap();
        let path = |name: &str| directory.join(name).display().to_string();
        let variables = [
            // Erlang's cookie, and the port mapper.
            ("HOME", path("")),
            ("ERL_EPMD_PORT", quiet_port().to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_NODENAME", format!("tests-{port}@localhost")),
            ("RABBITMQ_DIST_PORT", quiet_port().to_string()),
            ("RABBITMQ_MNESIA_BASE", path("mnesia")),
            ("RABBITMQ_LOG_BASE", path("logs")),
            ("RABBITMQ_LOGS", "-".to_owned()),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins")),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}".to_owned(),
            ),
            // The script then becomes the server instead of waiting for it.
            ("RABBITMQ_ALLOW_INPUT", "1".to_owned()),
            ("RABBITMQ_SERVER_START_ARGS", "-noinput".to_owned()),
        ];
        let mapper = "epmd </dev/null >/dev/null 2>&1 & beside=$!";
        let server = Supervised::new(directory.clone(), &variables, mapper, SERVER);
        let server = Self {
            server,
            port,
            tls_port,
            tls,
        };
        server.launch();
        server
    }

    fn launch(&self) {
        self.server.start();
        for port in [self.port, self.tls_port] {
            let listening = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok();
            until(
                &format!("RabbitMQ listens; it said: {}", self.server.said()),
                listening,
            );
        }
    }

    /// `kill -9`; clients find the door closed until [`RabbitMq::come_back`].
    pub fn go_away(&self) {
        self.server.stop();
    }

    pub fn come_back(&self) {
        self.launch();
    }
}
