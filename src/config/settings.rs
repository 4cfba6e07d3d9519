//! What the program uses: every value is there and usable.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::error::Problem;

/// What this node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Stands in front of a service and records.
    Record,
    /// Stores what recorders send, answers from it and replays it.
    Playback,
    /// Both, with broker and store in one process.
    Standalone,
    /// Stands in front of a service and records nothing.
    Forward,
}

impl Mode {
    /// As written in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Record => "Record",
            Self::Playback => "Playback",
            Self::Standalone => "Standalone",
            Self::Forward => "Forward",
        }
    }

    /// Whether it captures what passes.
    #[must_use]
    pub const fn records(self) -> bool {
        matches!(self, Self::Record | Self::Standalone)
    }

    /// Whether it keeps records and plays them back.
    #[must_use]
    pub const fn plays(self) -> bool {
        matches!(self, Self::Playback | Self::Standalone)
    }

    /// Whether it stands in front of a service.
    #[must_use]
    pub const fn proxies(self) -> bool {
        !matches!(self, Self::Playback)
    }
}

/// A node's whole configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the node does.
    pub mode: Mode,
    /// Its name: 1 to 64 of `A-Z a-z 0-9 _ -`.
    pub node: String,
    /// The HTTP proxy.
    pub http: Option<Http>,
    /// The TCP proxies.
    pub tcp: Vec<Tcp>,
    /// Where the broker is; `None` where the node meets nobody.
    pub peer: Option<Peer>,
    /// Where this node's own broker listens; `None` where it runs none.
    pub broker: Option<Address>,
    /// How MQTT is spoken.
    pub mqtt: Mqtt,
    /// Where records are kept.
    pub store: Store,
    /// Where the recorder's queue is kept.
    pub spool: Spool,
    /// What is copied.
    pub capture: Capture,
    /// How records are played back.
    pub playback: Playback,
    /// Where the API is.
    pub api: Api,
    /// How long records are kept.
    pub retention: Retention,
}

/// A host (a name or an address) and a port, with the key that they stand under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The key, for messages.
    pub key: String,
    /// The host.
    pub host: String,
    /// The port; 0 takes a free one.
    pub port: u16,
}

/// Certificate and key of a listener, PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The key that they stand under, for messages.
    pub key: String,
    /// `tls_cert`.
    pub certificate: PathBuf,
    /// `tls_key`.
    pub private_key: PathBuf,
}

/// An HTTP proxy. `None` among the limits stands for the proxy's own default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Where it listens.
    pub listen: Address,
    /// The service's endpoints, as written.
    pub downstream: Vec<String>,
    /// The service's name.
    pub service: String,
    /// For an HTTPS listener.
    pub tls: Option<TlsFiles>,
    /// Authorities for upstream certificates.
    pub upstream_ca: Option<PathBuf>,
    /// Whether the upstream sees the client's `Host`.
    pub preserve_host: bool,
    /// Whether `X-Forwarded-*` are added.
    pub forwarded: bool,
    /// Limit.
    pub max_connections: Option<usize>,
    /// Limit.
    pub max_head_bytes: Option<u64>,
    /// Limit.
    pub idle_timeout: Option<Duration>,
    /// Limit.
    pub connect_timeout: Option<Duration>,
    /// Limit.
    pub response_timeout: Option<Duration>,
    /// Limit.
    pub body_timeout: Option<Duration>,
}

/// A TCP proxy. `None` among the limits stands for the proxy's own default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// Where it listens.
    pub listen: Address,
    /// The service's endpoints, as written.
    pub downstream: Vec<String>,
    /// The service's name.
    pub service: String,
    /// To end the clients' TLS.
    pub tls: Option<TlsFiles>,
    /// Authorities for downstream certificates.
    pub upstream_ca: Option<PathBuf>,
    /// Limit.
    pub max_connections: Option<usize>,
    /// Limit.
    pub idle_timeout: Option<Duration>,
    /// Limit.
    pub connect_timeout: Option<Duration>,
}

/// The broker that both sides meet on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
}

/// How MQTT is spoken.
#[derive(Debug, Clone)]
pub struct Mqtt {
    /// The first level of every topic.
    pub root: String,
    /// Sent as user name.
    pub app_id: Option<String>,
    /// Sent as password.
    pub token: Option<SecretString>,
    /// Authorities for the broker's certificate.
    pub ca: Option<PathBuf>,
    /// How whole messages are packed.
    pub compression: Compression,
    /// How far a recorder may be ahead of a player.
    pub window_messages: u64,
}

/// How whole messages are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// As LZ4 frames.
    Lz4,
    /// As Zstandard frames.
    Zstd,
}

/// When written data is forced onto the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before anything is acknowledged.
    Always,
    /// Once a second.
    Interval,
    /// When the system sees fit.
    Never,
}

/// Where records are kept.
#[derive(Debug, Clone)]
pub enum Store {
    /// In a folder.
    Embedded {
        /// The folder.
        path: PathBuf,
        /// When data is forced onto the disk.
        fsync: Fsync,
    },
    /// In one Redis.
    Redis {
        /// Its URL.
        url: SecretString,
        /// What every key starts with.
        prefix: String,
    },
    /// In a Redis Cluster.
    RedisCluster {
        /// URLs of some of its nodes.
        urls: Vec<SecretString>,
        /// What every key starts with.
        prefix: String,
    },
}

/// Where the recorder's queue is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    /// Its folder.
    pub path: PathBuf,
    /// The most it takes.
    pub max_bytes: Option<u64>,
    /// The longest it keeps.
    pub max_age: Option<Duration>,
    /// When data is forced onto the disk.
    pub fsync: Fsync,
}

/// What is copied.
#[derive(Debug, Clone, PartialEq)]
pub struct Capture {
    /// Whether anything is.
    pub enabled: bool,
    /// Which share, 0 to 1.
    pub sample: f64,
    /// What is kept of one body.
    pub max_body_bytes: Option<u64>,
    /// What is kept of one stream.
    pub max_stream_bytes: Option<u64>,
    /// What waits to be encoded, at most.
    pub queue_bytes: Option<u64>,
    /// Where not empty: only this.
    pub include: Vec<Rule>,
    /// Not this.
    pub exclude: Vec<Rule>,
    /// Header fields that are masked.
    pub redact_headers: Vec<String>,
    /// JSON pointers that are masked.
    pub redact_json: Vec<String>,
}

/// One rule of `include` or `exclude`, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The key that it stands under, for messages.
    pub key: String,
    /// Methods.
    pub methods: Vec<String>,
    /// Paths.
    pub paths: Vec<String>,
    /// Hosts.
    pub hosts: Vec<String>,
    /// Statuses.
    pub statuses: Vec<String>,
    /// Media types.
    pub content_types: Vec<String>,
}

/// How records are played back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Playback {
    /// Where requests are answered from the records.
    pub answer: Option<(Address, Option<TlsFiles>)>,
    /// What happens where no record answers.
    pub miss: Miss,
    /// Which of several answers is given.
    pub repeat: Repeat,
    /// Whether `Host` takes part in matching.
    pub match_host: bool,
    /// Whether the body does.
    pub match_body: bool,
    /// Which header fields do.
    pub match_headers: Vec<String>,
    /// Which query parameters do not.
    pub ignore_query: Vec<String>,
    /// Where arriving records are replayed at once.
    pub auto: Option<Auto>,
    /// Hosts that replay may send to.
    pub allowed_targets: Vec<String>,
}

/// What happens where no record answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// A 404 that tells why.
    Explain,
    /// The request goes to this URL.
    PassThrough(String),
}

/// Which of several recorded answers to one request is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// In order, then the last one again and again.
    Last,
    /// In order, and round again.
    Loop,
    /// The newest.
    Latest,
}

/// Live replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auto {
    /// Where to.
    pub target: String,
    /// How many at once.
    pub concurrency: Option<usize>,
}

/// Where the API is.
#[derive(Debug, Clone)]
pub struct Api {
    /// Where it listens.
    pub listen: Address,
    /// What clients must know.
    pub token: Option<SecretString>,
    /// Names under which it may be reached without a token.
    pub allowed_hosts: Vec<String>,
}

/// How long records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// By age.
    pub max_age: Option<Duration>,
    /// By size.
    pub max_bytes: Option<u64>,
}

impl Settings {
    /// One line on what the node will do.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut parts = vec![format!("mode {}, node {}", self.mode.as_str(), self.node)];
        if let Some(http) = self.http.as_ref().filter(|_| self.mode.proxies()) {
            parts.push(format!(
                "http {} -> {}",
                http.listen,
                http.downstream.join(", ")
            ));
        }
        for tcp in self.tcp.iter().filter(|_| self.mode.proxies()) {
            parts.push(format!(
                "tcp {} -> {}",
                tcp.listen,
                tcp.downstream.join(", ")
            ));
        }
        if let Some((answer, _)) = &self.playback.answer {
            parts.push(format!("answers on {answer}"));
        }
        if let Some(broker) = &self.broker {
            parts.push(format!("own broker on {broker}"));
        } else if let Some(peer) = &self.peer {
            let tls = if peer.tls { " (TLS)" } else { "" };
            parts.push(format!("broker {}:{}{tls}", peer.host, peer.port));
        }
        parts.push(format!("api {}", self.api.listen));
        parts.join("; ")
    }

    /// Files that the configuration names and that cannot be read.
    #[must_use]
    pub fn missing_files(&self) -> Vec<Problem> {
        let mut files: Vec<(String, &Path)> = Vec::new();
        let listeners = self.http.iter().map(|http| &http.tls);
        let listeners = listeners.chain(self.tcp.iter().map(|tcp| &tcp.tls));
        let answer = self
            .playback
            .answer
            .as_ref()
            .and_then(|(_, tls)| tls.as_ref());
        for tls in listeners.flatten().chain(answer) {
            files.push((format!("{}.tls_cert", tls.key), &tls.certificate));
            files.push((format!("{}.tls_key", tls.key), &tls.private_key));
        }
        if let Some(ca) = &self.mqtt.ca {
            files.push(("mqtt.ca".into(), ca));
        }
        if let Some(ca) = self
            .http
            .as_ref()
            .and_then(|http| http.upstream_ca.as_deref())
        {
            files.push(("http.upstream_ca".into(), ca));
        }
        for tcp in &self.tcp {
            if let Some(ca) = &tcp.upstream_ca {
                files.push((tcp.listen.key.replace(".port", ".upstream_ca"), ca));
            }
        }
        let unreadable = files.into_iter().filter_map(|(key, path)| {
            let error = std::fs::File::open(path).err()?;
            Some(Problem::new(
                key,
                format!("cannot read {}: {error}", path.display()),
            ))
        });
        unreadable.collect()
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
