//! What a broker is told at its start: where to listen, whom to let in, and every limit.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use qproxy_mqtt::codec::QoS;
use secrecy::SecretString;

use crate::Error;

/// Where to listen, whom to let in, and the limits.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address of the listener; port 0 lets the system choose. Default `127.0.0.1:1883`.
    pub listen: SocketAddr,
    /// The MQTT user name that clients must give. Required unless `listen` is a loopback address.
    pub app_id: Option<String>,
    /// The MQTT password that clients must give. Required unless `listen` is a loopback address.
    pub token: Option<SecretString>,
    /// TLS on the listener, where it is wanted. Connections from this machine may do without.
    pub tls: Option<Tls>,
    /// Everything that is bounded.
    pub limits: Limits,
}

/// The files that a TLS listener needs, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, the server's own first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            app_id: None,
            token: None,
            tls: None,
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// The defaults, listening on `listen`.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            ..Self::default()
        }
    }

    /// Refuses an open door and limits with which nothing could work.
    ///
    /// # Errors
    /// [`Error::Exposed`] and [`Error::Limit`].
    pub fn check(&self) -> Result<(), Error> {
        let guarded = self.app_id.is_some() && self.token.is_some();
        if !self.listen.ip().is_loopback() && !guarded {
            return Err(Error::Exposed {
                address: self.listen,
            });
        }
        self.limits.check()
    }
}

/// What to give up when a session's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// Keep what waits and drop the message that arrives, as Mosquitto does.
    #[default]
    DropNewest,
    /// Drop what has waited longest to make room for the message that arrives.
    DropOldest,
}

/// Everything that is bounded. Whatever is dropped or refused for one of these is counted in [`crate::Stats`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Network connections at a time, with or without a CONNECT so far. Default 1,000.
    pub connections: usize,
    /// Sessions, connected or not. When full, the one offline for longest gives way; where all are
    /// connected the client is refused. Default 2,000.
    pub sessions: usize,
    /// How long a session without a connection is kept at most; an MQTT 5 client that asks for more is told.
    /// Default 24 hours.
    pub session_expiry: Duration,
    /// Subscriptions of one session; more are refused. Default 1,000.
    pub subscriptions_per_session: usize,
    /// Subscriptions of all sessions; more are refused. Default 50,000.
    pub subscriptions: usize,
    /// Length of a topic name or filter in bytes. Default 1,024.
    pub topic_bytes: usize,
    /// Levels of a topic name or filter. Default 32.
    pub topic_levels: usize,
    /// A whole packet in bytes; a longer one closes the connection. Default 1 MiB.
    pub packet_bytes: usize,
    /// QoS 1 and 2 messages on their way to one client without an acknowledgement; fewer where an MQTT 5
    /// client says so. Default 1,000.
    pub in_flight: u16,
    /// QoS 2 messages from one client between PUBLISH and PUBREL; more close the connection. MQTT 5 clients
    /// are told it as Receive Maximum. Default 10,000.
    pub incoming_qos2: usize,
    /// What the MQTT 5 properties of one message may take in memory, in bytes: their text and data, and 64
    /// for each user property. A message with more is refused. Default 16 KiB.
    pub property_bytes: usize,
    /// Topic aliases of one connection in each direction; 0 for none. Default 32.
    pub topic_aliases: u16,
    /// The highest QoS that clients may publish with; subscriptions are granted no more. Default 2.
    pub maximum_qos: QoS,
    /// The longest keep alive of an MQTT 5 client, which is told; others keep theirs. `None` leaves the choice
    /// to the client, 0 included. Default `None`.
    pub maximum_keep_alive: Option<Duration>,
    /// Messages that wait for one session, not counting those in flight. Default 10,000.
    pub queued_messages: usize,
    /// Payload and topic bytes that wait or are in flight for one session. Default 32 MiB.
    pub queued_bytes: usize,
    /// Payload and topic bytes that wait or are in flight for all sessions. Sessions without a connection
    /// fill at most half of it, and a connected one may always hold `outbox_bytes`, so that who is away
    /// or slow cannot starve who is not. Default 128 MiB.
    pub total_queued_bytes: usize,
    /// What to give up when a queue is full. Default [`Overflow::DropNewest`].
    pub overflow: Overflow,
    /// Retained messages; more are delivered but not retained. 0 switches them off. Default 10,000.
    pub retained_messages: usize,
    /// Payload and topic bytes of the retained messages. Default 16 MiB.
    pub retained_bytes: usize,
    /// Bytes of messages handed to one connection and not yet written to its socket; the rest waits in the
    /// session's queue. A client with twice as much of anything unwritten is not read from. Default 256 KiB.
    pub outbox_bytes: usize,
    /// From the connection to its CONNECT, and for the TLS handshake before. Default 10 s.
    pub connect_timeout: Duration,
    /// How long a socket may take no byte while there is something to write. Default 60 s.
    pub write_timeout: Duration,
    /// How long [`crate::RunningBroker::shutdown`] lets connections write what they hold. Default 2 s.
    pub shutdown_grace: Duration,
    /// Between two publications of the `$SYS` topics. Default 10 s.
    pub sys_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            connections: 1_000,
            sessions: 2_000,
            session_expiry: Duration::from_secs(24 * 3600),
            subscriptions_per_session: 1_000,
            subscriptions: 50_000,
            topic_bytes: 1_024,
            topic_levels: 32,
            packet_bytes: MIB,
            in_flight: 1_000,
            incoming_qos2: 10_000,
            property_bytes: 16 * 1024,
            topic_aliases: 32,
            maximum_qos: QoS::ExactlyOnce,
            maximum_keep_alive: None,
            queued_messages: 10_000,
            queued_bytes: 32 * MIB,
            total_queued_bytes: 128 * MIB,
            overflow: Overflow::DropNewest,
            retained_messages: 10_000,
            retained_bytes: 16 * MIB,
            outbox_bytes: MIB / 4,
            connect_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            shutdown_grace: Duration::from_secs(2),
            sys_interval: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Packet ids are 16 bits and one of them must always be free.
    const MOST_IN_FLIGHT: u16 = 60_000;
    /// Matching descends one stack frame per level.
    const MOST_LEVELS: usize = 200;
    /// The longest packet of the protocol: five bytes of header and a remaining length of four 7-bit digits.
    const LARGEST_PACKET: usize = 268_435_455 + 5;

    fn check(&self) -> Result<(), Error> {
        let positive = [
            ("connections", self.connections as u128),
            ("sessions", self.sessions as u128),
            (
                "subscriptions_per_session",
                self.subscriptions_per_session as u128,
            ),
            ("subscriptions", self.subscriptions as u128),
            ("topic_bytes", self.topic_bytes as u128),
            ("incoming_qos2", self.incoming_qos2 as u128),
            ("queued_messages", self.queued_messages as u128),
            ("queued_bytes", self.queued_bytes as u128),
            ("total_queued_bytes", self.total_queued_bytes as u128),
            ("outbox_bytes", self.outbox_bytes as u128),
            ("connect_timeout", self.connect_timeout.as_millis()),
            ("write_timeout", self.write_timeout.as_millis()),
            ("sys_interval", self.sys_interval.as_millis()),
        ];
        for (name, value) in positive {
            within(name, value, 1, u128::MAX, "more than 0")?;
        }
        within(
            "in_flight",
            self.in_flight.into(),
            1,
            Self::MOST_IN_FLIGHT.into(),
            "1 to 60,000",
        )?;
        within(
            "topic_levels",
            self.topic_levels as u128,
            1,
            Self::MOST_LEVELS as u128,
            "1 to 200",
        )?;
        within(
            "packet_bytes",
            self.packet_bytes as u128,
            128,
            Self::LARGEST_PACKET as u128,
            "128 to 268,435,460",
        )?;
        if let Some(longest) = self.maximum_keep_alive {
            within(
                "maximum_keep_alive",
                longest.as_secs().into(),
                1,
                u16::MAX.into(),
                "1 to 65,535 seconds",
            )?;
        }
        // So that a message always fits into an empty queue.
        within(
            "queued_bytes",
            self.queued_bytes as u128,
            self.packet_bytes as u128,
            self.total_queued_bytes as u128,
            "from packet_bytes to total_queued_bytes",
        )
    }
}

fn within(
    name: &'static str,
    value: u128,
    least: u128,
    most: u128,
    expected: &'static str,
) -> Result<(), Error> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::Limit {
        name,
        value,
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public() -> Config {
        Config::new(SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    #[test]
    fn refuses_a_public_address_without_both_secrets() {
        let half = Config {
            app_id: Some("shop".into()),
            ..public()
        };
        for config in [public(), half] {
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains("0.0.0.0:0"), "{message}");
            assert!(message.contains("both app_id and token"), "{message}");
        }
        let guarded = Config {
            app_id: Some("shop".into()),
            token: Some("secret".into()),
            ..public()
        };
        guarded.check().unwrap();
    }

    #[test]
    fn loopback_needs_no_secret() {
        Config::default().check().unwrap();
        Config::new("[::1]:0".parse().unwrap()).check().unwrap();
    }

    #[test]
    fn limits_that_serve_nobody_are_named() {
        let mut config = Config::default();
        config.limits.in_flight = 0;
        let message = config.check().unwrap_err().to_string();
        assert_eq!(message, "limit in_flight is 0, must be 1 to 60,000");
        let mut config = Config::default();
        config.limits.topic_levels = 201;
        assert!(config.check().is_err());
        let mut config = Config::default();
        config.limits.outbox_bytes = 0;
        assert!(config.check().is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = Config {
            token: Some("hunter2".into()),
            ..Config::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
