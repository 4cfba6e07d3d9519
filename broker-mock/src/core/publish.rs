//! Messages in and out: PUBLISH, its acknowledgements, and who gets a copy.

use std::sync::Arc;

use qproxy_mqtt::codec::{Ack, Packet, PacketId, Publish, QoS};

use super::message::{Delivery, Message};
use super::outbound::{Acknowledged, Room};
use super::retained::Kept;
use super::session::{Session, SessionId, Sessions};
use super::tree::Match;
use super::{Action, Broker, CloseReason, ConnectionId, filter, packet};

impl Broker {
    pub(super) fn publish(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        publish: Publish,
    ) {
        self.counters.publishes_received += 1;
        if !filter::within(&self.limits, &publish.topic) {
            let reason = CloseReason::Limit("topic_bytes or topic_levels");
            return self.close(connection, reason);
        }
        match (publish.qos, publish.id) {
            (QoS::ExactlyOnce, Some(id)) => self.publish_once(connection, session, &publish, id),
            (QoS::AtLeastOnce, Some(id)) => {
                self.accept(&publish);
                self.send(connection, Packet::PubAck(Ack::from(id)));
            }
            _ => self.accept(&publish),
        }
    }

    pub(super) fn pubrel(&mut self, connection: ConnectionId, session: SessionId, id: PacketId) {
        if let Some(session) = self.sessions.get_mut(session) {
            session.unreleased.remove(&id);
        }
        // Also where the id is unknown: after a lost session the client must be able to finish.
        self.send(connection, Packet::PubComp(Ack::from(id)));
    }

    pub(super) fn puback(&mut self, session: SessionId, id: PacketId) {
        self.acknowledge(session, |session, room| {
            session.outbound.puback(id, room.budget)
        });
    }

    pub(super) fn pubrec(&mut self, connection: ConnectionId, session: SessionId, id: PacketId) {
        self.acknowledge(session, |session, room| {
            session.outbound.pubrec(id, room.budget)
        });
        self.send(connection, packet::pubrel(id));
    }

    pub(super) fn pubcomp(&mut self, session: SessionId, id: PacketId) {
        self.acknowledge(session, |session, _| session.outbound.pubcomp(id));
    }

    /// Retains where asked to, and gives a copy to everyone who subscribed.
    pub(super) fn distribute(&mut self, message: &Arc<Message>, retain: bool) {
        if retain && self.retained.put(message) == Kept::NoRoom {
            self.counters.retained_refused += 1;
        }
        let mut matches = Vec::new();
        self.tree.matches(&message.topic, &mut matches);
        for found in matches {
            match found {
                Match::Session(session, granted) => self.deliver(
                    session,
                    Delivery {
                        message: Arc::clone(message),
                        qos: granted.min(message.qos),
                        retain: false,
                        group: None,
                    },
                ),
                Match::Group(group) => self.deliver_shared(group, message),
            }
        }
    }

    /// Puts a message into a session's queue and sends what can be sent.
    pub(super) fn deliver(&mut self, session: SessionId, delivery: Delivery) {
        let (sessions, mut room, actions) = self.parts();
        let Some(session) = sessions.get_mut(session) else {
            return;
        };
        let online = session.is_online();
        if !online && delivery.qos == QoS::AtMostOnce {
            return; // QoS 0 is for who is there (MQTT 3.1.1 section 4.3.1).
        }
        session.outbound.push(delivery, online, &mut room);
        session.pump(&mut room, actions);
    }

    pub(super) fn pump(&mut self, session: SessionId) {
        let (sessions, mut room, actions) = self.parts();
        if let Some(session) = sessions.get_mut(session) {
            session.pump(&mut room, actions);
        }
    }

    /// The sessions, and what a change of their queues needs beside them.
    pub(super) fn parts(&mut self) -> (&mut Sessions, Room<'_>, &mut Vec<Action>) {
        let room = Room {
            limits: &self.limits,
            budget: &mut self.budget,
            counters: &mut self.counters,
        };
        (&mut self.sessions, room, &mut self.actions)
    }

    /// QoS 2: the message goes on when its PUBLISH comes first; repeats until PUBREL are only answered
    /// (MQTT 3.1.1 section 4.3.3, "method B").
    fn publish_once(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        publish: &Publish,
        id: PacketId,
    ) {
        let most = self.limits.incoming_qos2;
        let Some(held) = self.sessions.get_mut(session) else {
            return;
        };
        if held.unreleased.contains(&id) {
            self.counters.duplicates_suppressed += 1;
        } else if held.unreleased.len() >= most {
            return self.close(connection, CloseReason::Limit("incoming_qos2"));
        } else {
            held.unreleased.insert(id);
            self.accept(publish);
        }
        self.send(connection, Packet::PubRec(Ack::from(id)));
    }

    fn accept(&mut self, publish: &Publish) {
        if publish.topic.starts_with("$SYS/") || publish.topic.starts_with("$share/") {
            self.counters.dropped_reserved_topic += 1;
            return;
        }
        let message = Arc::new(Message::new(&publish.topic, &publish.payload, publish.qos));
        self.distribute(&message, publish.retain);
    }

    fn acknowledge(
        &mut self,
        session: SessionId,
        apply: impl FnOnce(&mut Session, &mut Room<'_>) -> Acknowledged,
    ) {
        let (sessions, mut room, actions) = self.parts();
        let Some(session) = sessions.get_mut(session) else {
            return;
        };
        if apply(session, &mut room) == Acknowledged::Unexpected {
            room.counters.unexpected_acknowledgements += 1;
        }
        session.pump(&mut room, actions);
    }
}
