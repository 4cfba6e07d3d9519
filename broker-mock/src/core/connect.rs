//! Coming and going: CONNECT, takeover, and what is left of a client when its connection ends.

use std::sync::Arc;
use std::time::Duration;

use qproxy_mqtt::codec::{Connect, ReasonCode, Text};

use super::message::Message;
use super::session::{Lifetime, SessionId};
use super::{Broker, CloseReason, ConnectionId, Online, State, filter, packet};

impl Broker {
    pub(super) fn connect(&mut self, connection: ConnectionId, connect: Connect) {
        let client_id = match self.admit(&connect) {
            Ok(client_id) => client_id,
            Err(code) => return self.refuse(connection, code),
        };
        if let Some(will) = &connect.will
            && !filter::within(&self.limits, &will.topic)
        {
            return self.close(
                connection,
                CloseReason::Limit("topic_bytes or topic_levels"),
            );
        }
        let old = self.settle_old_session(&client_id, connect.clean_session);
        let Some(session) = old.or_else(|| self.new_session(client_id)) else {
            return self.refuse(connection, ReasonCode::ServerUnavailable);
        };
        let online = Online {
            session,
            patience: patience(connect.keep_alive),
            will: connect.will,
        };
        let Some(known) = self.connections.get_mut(&connection) else {
            return;
        };
        known.state = State::Online(online);
        let lifetime = if connect.clean_session {
            Lifetime::Connection
        } else {
            Lifetime::Durable
        };
        let unfinished = self.sessions.come_online(session, connection, lifetime);
        self.send(connection, packet::connack(old.is_some()));
        for packet in unfinished {
            self.send(connection, packet);
        }
        self.pump(session);
    }

    pub(super) fn refuse(&mut self, connection: ConnectionId, code: ReasonCode) {
        self.counters.connects_refused += 1;
        self.send(connection, packet::refusal(code));
        self.close(connection, CloseReason::Refused(code));
    }

    /// What the end of a connection means: the session stays or ends, shared messages move on, and the
    /// will is published unless the client said DISCONNECT [MQTT-3.1.2-8].
    pub(super) fn leave(&mut self, online: Online, reason: &CloseReason) {
        let session = online.session;
        self.sessions.go_offline(session, self.now);
        let (sessions, mut room, _) = self.parts();
        if let Some(held) = sessions.get_mut(session) {
            held.outbound.forget_qos0(&mut room);
        }
        self.reassign(session);
        let ends = self
            .sessions
            .get(session)
            .is_some_and(|session| session.lifetime == Lifetime::Connection);
        if ends {
            self.end_session(session);
        }
        if let Some(will) = online.will
            && *reason != CloseReason::Disconnected
        {
            self.counters.wills_published += 1;
            let message = Arc::new(Message::new(&will.topic, &will.payload, will.qos));
            self.distribute(&message, will.retain);
        }
    }

    pub(super) fn end_session(&mut self, session: SessionId) {
        let Some(mut ended) = self.sessions.remove(session) else {
            return;
        };
        for filter in ended.subscriptions.keys() {
            self.drop_filter(filter, session);
        }
        let lost = ended.outbound.clear(&mut self.budget);
        self.counters.dropped_session_ended += lost as u64;
    }

    fn admit(&mut self, connect: &Connect) -> Result<Text, ReasonCode> {
        if !self
            .door
            .admits(connect.username.as_ref(), connect.password.as_ref())
        {
            return Err(ReasonCode::NotAuthorized);
        }
        let given = &connect.client_id;
        if given.as_bytes().len() > self.limits.topic_bytes {
            return Err(ReasonCode::ClientIdNotValid);
        }
        if !given.as_bytes().is_empty() {
            return Ok(given.detached());
        }
        if !connect.clean_session {
            return Err(ReasonCode::ClientIdNotValid); // [MQTT-3.1.3-8]
        }
        loop {
            self.assigned += 1;
            let id = format!("auto-{}", self.assigned);
            if self.sessions.find(&id).is_none() {
                return Ok(id.into());
            }
        }
    }

    /// Takes the client's connection over where there is one [MQTT-3.1.4-2], cleans where that was asked
    /// for, and returns the session that goes on.
    fn settle_old_session(&mut self, client_id: &Text, clean: bool) -> Option<SessionId> {
        let old = self.sessions.find(client_id)?;
        if let Some(taken) = self.sessions.get(old)?.connection() {
            self.close(taken, CloseReason::TakenOver);
        }
        if clean {
            self.end_session(old);
        }
        self.sessions.find(client_id)
    }

    fn new_session(&mut self, client_id: Text) -> Option<SessionId> {
        if self.sessions.len() >= self.limits.sessions {
            let oldest = self.sessions.longest_offline()?;
            self.counters.sessions_evicted += 1;
            self.end_session(oldest);
        }
        Some(self.sessions.insert(client_id, self.now))
    }
}

/// One and a half times the keep alive; 0 switches it off [MQTT-3.1.2-24].
fn patience(keep_alive: u16) -> Option<Duration> {
    (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1500))
}
