//! The exact shape of `config.json`.
//!
//! Unknown keys are refused. What is absent is `None` here and gets its value in `resolve`; `docs/configuration.md`
//! describes every key, and a test holds it against these types.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::problem::{Problem, Problems};
use super::settings::{Balance, BodyMatch, Compression, Forwarded, Mode, MqttVersion, Repeat};
use super::transport::TransportForm;
use super::units::{Limit, Size, Span};

/// What stands in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(
    missing_docs,
    reason = "docs/configuration.md says what each key means"
)]
pub struct File {
    pub mode: Mode,
    pub node: Option<String>,
    pub http: Option<Http>,
    pub tcp: Option<OneOrMany<Tcp>>,
    pub peer: Option<PeerForm>,
    pub broker: Option<Broker>,
    #[serde(default)]
    pub mqtt: Mqtt,
    #[serde(default)]
    pub sync: Sync,
    #[serde(default)]
    pub store: Store,
    #[serde(default)]
    pub spool: Spool,
    #[serde(default)]
    pub capture: Capture,
    pub encryption: Option<Encryption>,
    #[serde(default)]
    pub playback: Playback,
    #[serde(default)]
    pub api: Api,
    #[serde(default)]
    pub retention: Retention,
}

macro_rules! forms {
    ($($(#[$note:meta])* $name:ident { $($key:ident: $type:ty),+ $(,)? })+) => {$(
        $(#[$note])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs, reason = "docs/configuration.md says what each key means")]
        pub struct $name { $(pub $key: Option<$type>),+ }
    )+};
}

forms! {
    /// `http`.
    Http {
        host: String, port: u16, downstream: OneOrMany<String>, service: String, tls: Tls,
        proxy_protocol: bool, upstream_ca: PathBuf, upstream_cert: PathBuf, upstream_key: PathBuf,
        insecure_skip_verify: bool, max_connections: u32, max_upstream_connections: u32,
        connect_timeout: Span, response_timeout: Span, body_timeout: Span, write_timeout: Span,
        max_request_bytes: Limit<Size>, forwarded: Forwarded, routes: Vec<RouteForm>,
    }
    /// One of `http.routes`.
    RouteForm { host: String, path: String, downstream: OneOrMany<String>, service: String }
    /// `tcp`, or one of a list of them.
    Tcp {
        host: String, port: u16, downstream: OneOrMany<String>, balance: Balance, service: String, tls: Tls,
        proxy_protocol: bool, upstream_ca: PathBuf, upstream_cert: PathBuf, upstream_key: PathBuf,
        insecure_skip_verify: bool, max_connections: u32, connect_timeout: Span, idle_timeout: Span,
    }
    /// `tls` of a listener.
    Tls { tls_cert: PathBuf, tls_key: PathBuf, client_ca: PathBuf, client_auth: String }
    /// `peer`.
    PeerForm { host: String, port: u16, tls: bool }
    /// `broker`.
    Broker { host: String, port: u16, tls: BrokerTls }
    /// `broker.tls`.
    BrokerTls { tls_cert: PathBuf, tls_key: PathBuf }
    /// `mqtt`.
    Mqtt {
        root: String, protocol: MqttVersion, app_id: String, token: SecretString, ca: PathBuf,
        compression: Compression, keep_alive: Span, transport: TransportForm, path: String,
        alpn: Vec<String>, proxy: SecretString,
    }
    /// `sync`.
    Sync { window_messages: u32, max_message_bytes: Size, group: String }
    /// `store`.
    Store {
        path: PathBuf, backups: PathBuf, incomplete_after: Span, redis: SecretString, redis_cluster: Vec<SecretString>, redis_prefix: String, redis_ca: PathBuf,
    }
    /// `spool`.
    Spool { path: PathBuf, max_bytes: Size, max_age: Limit<Span> }
    /// `capture`.
    Capture {
        enabled: bool, sample: f64, max_body_bytes: Size, max_stream_bytes: Size, queue_bytes: Size,
        include: Vec<RuleForm>, exclude: Vec<RuleForm>, redact: Redact,
    }
    /// `encryption`.
    Encryption { key_id: String, key_file: PathBuf, key_env: String, old_keys: Vec<OldKey> }
    /// One of `encryption.old_keys`.
    OldKey { key_id: String, key_file: PathBuf, key_env: String }
    /// One of `capture.include` or `capture.exclude`.
    RuleForm {
        methods: Vec<String>, paths: Vec<String>, hosts: Vec<String>, statuses: Vec<Status>,
        content_types: Vec<String>,
    }
    /// `capture.redact`.
    Redact { headers: Vec<String>, json: Vec<String> }
    /// `playback`.
    Playback {
        http: Answer, miss: String, upstream: String, auto: String, allowed_targets: Vec<String>,
        repeat: Repeat, delay: String, r#match: Match,
    }
    /// `playback.http`.
    Answer { host: String, port: u16, tls: Tls }
    /// `playback.match`.
    Match { host: bool, ignore_query: Vec<String>, headers: Vec<String>, body: BodyMatch }
    /// `api`.
    Api { host: String, port: u16, token: SecretString, allowed_hosts: Vec<String> }
    /// `retention`.
    Retention { max_age: Limit<Span>, max_bytes: Limit<Size> }
}

/// A status such as 404, or a class such as "5xx", as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status(pub String);

/// One value, or a list of them.
#[derive(Debug, Clone)]
pub struct OneOrMany<T>(pub Vec<T>);

impl File {
    /// Reads the JSON.
    ///
    /// # Errors
    /// The first thing that is not as it should be: its key, value, line and column.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let file = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            Problems::new(vec![Problem::of_json(&path, error.inner())])
        })?;
        reader
            .end()
            .map_err(|error| Problems::new(vec![Problem::of_json(".", &error)]))?;
        Ok(file)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

/// Goes by what stands there, and so keeps the path and the place of an error, which `untagged` loses.
struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one value or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        T::deserialize(StrDeserializer::new(text)).map(|one| OneOrMany(vec![one]))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|one| OneOrMany(vec![one]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = list.next_element()? {
            all.push(one);
        }
        Ok(OneOrMany(all))
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StatusVisitor;
        impl Visitor<'_> for StatusVisitor {
            type Value = Status;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as 404, or a class such as \"5xx\"")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Status, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Status, E> {
                let bytes = text.as_bytes();
                let first = bytes.first().is_some_and(|b| (b'1'..=b'9').contains(b));
                let rest = bytes.get(1..).unwrap_or_default();
                let digits = rest.iter().all(u8::is_ascii_digit);
                if bytes.len() == 3 && first && (digits || rest.eq_ignore_ascii_case(b"xx")) {
                    Ok(Status(text.to_ascii_lowercase()))
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
                }
            }
        }
        deserializer.deserialize_any(StatusVisitor)
    }
}
