//! What a session is built with.

use std::time::Duration;

use crate::codec::Version;

/// What a session is built with.
///
/// ```
/// use std::time::Duration;
/// use qproxy_mqtt::{Version, session::*};
///
/// let config = Config {
///     version: Version::V311,
///     window: 10,
///     window_exactly_once: 5,
///     continuity: Continuity::EachAnew,
///     keep_alive: Duration::from_secs(60),
///     ack_mode: AckMode::Auto,
///     receive_maximum: 100,
///     topic_alias_maximum: 0,
///     on_session_lost: OnSessionLost::Republish,
/// };
/// let session = Session::<(), ()>::new(&config);
/// assert!(session.begins_anew());
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    /// Which version is spoken.
    pub version: Version,
    /// Publishes of QoS 1 and 2 in flight at once; 1 to 65,519 (a 0 counts as 1, and more as that: the
    /// other ids are kept for subscribes and unsubscribes).
    pub window: u16,
    /// How many of those may be of QoS 2; 1 at least.
    pub window_exactly_once: u16,
    /// How a connection goes on from the one before.
    pub continuity: Continuity,
    /// Longest silence in either direction; zero switches pings off. A server of MQTT 5.0 may ask for another.
    pub keep_alive: Duration,
    /// Who acknowledges what arrives.
    pub ack_mode: AckMode,
    /// Messages of QoS 1 and 2 that the server may have unacknowledged; of MQTT 5.0.
    pub receive_maximum: u16,
    /// Topic aliases that the server may use; of MQTT 5.0.
    pub topic_alias_maximum: u16,
    /// What happens to publishes in flight where the server has lost the session.
    pub on_session_lost: OnSessionLost,
}

/// Who acknowledges messages of QoS 1 and 2 that arrive.
///
/// ```
/// use qproxy_mqtt::{MqttConfig, session::AckMode};
///
/// let config = MqttConfig {
///     ack_mode: AckMode::Manual,
///     ..MqttConfig::default()
/// };
/// assert_ne!(config.ack_mode, AckMode::default());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AckMode {
    /// The client, as a message enters the queue towards the program.
    #[default]
    Auto,
    /// The program, with `message.ack()`; before that the server keeps the message.
    Manual,
}

/// How a connection goes on from the one before.
///
/// ```
/// use qproxy_mqtt::session::Continuity;
///
/// assert_eq!(Continuity::default(), Continuity::EachAnew);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Continuity {
    /// Each begins with a new session: clean session in 3.1.1; in 5.0 Clean Start without a session expiry.
    #[default]
    EachAnew,
    /// The first begins with a new one, and later ones go on with it until
    /// [`Session::abandon`](super::Session::abandon); of MQTT 5.0.
    FirstAnew,
    /// Each goes on with the session that the server has.
    Resumed,
}

/// What happens to publishes in flight where the server has lost the session.
///
/// ```
/// use qproxy_mqtt::{MqttConfig, session::OnSessionLost};
///
/// let config = MqttConfig {
///     on_session_lost: OnSessionLost::Fail,
///     ..MqttConfig::default()
/// };
/// assert_ne!(config.on_session_lost, OnSessionLost::default());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnSessionLost {
    /// They are published again, as new messages: those that the server had taken over already arrive twice.
    #[default]
    Republish,
    /// They fail: those that the server had taken over already have arrived all the same.
    Fail,
}
