//! How records are used: answering, and replaying as they arrive.

use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use super::{Endpoint, ListenerTls, TlsFiles};

/// How records are used.
#[derive(Debug, Clone)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct PlaybackSettings {
    pub answer: Option<AnswerSettings>,
    pub tcp: Vec<AnswerTcpSettings>,
    pub miss: Miss,
    pub auto: Option<Auto>,
    pub allowed_targets: Vec<String>,
    pub repeat: Repeat,
    pub delay: Delay,
    pub matching: MatchSettings,
}

/// The listener that answers from the records.
#[derive(Debug, Clone)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct AnswerSettings {
    pub listen: Endpoint,
    pub tls: Option<ListenerTls>,
    /// What tunnels are decrypted with.
    pub ca: Option<TlsFiles>,
    /// What clients have to show who open one.
    pub credentials: Option<SecretString>,
}

/// A listener that answers from recorded streams.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct AnswerTcpSettings {
    pub listen: Endpoint,
    pub service: String,
    pub tls: Option<ListenerTls>,
    pub ignore: Vec<IgnoreSetting>,
    pub max_connections: usize,
    pub idle_timeout: Duration,
}

/// What of a client's bytes may be anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IgnoreSetting {
    /// Those from here to before there, counted from the start of the connection.
    Bytes(std::ops::Range<u64>),
    /// What this regular expression finds in what the client said in one go.
    Pattern(String),
}

/// What is answered where no record fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// 404 with the nearest records.
    Explain,
    /// What this live service answers, `http://host:port`.
    PassThrough(String),
}

/// Replay records as they arrive, to `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auto(pub String);

/// What comes after the last recorded answer to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Repeat {
    /// The last one again.
    Last,
    /// All of them again.
    Loop,
    /// No sequence: always the newest.
    Latest,
}

/// How long an answer waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// Not at all.
    None,
    /// As long as the recorded service took.
    AsRecorded,
    /// So long.
    Fixed(Duration),
}

/// What makes two requests the same, beside method, path and query.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct MatchSettings {
    pub host: bool,
    pub ignore_query: Vec<String>,
    /// Lower case.
    pub headers: Vec<String>,
    pub body: BodyMatch,
}

/// How a body takes part in matching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyMatch {
    /// Byte for byte.
    Exact,
    /// Not at all.
    Ignore,
}
