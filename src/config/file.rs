//! What the user may type. Every key is in `docs/configuration.md`, which a test holds against this file.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use super::error::Problem;
use super::value::{Many, Size, Span};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) mode: Mode,
    pub(super) node: Option<String>,
    pub(super) http: Option<Http>,
    pub(super) tcp: Option<Many<Tcp>>,
    pub(super) peer: Option<Peer>,
    pub(super) broker: Option<Address>,
    #[serde(default)]
    pub(super) mqtt: Mqtt,
    #[serde(default)]
    pub(super) store: Store,
    #[serde(default)]
    pub(super) spool: Spool,
    #[serde(default)]
    pub(super) capture: Capture,
    #[serde(default)]
    pub(super) playback: Playback,
    #[serde(default)]
    pub(super) api: Api,
    #[serde(default)]
    pub(super) retention: Retention,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) enum Mode {
    Record,
    Playback,
    Standalone,
    Forward,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    pub(super) host: Option<String>,
    pub(super) port: u16,
    pub(super) downstream: Option<Many<String>>,
    pub(super) service: Option<String>,
    pub(super) tls: Option<TlsFiles>,
    pub(super) upstream_ca: Option<PathBuf>,
    pub(super) preserve_host: Option<bool>,
    pub(super) forwarded: Option<bool>,
    pub(super) max_connections: Option<usize>,
    pub(super) max_head_bytes: Option<Size>,
    pub(super) idle_timeout: Option<Span>,
    pub(super) connect_timeout: Option<Span>,
    pub(super) response_timeout: Option<Span>,
    pub(super) body_timeout: Option<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tcp {
    pub(super) host: Option<String>,
    pub(super) port: u16,
    pub(super) downstream: Many<String>,
    pub(super) service: Option<String>,
    pub(super) tls: Option<TlsFiles>,
    pub(super) upstream_ca: Option<PathBuf>,
    pub(super) max_connections: Option<usize>,
    pub(super) idle_timeout: Option<Span>,
    pub(super) connect_timeout: Option<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsFiles {
    pub(super) tls_cert: PathBuf,
    pub(super) tls_key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) host: String,
    pub(super) port: u16,
    #[serde(default)]
    pub(super) tls: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Address {
    pub(super) host: Option<String>,
    pub(super) port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mqtt {
    pub(super) root: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) app_id: Option<String>,
    pub(super) token: Option<SecretString>,
    pub(super) ca: Option<PathBuf>,
    pub(super) compression: Option<Compression>,
    pub(super) window_messages: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Compression {
    None,
    Lz4,
    Zstd,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    pub(super) path: Option<PathBuf>,
    pub(super) redis: Option<SecretString>,
    pub(super) redis_cluster: Option<Vec<SecretString>>,
    pub(super) prefix: Option<String>,
    pub(super) fsync: Option<Fsync>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Fsync {
    Always,
    Interval,
    Never,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spool {
    pub(super) path: Option<PathBuf>,
    pub(super) max_bytes: Option<Size>,
    pub(super) max_age: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Capture {
    pub(super) enabled: Option<bool>,
    pub(super) sample: Option<f64>,
    pub(super) max_body_bytes: Option<Size>,
    pub(super) max_stream_bytes: Option<Size>,
    pub(super) queue_bytes: Option<Size>,
    #[serde(default)]
    pub(super) include: Vec<Rule>,
    #[serde(default)]
    pub(super) exclude: Vec<Rule>,
    #[serde(default)]
    pub(super) redact: Redact,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) methods: Option<Many<String>>,
    pub(super) paths: Option<Many<String>>,
    pub(super) hosts: Option<Many<String>>,
    pub(super) statuses: Option<Many<Status>>,
    pub(super) content_types: Option<Many<String>>,
}

/// `404`, or `"5xx"`.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "a status such as 404, or a class such as \"5xx\""
)]
pub(super) enum Status {
    Number(u16),
    Text(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Redact {
    #[serde(default)]
    pub(super) headers: Vec<String>,
    #[serde(default)]
    pub(super) json: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Playback {
    pub(super) http: Option<Answering>,
    pub(super) miss: Option<Miss>,
    pub(super) repeat: Option<Repeat>,
    pub(super) match_host: Option<bool>,
    pub(super) match_body: Option<bool>,
    #[serde(default)]
    pub(super) match_headers: Vec<String>,
    #[serde(default)]
    pub(super) ignore_query: Vec<String>,
    pub(super) auto: Option<Auto>,
    pub(super) allowed_targets: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answering {
    pub(super) host: Option<String>,
    pub(super) port: u16,
    pub(super) tls: Option<TlsFiles>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Miss {
    Explain,
    PassThrough(String),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Repeat {
    Last,
    Loop,
    Latest,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Auto {
    pub(super) target: String,
    pub(super) concurrency: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Api {
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) token: Option<SecretString>,
    #[serde(default)]
    pub(super) allowed_hosts: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retention {
    pub(super) max_age: Option<Span>,
    pub(super) max_bytes: Option<Size>,
}

/// Reads the JSON; what is wrong is told with the key's path and the value seen.
pub(super) fn read(text: &str) -> Result<File, Problem> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let file = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let key = match error.path().to_string() {
            root if root == "." => String::new(),
            key => key,
        };
        let error = error.into_inner();
        match error.classify() {
            serde_json::error::Category::Data => Problem::new(key, explain(&error)),
            _ => Problem::new("", format!("no JSON: {error}")),
        }
    })?;
    reader
        .end()
        .map_err(|error| Problem::new("", format!("no JSON: {error}")))?;
    Ok(file)
}

/// serde's message, with the nearest known key where one is not known.
fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let Some(rest) = text.strip_prefix("unknown field `") else {
        return text;
    };
    let mut names = rest.split('`').step_by(2);
    let unknown = names.next().unwrap_or_default().to_owned();
    let place = text.rsplit(" at line ").next().unwrap_or_default();
    let names: Vec<&str> = rest.split('`').skip(2).step_by(2).collect();
    let nearest = names.iter().min_by_key(|name| distance(name, &unknown));
    match nearest.filter(|name| distance(name, &unknown) <= 1 + unknown.len() / 3) {
        Some(name) => format!("unknown key `{unknown}`, did you mean `{name}`? (line {place})"),
        None => format!(
            "unknown key `{unknown}`, known are {} (line {place})",
            names.join(", ")
        ),
    }
}

/// The Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y))
                .min(row[j] + 1)
                .min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}
