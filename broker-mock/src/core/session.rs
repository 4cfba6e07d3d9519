//! What the broker keeps of a client, and the table of all sessions.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use qproxy_mqtt::codec::{Packet, PacketId, Text};

use super::connect::Testament;
use super::outbound::{Outbound, Room};
use super::terms::Terms;
use super::{Action, ConnectionId, packet};

/// A session; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionId(pub(super) u64);

/// What the broker keeps of a client (MQTT 3.1.1 section 3.1.2.4).
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client_id: Text,
    /// How long it outlives its connection; zero ends both together ("clean session" in 3.1.1).
    pub(super) expiry: Duration,
    presence: Presence,
    pub(super) subscriptions: BTreeSet<Text>,
    /// QoS 2 messages that were received and not released.
    pub(super) unreleased: HashSet<PacketId>,
    pub(super) outbound: Outbound,
    /// A will whose delay runs, while the session has no connection.
    pub(super) pending_will: Option<PendingWill>,
}

/// A will that is published at `due` unless the client is back by then (MQTT 5 section 3.1.3.2.2).
#[derive(Debug)]
pub(super) struct PendingWill {
    pub(super) due: Duration,
    pub(super) will: Testament,
}

#[derive(Debug)]
enum Presence {
    Online {
        connection: ConnectionId,
        terms: Box<Terms>,
        /// Handed to the driver and not yet written.
        unwritten: usize,
    },
    Offline {
        since: Duration,
    },
}

impl Session {
    pub(super) fn connection(&self) -> Option<ConnectionId> {
        match self.presence {
            Presence::Online { connection, .. } => Some(connection),
            Presence::Offline { .. } => None,
        }
    }

    pub(super) fn is_online(&self) -> bool {
        self.connection().is_some()
    }

    /// Sends what the window and the connection have room for.
    pub(super) fn pump(&mut self, room: &mut Room<'_>, actions: &mut Vec<Action>) {
        let Presence::Online {
            connection,
            terms,
            unwritten,
        } = &mut self.presence
        else {
            return;
        };
        while *unwritten < room.limits.outbox_bytes {
            let Some(packet) = self.outbound.pop(terms, room) else {
                return;
            };
            room.counters.publishes_sent += u64::from(matches!(packet, Packet::Publish(_)));
            *unwritten += packet::weight(&packet);
            actions.push(Action::Send {
                connection: *connection,
                packet,
            });
        }
    }

    /// The client is there: it gets first what is unfinished.
    fn come_online(&mut self, connection: ConnectionId, terms: Terms, expiry: Duration) {
        self.outbound.start_again();
        self.expiry = expiry;
        self.presence = Presence::Online {
            connection,
            terms: Box::new(terms),
            unwritten: 0,
        };
    }

    pub(super) fn go_offline(&mut self, since: Duration) {
        self.presence = Presence::Offline { since };
    }

    fn offline_since(&self) -> Option<Duration> {
        match self.presence {
            Presence::Online { .. } => None,
            Presence::Offline { since } => Some(since),
        }
    }
}

/// All sessions, by id and by client id.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_id: HashMap<SessionId, Session>,
    by_client: HashMap<Text, SessionId>,
    next: u64,
    online: usize,
    subscriptions: usize,
}

impl Sessions {
    /// A new session without a connection.
    pub(super) fn insert(&mut self, client_id: Text, now: Duration) -> SessionId {
        let id = SessionId(self.next);
        self.next += 1;
        self.by_client.insert(client_id.clone(), id);
        self.by_id.insert(
            id,
            Session {
                client_id,
                expiry: Duration::ZERO,
                presence: Presence::Offline { since: now },
                subscriptions: BTreeSet::new(),
                unreleased: HashSet::new(),
                outbound: Outbound::default(),
                pending_will: None,
            },
        );
        id
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.by_id.remove(&id)?;
        self.by_client.remove(&session.client_id);
        self.subscriptions -= session.subscriptions.len();
        if session.is_online() {
            self.online -= 1;
        }
        Some(session)
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn find(&self, client_id: &str) -> Option<SessionId> {
        self.by_client.get(client_id).copied()
    }

    pub(super) fn is_online(&self, id: SessionId) -> bool {
        self.get(id).is_some_and(Session::is_online)
    }

    pub(super) fn come_online(
        &mut self,
        id: SessionId,
        connection: ConnectionId,
        terms: Terms,
        expiry: Duration,
    ) {
        if let Some(session) = self.by_id.get_mut(&id) {
            if !session.is_online() {
                self.online += 1;
            }
            session.come_online(connection, terms, expiry);
        }
    }

    pub(super) fn go_offline(&mut self, id: SessionId, now: Duration) {
        if let Some(session) = self.by_id.get_mut(&id) {
            if session.is_online() {
                self.online -= 1;
            }
            session.go_offline(now);
        }
    }

    pub(super) fn written(&mut self, id: SessionId, bytes: usize) {
        if let Some(session) = self.by_id.get_mut(&id)
            && let Presence::Online { unwritten, .. } = &mut session.presence
        {
            *unwritten = unwritten.saturating_sub(bytes);
        }
    }

    /// Sessions that have been offline for as long as they may.
    pub(super) fn expired(&self, now: Duration) -> Vec<SessionId> {
        self.chosen(|session| {
            session
                .offline_since()
                .is_some_and(|since| now.saturating_sub(since) >= session.expiry)
        })
    }

    /// Sessions without a connection.
    pub(super) fn offline(&self) -> Vec<SessionId> {
        self.chosen(|session| !session.is_online())
    }

    /// Sessions whose will has waited for long enough.
    pub(super) fn wills_due(&self, now: Duration) -> Vec<SessionId> {
        self.chosen(|session| {
            let pending = session.pending_will.as_ref();
            pending.is_some_and(|pending| pending.due <= now)
        })
    }

    /// In the order in which they were made, so that one run is like another.
    fn chosen(&self, wanted: impl Fn(&Session) -> bool) -> Vec<SessionId> {
        let mut ids: Vec<SessionId> = self
            .by_id
            .iter()
            .filter(|(_, session)| wanted(session))
            .map(|(&id, _)| id)
            .collect();
        ids.sort_unstable();
        ids
    }

    /// Lets go what has expired in any queue.
    pub(super) fn drop_expired(&mut self, room: &mut Room<'_>) {
        for session in self.by_id.values_mut() {
            session.outbound.drop_expired(room);
        }
    }

    /// The session that has been offline for longest.
    pub(super) fn longest_offline(&self) -> Option<SessionId> {
        self.by_id
            .iter()
            .filter_map(|(&id, session)| Some((session.offline_since()?, id)))
            .min()
            .map(|(_, id)| id)
    }

    /// Notes a subscription; `true` where the session did not have it.
    pub(super) fn subscribe(&mut self, id: SessionId, filter: Text) -> bool {
        let new = self
            .by_id
            .get_mut(&id)
            .is_some_and(|session| session.subscriptions.insert(filter));
        self.subscriptions += usize::from(new);
        new
    }

    /// Forgets a subscription; `true` where the session had it.
    pub(super) fn unsubscribe(&mut self, id: SessionId, filter: &str) -> bool {
        let had = self
            .by_id
            .get_mut(&id)
            .is_some_and(|session| session.subscriptions.remove(filter));
        self.subscriptions -= usize::from(had);
        had
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn online(&self) -> usize {
        self.online
    }

    pub(super) fn subscriptions(&self) -> usize {
        self.subscriptions
    }
}
