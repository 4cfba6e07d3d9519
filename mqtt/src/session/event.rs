//! What a session reports: outcomes, messages, and why a connection has to be closed.

use crate::codec::{Disconnect, Publish, ReasonCode, Text};
use crate::said::ServerReason;

use super::{AckId, Forbidden, Violation};

/// What the session reports.
///
/// ```
/// use qproxy_mqtt::session::{Event, Failure};
///
/// fn report(event: Event<u32, &str>) -> String {
///     match event {
///         Event::Published(number, reason) => format!("{number}: {reason}"),
///         Event::PublishFailed(number, failure) => format!("{number}: {failure}"),
///         other => format!("{other:?}"),
///     }
/// }
/// let failed = Event::PublishFailed(7, Failure::SessionLost);
/// assert_eq!(report(failed), "7: the server lost the session");
/// ```
#[derive(Debug)]
pub enum Event<P, S> {
    /// A publish of QoS 1 or 2 is complete; the reason is one of success.
    Published(P, ReasonCode),
    /// A publish came to nothing.
    PublishFailed(P, Failure),
    /// SUBACK came, with one code for each filter, and perhaps words.
    Subscribed(S, Vec<ReasonCode>, Option<Text>),
    /// UNSUBACK came, with one code for each filter, and perhaps words.
    Unsubscribed(S, Vec<ReasonCode>, Option<Text>),
    /// A subscribe or an unsubscribe was not sent.
    ControlFailed(S, Failure),
    /// A message arrived; it has an [`AckId`] where the program has to settle it.
    Message(Publish, Option<AckId>),
    /// This filter was not renewed after the server had lost the session: the server refused it, or (no code) its
    /// terms forbid it.
    RenewalRefused(Text, Option<ReasonCode>),
}

/// Why something came to nothing.
///
/// ```
/// use qproxy_mqtt::session::{Failure, Forbidden};
///
/// let failure = Failure::from(Forbidden::Retain);
/// assert_eq!(failure.to_string(), "the server does not take it");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The server said no.
    #[error("the server refused it")]
    Refused(#[source] ServerReason),
    /// The server had said that it does not take it.
    #[error("the server does not take it")]
    Forbidden(#[from] Forbidden),
    /// The server had lost the session, and [`OnSessionLost::Fail`](super::OnSessionLost::Fail) is set.
    #[error("the server lost the session")]
    SessionLost,
}

/// Why the connection has to be closed.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use qproxy_mqtt::session::*;
/// # use qproxy_mqtt::Version;
/// # let config = Config {
/// #     version: Version::V311,
/// #     window: 10,
/// #     window_exactly_once: 5,
/// #     continuity: Continuity::Resumed,
/// #     keep_alive: Duration::from_secs(60),
/// #     ack_mode: AckMode::Manual,
/// #     receive_maximum: 100,
/// #     topic_alias_maximum: 0,
/// #     on_session_lost: OnSessionLost::Republish,
/// # };
/// # let now = Instant::now();
/// # let mut session = Session::<u32, &str>::new(&config);
/// # session.connected(&Terms::plain(false), now).unwrap();
/// use qproxy_mqtt::codec::{Kind, Packet};
///
/// let closing = session.receive(Packet::PingReq, now).unwrap_err();
/// assert_eq!(closing, Closing::Violation(Violation::Unexpected(Kind::PingReq)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closing {
    /// The server broke the protocol, and is to be told.
    #[error("the server broke the protocol")]
    Violation(#[from] Violation),
    /// The server said goodbye (MQTT 5.0 section 3.14).
    #[error("the server ended the connection")]
    Server(Disconnect),
}

/// What [`Session::connected`](super::Session::connected) did.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use qproxy_mqtt::session::*;
/// # use qproxy_mqtt::Version;
/// # let config = Config {
/// #     version: Version::V311,
/// #     window: 10,
/// #     window_exactly_once: 5,
/// #     continuity: Continuity::Resumed,
/// #     keep_alive: Duration::from_secs(60),
/// #     ack_mode: AckMode::Manual,
/// #     receive_maximum: 100,
/// #     topic_alias_maximum: 0,
/// #     on_session_lost: OnSessionLost::Republish,
/// # };
/// # let mut session = Session::<u32, &str>::new(&config);
/// let resumed = session.connected(&Terms::plain(false), Instant::now())?;
/// let nothing = Resumed {
///     republished: 0,
///     failed: 0,
///     resubscribed: 0,
/// };
/// assert_eq!(resumed, nothing);
/// # Ok::<(), Violation>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// Publishes sent again.
    pub republished: usize,
    /// Publishes that failed, as the session was lost or the server does not take them any more.
    pub failed: usize,
    /// Filters subscribed again, because the server had lost them.
    pub resubscribed: usize,
}
