//! What a program hears of its connection.

use std::time::Duration;

use crate::error::{ConnectError, Disconnected, Error};
use crate::persistence::PersistenceError;

/// What happens to the connection. Slow listeners miss the oldest.
///
/// ```no_run
/// use qproxy_mqtt::client::Event;
///
/// # fn example(event: Event) {
/// match event {
///     Event::Connected { session_present } => println!("connected, old session: {session_present}"),
///     Event::Reconnecting { attempt, delay } => println!("attempt {attempt} in {delay:?}"),
///     Event::Stopped { reason } => println!("given up: {reason}"),
///     other => println!("{other:?}"),
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The server accepted the client.
    Connected {
        /// Whether it still had the session.
        session_present: bool,
    },
    /// A connection ended.
    Disconnected {
        /// Why.
        reason: Disconnected,
    },
    /// An attempt failed.
    ConnectFailed {
        /// Why.
        reason: ConnectError,
    },
    /// The next attempt comes after a pause.
    Reconnecting {
        /// Attempts since the last good connection, from 1.
        attempt: u32,
        /// The pause.
        delay: Duration,
    },
    /// The server had forgotten a session that it was to keep, or one with messages in flight.
    SessionLost {
        /// Messages published again; they may arrive twice.
        republished: usize,
        /// Messages that failed instead, where `on_session_lost` says so; they may have arrived.
        failed: usize,
        /// Filters subscribed again; what was published meanwhile is lost to them.
        resubscribed: usize,
    },
    /// `persistence` failed for publishes, which failed with it.
    NotSaved {
        /// Why.
        reason: PersistenceError,
        /// How many.
        publishes: usize,
    },
    /// The server does not renew this subscription.
    RenewalRefused {
        /// Its filter.
        filter: String,
    },
    /// The queue of outgoing messages is full: publishes wait, fail, or displace others.
    OutgoingPaused,
    /// Half of the queue is free again.
    OutgoingResumed,
    /// The client has given up; `connect` starts it again.
    Stopped {
        /// Why.
        reason: Error,
    },
}
