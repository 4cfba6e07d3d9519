//! What a client is built with. Every limit of the library stands here, with its default.

mod reconnect;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::{MAX_REMAINING_LENGTH, UserProperty, Version, Will};
use crate::error::ConfigError;
use crate::persistence::Persistence;
use crate::session::{AckMode, Continuity, OnSessionLost};
use crate::topic;

#[cfg(feature = "websocket")]
pub use crate::transport::WebSocketOptions;
pub use crate::transport::{Proxy, ProxyKind, Transport};
pub use reconnect::{Backoff, Takeover};

/// Settings of one client. All fields are public: take `..Default::default()` for the rest.
///
/// ```
/// use std::time::Duration;
/// use qproxy_mqtt::{MqttConfig, Version};
///
/// let config = MqttConfig {
///     protocol: Version::V5,
///     client_id: "lamp-1".to_owned(),
///     token: Some("secret".to_owned()),
///     connect_timeout: Duration::from_secs(3),
///     ..MqttConfig::default()
/// };
/// assert_eq!(config.port, 1883);
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Clone)]
pub struct MqttConfig {
    /// Which version of MQTT to speak. Default 3.1.1, which every server does.
    pub protocol: Version,
    /// Client id. Empty lets the server choose one, which in 3.1.1 needs `clean_session`; in 5.0 the one it chose is
    /// kept for later connections of this client; with `persistence` it has to be named.
    pub client_id: String,
    /// Name or address of the server. Default `localhost`.
    pub host: String,
    /// Its port. Default 1883.
    pub port: u16,
    /// Further servers, tried in turn where the one before cannot be reached, refuses, accepts but ends the connection
    /// at once, or says to use another. Whether they share sessions is up to them. Default none.
    pub fallbacks: Vec<Server>,
    /// Keep alive in seconds; 0 switches it off. Default 60.
    pub keep_alive: u16,
    /// Travels as MQTT user name.
    pub app_id: Option<String>,
    /// Travels as MQTT password. Does not print.
    pub token: Option<String>,
    /// Whether the server forgets the client when it leaves. Default true.
    ///
    /// In MQTT 5.0 this is Clean Start, and `session_expiry` says how long the session outlives a connection.
    pub clean_session: bool,
    /// How long the server keeps the session after the connection ended, in whole seconds, rounded up; MQTT 5.0 only.
    ///
    /// Default `None`: for ever without `clean_session`, and not at all with it, as in 3.1.1. Better to name a time:
    /// a client that never comes back then leaves nothing behind. With `clean_session` and a time here, the first
    /// connection begins a new session, later ones resume it, and `disconnect` ends it.
    pub session_expiry: Option<Duration>,
    /// What happens to publishes in flight where the server has lost the session; with `clean_session` that is at
    /// every reconnect. Default: they are published again.
    pub on_session_lost: OnSessionLost,
    /// Messages of QoS 1 and 2 that the server may have unacknowledged; a server that exceeds it is disconnected.
    /// MQTT 5.0 only. Default 1,000.
    pub receive_maximum: u16,
    /// Topic aliases that the server may use; each keeps a topic in memory. MQTT 5.0 only. Default 10.
    pub topic_alias_maximum: u16,
    /// Sent with CONNECT; MQTT 5.0 only. Default none.
    pub user_properties: Vec<UserProperty>,
    /// What the server publishes where the client vanishes.
    pub will: Option<Will>,
    /// TLS; `None` sends in the clear.
    pub tls: Option<TlsOptions>,
    /// What carries the packets, in TLS or not. Default: the bare stream.
    pub transport: Transport,
    /// The proxy on the way to every server; it resolves their names. Default none.
    pub proxy: Option<Proxy>,
    /// Limit of one attempt from name resolution, over proxy, TLS and WebSocket, to CONNACK. Default 10 s.
    pub connect_timeout: Duration,
    /// Pauses between attempts.
    pub reconnect: Backoff,
    /// When to believe that another client has the same id.
    pub takeover: Takeover,
    /// Publishes of QoS 1 and 2 in flight at once, 65,519 at most: subscribes need ids too. Default 100.
    pub window: u16,
    /// How many of those may be of QoS 2. Default 20: Mosquitto completes further ones, and loses them without a
    /// word (2.0.11 at its default `max_inflight_messages`).
    pub window_exactly_once: u16,
    /// Largest packet in either direction, in bytes. Default 16 MiB.
    pub max_packet_size: usize,
    /// Publishes that wait for the connection or the window. Default 10,000.
    pub queue_messages: usize,
    /// Bytes of those. Default 64 MiB.
    pub queue_bytes: usize,
    /// What happens to a publish when the queue is full. Default: it waits.
    pub overflow: Overflow,
    /// Limit of one `publish`, waiting for room included. Default none.
    pub publish_timeout: Option<Duration>,
    /// Limit of one `subscribe` or `unsubscribe`, waiting for a connection included. Default none.
    pub request_timeout: Option<Duration>,
    /// Messages received that wait for the program, per receiver. Default 1,000.
    pub inbound_messages: usize,
    /// Bytes of those, over all receivers. Default 64 MiB.
    pub inbound_bytes: usize,
    /// How long packets that come fast may wait in the socket, so that many share a wake-up: this process and the
    /// server spend far less on each then. What comes less often than once in this time is taken at once, the last of
    /// a fast stream within twice this time and a millisecond. Zero takes all at once; at most 1 s. Linux only.
    /// Default 500 us.
    pub coalescing: Duration,
    /// How long messages may stand unreceived in front of the answers that calls wait for, before those calls fail
    /// with [`Error::Stalled`](crate::Error::Stalled): a program that waits for an answer in the very loop that
    /// receives would otherwise wait for ever. Zero switches it off. Default 30 s.
    pub stall_timeout: Duration,
    /// Who acknowledges what arrives. Default: the client.
    pub ack_mode: AckMode,
    /// How long `disconnect` waits for what is queued and in flight. Default 5 s.
    pub drain_timeout: Duration,
    /// Requests and responses.
    pub query: QueryOptions,
    /// Where publishes of QoS 1 and 2 outlive the process; see [`persistence`](crate::persistence). It wants
    /// `clean_session` off. A publish counts as accepted once it is saved. Default: nowhere.
    pub persistence: Option<Arc<dyn Persistence>>,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            protocol: Version::V311,
            client_id: String::new(),
            host: "localhost".to_owned(),
            port: 1883,
            fallbacks: Vec::new(),
            keep_alive: 60,
            app_id: None,
            token: None,
            clean_session: true,
            session_expiry: None,
            on_session_lost: OnSessionLost::default(),
            receive_maximum: 1000,
            topic_alias_maximum: 10,
            user_properties: Vec::new(),
            will: None,
            tls: None,
            transport: Transport::default(),
            proxy: None,
            connect_timeout: Duration::from_secs(10),
            reconnect: Backoff::default(),
            takeover: Takeover::default(),
            window: 100,
            window_exactly_once: 20,
            max_packet_size: 16 << 20,
            queue_messages: 10_000,
            queue_bytes: 64 << 20,
            overflow: Overflow::default(),
            publish_timeout: None,
            request_timeout: None,
            inbound_messages: 1000,
            inbound_bytes: 64 << 20,
            coalescing: Duration::from_micros(500),
            stall_timeout: Duration::from_secs(30),
            ack_mode: AckMode::default(),
            drain_timeout: Duration::from_secs(5),
            query: QueryOptions::default(),
            persistence: None,
        }
    }
}

impl MqttConfig {
    /// How many servers there are to try.
    pub(crate) fn server_count(&self) -> usize {
        1 + self.fallbacks.len()
    }

    /// The server to try at an attempt, counted over all attempts.
    pub(crate) fn server(&self, attempt: usize) -> (&str, u16) {
        match (attempt % self.server_count()).checked_sub(1) {
            None => (&self.host, self.port),
            Some(fallback) => {
                let Server { host, port } = &self.fallbacks[fallback];
                (host, *port)
            }
        }
    }

    /// What can be seen to be wrong before anything is sent.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.host.is_empty() || self.fallbacks.iter().any(|it| it.host.is_empty()) {
            return Err(ConfigError::Host);
        }
        if self.protocol == Version::V311 {
            self.check_plain()?;
        }
        if self.persistence.is_some() && self.clean_session {
            return Err(ConfigError::PersistenceAlone);
        }
        if self.persistence.is_some() && self.client_id.is_empty() {
            return Err(ConfigError::PersistenceUnnamed);
        }
        let windows = [self.window, self.window_exactly_once, self.receive_maximum];
        if windows.contains(&0) || self.queue_messages == 0 || self.inbound_messages == 0 {
            return Err(ConfigError::Zero);
        }
        if !(64..=MAX_REMAINING_LENGTH + 5).contains(&self.max_packet_size) {
            return Err(ConfigError::PacketSize(self.max_packet_size));
        }
        let mut alpn = self.tls.iter().flat_map(|tls| &tls.alpn);
        if let Some(protocol) = alpn.find(|it| !(1..=255).contains(&it.len())) {
            return Err(ConfigError::Alpn(protocol.clone()));
        }
        topic::validate_topic(&self.query.reply_root).map_err(ConfigError::Query)?;
        topic::validate_topic(&self.query.request_level).map_err(ConfigError::Query)?;
        Ok(())
    }

    /// What MQTT 3.1.1 does not allow, or has no place for.
    fn check_plain(&self) -> Result<(), ConfigError> {
        if self.client_id.is_empty() && !self.clean_session {
            return Err(ConfigError::ClientId);
        }
        if self.token.is_some() && self.app_id.is_none() {
            return Err(ConfigError::TokenAlone);
        }
        if self.session_expiry.is_some() {
            return Err(ConfigError::NeedsV5("session_expiry"));
        }
        if !self.user_properties.is_empty() {
            return Err(ConfigError::NeedsV5("user_properties"));
        }
        if self.will.as_ref().is_some_and(|it| it.properties.is_some()) {
            return Err(ConfigError::NeedsV5("a will with properties"));
        }
        Ok(())
    }

    /// Seconds that the server is asked to keep the session.
    pub(crate) fn session_expiry_seconds(&self) -> u32 {
        match self.session_expiry {
            Some(time) => whole_seconds(time),
            None if self.clean_session => 0,
            None => u32::MAX,
        }
    }

    /// How connections go on from one to the next.
    pub(crate) fn continuity(&self) -> Continuity {
        match (self.clean_session, self.protocol) {
            (false, _) => Continuity::Resumed,
            (true, Version::V5) if self.session_expiry_seconds() > 0 => Continuity::FirstAnew,
            (true, _) => Continuity::EachAnew,
        }
    }
}

impl fmt::Debug for MqttConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MqttConfig")
            .field("protocol", &self.protocol)
            .field("client_id", &self.client_id)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("fallbacks", &self.fallbacks)
            .field("keep_alive", &self.keep_alive)
            .field("app_id", &self.app_id)
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("clean_session", &self.clean_session)
            .field("will", &self.will)
            .field("tls", &self.tls)
            .field("transport", &self.transport)
            .field("proxy", &self.proxy)
            .field("persistence", &self.persistence)
            .finish_non_exhaustive()
    }
}

/// A time as MQTT counts it, rounded up: what is asked for is at least that long.
pub(crate) fn whole_seconds(time: Duration) -> u32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Where a server listens.
///
/// ```
/// use qproxy_mqtt::{MqttConfig, options::Server};
///
/// let second = Server {
///     host: "mqtt-2.example".to_owned(),
///     port: 1883,
/// };
/// let config = MqttConfig {
///     fallbacks: vec![second],
///     ..MqttConfig::default()
/// };
/// assert_eq!(config.fallbacks[0].host, "mqtt-2.example");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// TLS settings. The default trusts what the operating system trusts.
///
/// ```
/// use qproxy_mqtt::{MqttConfig, options::TlsOptions};
///
/// let tls = TlsOptions {
///     ca: Some("certificates/ca.pem".into()),
///     ..TlsOptions::default()
/// };
/// let config = MqttConfig {
///     port: 8883,
///     tls: Some(tls),
///     ..MqttConfig::default()
/// };
/// assert!(config.tls.is_some_and(|tls| tls.alpn.is_empty()));
/// ```
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// PEM file with the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of the client's certificate chain and its private key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// The name the server's certificate has to have, where it is not `host`.
    pub server_name: Option<String>,
    /// Protocols to offer (ALPN, RFC 7301), the best first; each of 1 to 255 bytes. A server that knows of ALPN and
    /// of none of them refuses. Some clouds take MQTT on port 443 by it: `x-amzn-mqtt-ca`. Default none.
    pub alpn: Vec<String>,
}

/// What happens to a publish when the queue is full.
///
/// ```
/// use qproxy_mqtt::{MqttConfig, options::Overflow};
///
/// let config = MqttConfig {
///     queue_messages: 100,
///     overflow: Overflow::DropOldest,
///     ..MqttConfig::default()
/// };
/// assert_ne!(config.overflow, Overflow::default());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It waits for room.
    #[default]
    Wait,
    /// It fails.
    Refuse,
    /// The oldest that waits is thrown out, and fails.
    DropOldest,
}

/// Settings of `query` and `respond`.
///
/// ```
/// use std::time::Duration;
/// use qproxy_mqtt::options::QueryOptions;
///
/// let options = QueryOptions {
///     timeout: Duration::from_secs(2),
///     ..QueryOptions::default()
/// };
/// assert_eq!(options.max_outstanding, 1000);
/// ```
#[derive(Debug, Clone)]
pub struct QueryOptions {
    /// How long a caller waits. Default 10 s.
    pub timeout: Duration,
    /// Queries open at once. Default 1,000.
    pub max_outstanding: usize,
    /// Largest answer in bytes, all its parts together. Default 16 MiB.
    pub max_response_bytes: usize,
    /// A responder cuts longer answers into parts of this size, in bytes. Default 60 KiB.
    pub part_bytes: usize,
    /// Handlers of one responder at work at once; beyond, callers hear "busy". Default 64.
    pub max_handlers: usize,
    /// Requests a responder remembers, to answer each only once. Default 10,000.
    pub remembered_requests: usize,
    /// The level under the topic that requests go to. Default `_q`.
    pub request_level: String,
    /// The topic that answers stand under. Default `_r`.
    pub reply_root: String,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            max_outstanding: 1000,
            max_response_bytes: 16 << 20,
            part_bytes: 60 << 10,
            max_handlers: 64,
            remembered_requests: 10_000,
            request_level: "_q".to_owned(),
            reply_root: "_r".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::{Change, PersistenceError, Saved};

    #[test]
    fn token_does_not_print() {
        let config = MqttConfig {
            token: Some("hunter2".to_owned()),
            ..MqttConfig::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn impossible_settings_are_refused() {
        let good = MqttConfig::default();
        assert!(good.check().is_ok());
        for bad in [
            MqttConfig {
                host: String::new(),
                ..good.clone()
            },
            MqttConfig {
                clean_session: false,
                ..good.clone()
            },
            MqttConfig {
                token: Some(String::new()),
                ..good.clone()
            },
            MqttConfig {
                window: 0,
                ..good.clone()
            },
            MqttConfig {
                fallbacks: vec![Server {
                    host: String::new(),
                    port: 1883,
                }],
                ..good.clone()
            },
            MqttConfig {
                max_packet_size: 1 << 30,
                ..good.clone()
            },
            MqttConfig {
                tls: Some(TlsOptions {
                    alpn: vec![String::new()],
                    ..TlsOptions::default()
                }),
                ..good.clone()
            },
            MqttConfig {
                receive_maximum: 0,
                ..good.clone()
            },
            MqttConfig {
                session_expiry: Some(Duration::from_secs(1)),
                ..good.clone()
            },
            MqttConfig {
                user_properties: vec![("a".into(), "b".into())],
                ..good.clone()
            },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mqtt_5_takes_what_3_1_1_cannot_carry() {
        let config = MqttConfig {
            protocol: Version::V5,
            clean_session: false,
            token: Some("alone".to_owned()),
            session_expiry: Some(Duration::from_secs(1)),
            user_properties: vec![("a".into(), "b".into())],
            ..MqttConfig::default()
        };
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn what_outlives_the_process_needs_a_name_in_both_versions() {
        #[derive(Debug)]
        struct Nowhere;
        impl Persistence for Nowhere {
            fn load(&self, _: &str) -> Result<Saved, PersistenceError> {
                Ok(Saved::default())
            }
            fn save(&self, _: &[Change]) -> Result<(), PersistenceError> {
                Ok(())
            }
        }
        for protocol in [Version::V311, Version::V5] {
            let unnamed = MqttConfig {
                protocol,
                clean_session: false,
                persistence: Some(Arc::new(Nowhere)),
                ..MqttConfig::default()
            };
            assert!(unnamed.check().is_err(), "{protocol:?}");
            let named = MqttConfig {
                client_id: "a".to_owned(),
                ..unnamed
            };
            assert_eq!(named.check(), Ok(()));
        }
    }

    #[test]
    fn a_session_lasts_as_in_3_1_1_unless_a_time_is_named() {
        let config = |protocol, clean_session, session_expiry| MqttConfig {
            protocol,
            clean_session,
            session_expiry,
            ..MqttConfig::default()
        };
        let lasts = |config: &MqttConfig| (config.session_expiry_seconds(), config.continuity());
        let half = Some(Duration::from_millis(500));
        for (config, expected) in [
            (config(Version::V311, true, None), (0, Continuity::EachAnew)),
            (config(Version::V5, true, None), (0, Continuity::EachAnew)),
            (config(Version::V5, true, half), (1, Continuity::FirstAnew)),
            (config(Version::V5, false, half), (1, Continuity::Resumed)),
            (
                config(Version::V5, false, None),
                (u32::MAX, Continuity::Resumed),
            ),
        ] {
            assert_eq!(lasts(&config), expected, "{config:?}");
        }
    }
}
