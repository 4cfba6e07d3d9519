//! The brokers that one suite of tests runs on, and what each cannot do.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use qproxy::mqtt_client::client::MqttConfig;
use qproxy::mqtt_client::codec::Version;
use qproxy::mqtt_client::options::{Backoff, TlsOptions};

use super::certificates::{self, TlsFiles};
use super::mosquitto::{Mosquitto, Options};
use super::nats::{Nats, Speaks};
use super::rabbitmq::{self, RabbitMq};

/// Mosquitto 2.0, RabbitMQ 3.10 and NATS 2.9, as Debian 12 has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Mosquitto,
    RabbitMq,
    Nats,
}

/// What becomes of QoS 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExactlyOnce {
    Kept,
    /// Subscriptions are granted QoS 1, and a PUBLISH of QoS 2 is answered with PUBACK as if it were of QoS 1.
    Downgraded,
    /// Subscriptions are granted QoS 1, and a PUBLISH of QoS 2 ends the connection.
    Refused,
}

/// Which subscriptions are sent what was retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retained {
    ToEveryMatch,
    /// Wildcards get nothing.
    ToTheSameTopic,
}

impl Kind {
    /// RabbitMQ documents that it has no QoS 2; NATS has it from 2.10 on, and this is 2.9.
    pub fn exactly_once(self) -> ExactlyOnce {
        match self {
            Self::Mosquitto => ExactlyOnce::Kept,
            Self::RabbitMq => ExactlyOnce::Downgraded,
            Self::Nats => ExactlyOnce::Refused,
        }
    }

    /// RabbitMQ's store of retained messages is a table by topic; matching filters against it came with 4.0.
    pub fn retained(self) -> Retained {
        match self {
            Self::Mosquitto | Self::Nats => Retained::ToEveryMatch,
            Self::RabbitMq => Retained::ToTheSameTopic,
        }
    }
}

/// What a test needs the broker for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Plain,
    Tls,
    /// It will be stopped and come back.
    Restart,
}

pub struct Broker {
    server: Server,
    tls: Option<TlsFiles>,
    version: Version,
    /// Apart from other tests on the same server.
    name: String,
}

enum Server {
    Mosquitto(
        Mosquitto,
        #[allow(dead_code, reason = "its certificates")] tempfile::TempDir,
    ),
    RabbitMq(
        &'static RabbitMq,
        #[allow(dead_code, reason = "held")] rabbitmq::Use,
    ),
    Nats(Nats),
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Broker {
    pub async fn start(kind: Kind, version: Version, need: Need) -> Self {
        let mut tls = None;
        let server = match kind {
            Kind::Mosquitto => {
                let directory = tempfile::tempdir().unwrap();
                tls = (need == Need::Tls).then(|| certificates::make(directory.path(), "ours"));
                let options = Options {
                    tls: tls.clone(),
                    persistence: need == Need::Restart,
                    drops_nothing: true,
                    ..Options::default()
                };
                Server::Mosquitto(Mosquitto::start(options).await, directory)
            }
            Kind::RabbitMq => {
                let (server, held) = match need {
                    Need::Restart => rabbitmq::alone().await,
                    Need::Plain | Need::Tls => rabbitmq::shared().await,
                };
                tls = (need == Need::Tls).then(|| server.tls.clone());
                Server::RabbitMq(server, held)
            }
            Kind::Nats => {
                let speaks = match need {
                    Need::Tls => Speaks::Tls,
                    Need::Plain | Need::Restart => Speaks::Plain,
                };
                let nats = Nats::start(speaks);
                tls.clone_from(&nats.tls);
                Server::Nats(nats)
            }
        };
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Self {
            server,
            tls,
            version,
            name,
        }
    }

    /// A configuration that leads here, with short pauses.
    pub fn config(&self, client_id: &str) -> MqttConfig {
        let port = match (&self.server, &self.tls) {
            (Server::Mosquitto(server, _), _) => server.port(),
            (Server::RabbitMq(server, _), None) => server.port,
            (Server::RabbitMq(server, _), Some(_)) => server.tls_port,
            (Server::Nats(server), _) => server.port,
        };
        let pause = Duration::from_millis(20);
        let tls = self.tls.as_ref().map(|files| TlsOptions {
            ca: Some(files.ca.clone()),
            ..TlsOptions::default()
        });
        MqttConfig {
            protocol: self.version,
            client_id: format!("{}-{client_id}", self.name),
            host: "localhost".to_owned(),
            port,
            tls,
            reconnect: Backoff {
                initial: pause,
                max: pause,
            },
            // Brokers that are just coming back close connections at once.
            takeover: qproxy::mqtt_client::options::Takeover {
                connections: 0,
                ..Default::default()
            },
            ..MqttConfig::default()
        }
    }

    /// A topic of this test alone.
    pub fn topic(&self, rest: &str) -> String {
        format!("{}/{rest}", self.name)
    }

    /// What it was told to keep, it keeps: Mosquitto is stopped in order (it saves at its end), the others are killed.
    pub fn go_away(&mut self) {
        match &mut self.server {
            Server::Mosquitto(server, _) => server.stop(),
            Server::RabbitMq(server, _) => server.go_away(),
            Server::Nats(server) => server.kill(),
        }
    }

    pub async fn come_back(&mut self) {
        match &mut self.server {
            Server::Mosquitto(server, _) => server.launch().await,
            Server::RabbitMq(server, _) => server.come_back(),
            Server::Nats(server) => server.launch(),
        }
    }
}
