//! What of a session outlives the process: which changes there were, and how one begins where another ended.
//!
//! Nothing is noted down unless it was asked for.

use std::time::Instant;

use crate::codec::{PacketId, Publish, QoS};

use super::Session;

/// Something that the next process has to know.
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
/// use qproxy_mqtt::codec::{PacketId, Publish, QoS};
///
/// session.note_changes();
/// # let publish = Publish { qos: QoS::AtLeastOnce, topic: "a".into(), ..Publish::default() };
/// session.publish(publish, 7, now);
/// let mut changes = Vec::new();
/// session.take_changes(&mut changes);
/// assert_eq!(changes, [SessionChange::Sent(PacketId::MIN)]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionChange {
    /// The publish handed over last goes out under this id.
    Sent(PacketId),
    /// PUBREC came: from now on PUBREL stands for it.
    Released(PacketId),
    /// It is complete, or came to nothing; its id is free.
    Completed(PacketId),
    /// A message of QoS 2 was taken from the server.
    Received(PacketId),
    /// PUBREL came for it, or the program let it go.
    Forgotten(PacketId),
    /// The server had lost the session.
    AllForgotten,
}

/// One of the two directions notes down here.
#[derive(Debug, Default)]
pub(super) struct Changes(Option<Vec<SessionChange>>);

impl Changes {
    pub(super) fn push(&mut self, change: SessionChange) {
        if let Some(changes) = &mut self.0 {
            changes.push(change);
        }
    }

    fn take_into(&mut self, into: &mut Vec<SessionChange>) {
        if let Some(changes) = &mut self.0 {
            into.append(changes);
        }
    }
}

impl<P, S> Session<P, S> {
    /// From now on notes down what [`Session::take_changes`] gives.
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
    /// session.note_changes();
    /// let mut changes = Vec::new();
    /// session.take_changes(&mut changes);
    /// assert!(changes.is_empty(), "nothing has happened since");
    /// ```
    pub fn note_changes(&mut self) {
        self.outgoing.changes = Changes(Some(Vec::new()));
        self.incoming.changes = Changes(Some(Vec::new()));
    }

    /// Takes what was noted down. It has to be saved before the bytes in the outbox leave.
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
    /// use qproxy_mqtt::codec::{Ack, Packet, PacketId, Publish, QoS};
    ///
    /// session.note_changes();
    /// # let publish = Publish { qos: QoS::AtLeastOnce, topic: "a".into(), ..Publish::default() };
    /// let id = PacketId::MIN;
    /// session.publish(publish, 7, now);
    /// session.receive(Packet::PubAck(Ack::from(id)), now).unwrap();
    /// let mut changes = Vec::new();
    /// session.take_changes(&mut changes);
    /// assert_eq!(changes, [SessionChange::Sent(id), SessionChange::Completed(id)]);
    /// ```
    pub fn take_changes(&mut self, into: &mut Vec<SessionChange>) {
        self.outgoing.changes.take_into(into);
        self.incoming.changes.take_into(into);
    }

    /// A publish went out under `id` in an earlier process: it goes out again in the next connection, with what is left
    /// of its life until `expires`. To be called in the order of publishing, before anything else, and not for QoS 0.
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
    /// use qproxy_mqtt::codec::{PacketId, Publish, QoS};
    ///
    /// let mut session = Session::<u32, &str>::new(&config);
    /// # let publish = Publish { qos: QoS::AtLeastOnce, topic: "a".into(), ..Publish::default() };
    /// session.restore_publish(PacketId::MIN, publish, None, 7);
    /// let resumed = session.connected(&Terms::plain(true), Instant::now()).unwrap();
    /// assert_eq!(resumed.republished, 1);
    /// ```
    pub fn restore_publish(
        &mut self,
        id: PacketId,
        publish: Publish,
        expires: Option<Instant>,
        token: P,
    ) {
        debug_assert_ne!(publish.qos, QoS::AtMostOnce);
        self.outgoing.restore_publish(id, publish, expires, token);
    }

    /// PUBREC had come for this publish. To be called in the order of those.
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
    /// use qproxy_mqtt::codec::PacketId;
    ///
    /// let mut session = Session::<u32, &str>::new(&config);
    /// session.restore_release(PacketId::MIN, 7);
    /// session.connected(&Terms::plain(true), Instant::now()).unwrap();
    /// assert_eq!(session.outbox().len(), 4, "PUBREL");
    /// ```
    pub fn restore_release(&mut self, id: PacketId, token: P) {
        self.outgoing.restore_release(id, token);
    }

    /// A message of QoS 2 had been taken under this id of the server.
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
    /// use qproxy_mqtt::codec::{Packet, PacketId, Publish, QoS};
    ///
    /// let mut session = Session::<u32, &str>::new(&config);
    /// session.restore_received(PacketId::MIN);
    /// session.connected(&Terms::plain(true), Instant::now()).unwrap();
    /// # let (qos, id) = (QoS::ExactlyOnce, Some(PacketId::MIN));
    /// # let repeat = Publish { qos, id, dup: true, topic: "a".into(), ..Publish::default() };
    /// session.receive(Packet::Publish(repeat), Instant::now()).unwrap();
    /// let mut events = Vec::new();
    /// session.take_events(&mut events);
    /// assert!(events.is_empty(), "it is not delivered again");
    /// ```
    pub fn restore_received(&mut self, id: PacketId) {
        self.incoming.restore(id);
    }
}
