//! Every value decided: what the rest of the program uses.

mod playback;
mod proxy;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use super::transport::WaySettings;

pub use playback::{
    AnswerSettings, AnswerTcpSettings, Auto, BodyMatch, Delay, IgnoreSetting, MatchSettings, Miss,
    PlaybackSettings, Repeat,
};
pub use proxy::{
    ClientAuth, ForwardProxySettings, Forwarded, HttpSettings, ListenerTls, RouteSettings,
    TcpSettings, TlsFiles, UpstreamTls,
};

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Mode {
    /// Proxies and records; sends to the broker.
    #[serde(alias = "record")]
    Record,
    /// Stores what arrives, answers and replays.
    #[serde(alias = "playback")]
    Playback,
    /// All of it in one process.
    #[serde(alias = "standalone")]
    Standalone,
    /// Proxies only.
    #[serde(alias = "forward")]
    Forward,
}

impl Mode {
    /// As it is written in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Record => "Record",
            Self::Playback => "Playback",
            Self::Standalone => "Standalone",
            Self::Forward => "Forward",
        }
    }

    /// Whether traffic is captured here.
    #[must_use]
    pub const fn records(self) -> bool {
        matches!(self, Self::Record | Self::Standalone)
    }

    /// Whether records are kept here.
    #[must_use]
    pub const fn plays(self) -> bool {
        matches!(self, Self::Playback | Self::Standalone)
    }

    /// Whether live traffic passes through here.
    #[must_use]
    pub const fn proxies(self) -> bool {
        !matches!(self, Self::Playback)
    }
}

/// A host, by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// The port; 0 on a listener lets the system choose.
    pub port: u16,
}

impl Endpoint {
    /// Whether only this machine can reach a listener there.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        address.map_or_else(
            |_| self.host.eq_ignore_ascii_case("localhost"),
            |address| address.to_canonical().is_loopback(),
        )
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A node's whole configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the node does.
    pub mode: Mode,
    /// Its name: 1 to 64 of `A-Z a-z 0-9 _ -`.
    pub node: String,
    /// The HTTP proxy; never in mode Playback.
    pub http: Option<HttpSettings>,
    /// The TCP proxies; none in mode Playback.
    pub tcp: Vec<TcpSettings>,
    /// The MQTT endpoint on which nodes meet; where it is `None` and `broker` is not, our own broker is it.
    pub peer: Option<Peer>,
    /// The embedded broker, if this node runs it.
    pub broker: Option<BrokerSettings>,
    /// How to speak to the broker.
    pub mqtt: MqttSettings,
    /// Where records are kept; used in modes Playback and Standalone.
    pub store: StoreSettings,
    /// How long the pieces of a record may be late.
    pub incomplete_after: Duration,
    /// Where captured items wait for the broker; used in modes Record and Standalone.
    pub spool: SpoolSettings,
    /// What is copied.
    pub capture: CaptureSettings,
    /// The keys under which records are sealed, the one to write with first; none: they are not.
    pub encryption: Vec<KeySettings>,
    /// How records are used; used in modes Playback and Standalone.
    pub playback: PlaybackSettings,
    /// The API.
    pub api: ApiSettings,
    /// How long records stay.
    pub retention: RetentionSettings,
    /// Keys that stand in the file and mean nothing in this mode: worth a warning.
    pub unused: Vec<&'static str>,
}

/// Where the key of one name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySettings {
    /// The section of the configuration, for messages.
    pub section: String,
    /// The key's name.
    pub id: String,
    /// Where its 32 bytes are.
    pub source: KeySource,
}

/// Where the bytes of a key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
}

/// The listener of the embedded broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct BrokerSettings {
    pub listen: Endpoint,
    pub tls: Option<TlsFiles>,
}

/// Which of several downstreams is next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest connections through this node.
    LeastConnections,
}

/// An MQTT broker elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct Peer {
    pub endpoint: Endpoint,
    pub tls: bool,
}

/// Which MQTT is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum MqttVersion {
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.0.
    #[serde(rename = "5.0", alias = "5")]
    V5,
}

/// How messages are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// How to speak to the broker.
#[derive(Debug, Clone)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct MqttSettings {
    pub root: String,
    pub protocol: MqttVersion,
    pub app_id: Option<String>,
    pub token: Option<SecretString>,
    pub ca: Option<PathBuf>,
    pub way: WaySettings,
    pub compression: Compression,
    pub keep_alive: Duration,
    pub window_messages: usize,
    pub max_message_bytes: usize,
    /// Players that share a store, and the messages, by the name of their group.
    pub group: Option<String>,
}

/// Where records are kept.
#[derive(Debug, Clone)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub enum StoreSettings {
    /// The embedded store.
    Embedded { path: PathBuf, backups: PathBuf },
    /// One Redis server.
    Redis {
        url: SecretString,
        options: RedisOptions,
    },
    /// A Redis Cluster, by some of its nodes.
    RedisCluster {
        urls: Vec<SecretString>,
        options: RedisOptions,
    },
}

/// How Redis is used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct RedisOptions {
    pub prefix: String,
    pub ca: Option<PathBuf>,
}

/// Where captured items wait.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct SpoolSettings {
    pub path: PathBuf,
    pub max_bytes: u64,
    pub max_age: Option<Duration>,
}

/// What is copied.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct CaptureSettings {
    pub enabled: bool,
    /// 0 to 1.
    pub sample: f64,
    pub max_body_bytes: u64,
    pub max_stream_bytes: u64,
    pub queue_bytes: usize,
    pub include: Vec<Rule>,
    pub exclude: Vec<Rule>,
    /// Lower case.
    pub redact_headers: Vec<String>,
    /// JSON pointers, with `*` for any member or index.
    pub redact_json: Vec<String>,
}

/// Which exchanges: every part that is not empty must match, by one of its alternatives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct Rule {
    pub methods: Vec<String>,
    pub paths: Vec<String>,
    pub hosts: Vec<String>,
    /// `404` or `5xx`.
    pub statuses: Vec<String>,
    pub content_types: Vec<String>,
}

/// The API.
#[derive(Debug, Clone)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct ApiSettings {
    pub listen: Endpoint,
    pub token: Option<SecretString>,
    pub allowed_hosts: Vec<String>,
}

/// How long records stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct RetentionSettings {
    pub max_age: Option<Duration>,
    pub max_bytes: Option<u64>,
}

/// One line for people: what runs where.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mode {}, node {}", self.mode.as_str(), self.node)?;
        if let Some(http) = &self.http {
            write!(f, ", http {} -> {}", http.listen, http.leads_to().join(" "))?;
        }
        for tcp in &self.tcp {
            let downstream: Vec<_> = tcp.downstream.iter().map(ToString::to_string).collect();
            write!(f, ", tcp {} -> {}", tcp.listen, downstream.join(" "))?;
        }
        if let Some(answer) = &self.playback.answer {
            write!(f, ", answers on {}", answer.listen)?;
        }
        for tcp in &self.playback.tcp {
            write!(f, ", answers as {} on {}", tcp.service, tcp.listen)?;
        }
        if let Some(peer) = &self.peer {
            let scheme = self.mqtt.way.scheme(peer.tls);
            write!(f, ", peer {scheme}://{}", peer.endpoint)?;
        }
        if let Some(broker) = &self.broker {
            let scheme = if broker.tls.is_some() {
                "mqtts"
            } else {
                "mqtt"
            };
            write!(f, ", broker on {scheme}://{}", broker.listen)?;
        }
        write!(f, ", api on {}", self.api.listen)?;
        if !self.unused.is_empty() {
            let mode = self.mode.as_str();
            write!(f, "; not used in mode {mode}: {}", self.unused.join(", "))?;
        }
        Ok(())
    }
}
