//! What the broker keeps of a client, and the table of all sessions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use qproxy_mqtt::codec::{Packet, PacketId, QoS, Text};

use super::outbound::{Outbound, Room};
use super::{Action, ConnectionId, packet};

/// A session; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionId(pub(super) u64);

/// What the broker keeps of a client (MQTT 3.1.1 section 3.1.2.4).
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client_id: Text,
    pub(super) lifetime: Lifetime,
    presence: Presence,
    pub(super) subscriptions: BTreeMap<Text, QoS>,
    /// QoS 2 messages that were received and not released.
    pub(super) unreleased: HashSet<PacketId>,
    pub(super) outbound: Outbound,
}

/// How long a session lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// As long as its connection ("clean session").
    Connection,
    /// Until it is cleaned, expires or gives way.
    Durable,
}

#[derive(Debug)]
enum Presence {
    Online {
        connection: ConnectionId,
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
            unwritten,
        } = &mut self.presence
        else {
            return;
        };
        while *unwritten < room.limits.outbox_bytes {
            let Some(packet) = self.outbound.pop(room) else {
                return;
            };
            room.counters.publishes_sent += 1;
            *unwritten += packet::weight(&packet);
            actions.push(Action::Send {
                connection: *connection,
                packet,
            });
        }
    }

    /// The client is there: it gets first what is unfinished. What this hands to the driver at once is
    /// bounded by the in-flight window and the session's bytes.
    pub(super) fn come_online(
        &mut self,
        connection: ConnectionId,
        lifetime: Lifetime,
    ) -> Vec<Packet> {
        let again = self.outbound.again();
        let unwritten = again.iter().map(packet::weight).sum();
        self.lifetime = lifetime;
        self.presence = Presence::Online {
            connection,
            unwritten,
        };
        again
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
                lifetime: Lifetime::Durable,
                presence: Presence::Offline { since: now },
                subscriptions: BTreeMap::new(),
                unreleased: HashSet::new(),
                outbound: Outbound::default(),
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
        lifetime: Lifetime,
    ) -> Vec<Packet> {
        let Some(session) = self.by_id.get_mut(&id) else {
            return Vec::new();
        };
        if !session.is_online() {
            self.online += 1;
        }
        session.come_online(connection, lifetime)
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

    /// Sessions that have been offline for `expiry` or longer.
    pub(super) fn expired(&self, now: Duration, expiry: Duration) -> Vec<SessionId> {
        self.by_id
            .iter()
            .filter(|(_, session)| {
                session
                    .offline_since()
                    .is_some_and(|since| now.saturating_sub(since) >= expiry)
            })
            .map(|(&id, _)| id)
            .collect()
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
    pub(super) fn subscribe(&mut self, id: SessionId, filter: Text, qos: QoS) -> bool {
        let new = self
            .by_id
            .get_mut(&id)
            .is_some_and(|session| session.subscriptions.insert(filter, qos).is_none());
        self.subscriptions += usize::from(new);
        new
    }

    /// Forgets a subscription; `true` where the session had it.
    pub(super) fn unsubscribe(&mut self, id: SessionId, filter: &str) -> bool {
        let had = self
            .by_id
            .get_mut(&id)
            .is_some_and(|session| session.subscriptions.remove(filter).is_some());
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
