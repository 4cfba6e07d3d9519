//! Messages in and out: PUBLISH, its acknowledgements, and who gets a copy.

use std::sync::Arc;

use qproxy_mqtt::codec::{
    Ack, Packet, PacketId, PayloadFormat, Publish, QoS, ReasonCode, Text, Version,
};

use super::alias::Wrong;
use super::message::{self, Delivery, Message};
use super::outbound::{Acknowledged, Room};
use super::retained::Kept;
use super::session::{Session, SessionId, Sessions};
use super::tree::Match;
use super::{Action, Broker, Caller, CloseReason, Outcome, State, filter, packet};

/// Whether a message had anybody to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Somebody,
    Nobody,
}

impl Broker {
    pub(super) fn publish(&mut self, caller: Caller, mut publish: Publish) {
        self.counters.publishes_received += 1;
        if let Err(reason) = self.check(caller, &mut publish) {
            return self.close(caller.connection, reason);
        }
        match (publish.qos, publish.id) {
            (QoS::ExactlyOnce, Some(id)) => self.publish_once(caller, &publish, id),
            (QoS::AtLeastOnce, Some(id)) => {
                let outcome = if self.is_in_use(caller, id) {
                    ReasonCode::PacketIdInUse.into()
                } else {
                    self.accept(caller, &publish)
                };
                let ack = acknowledgement(caller, id, outcome);
                self.answer(caller, Packet::PubAck(ack));
            }
            _ => {
                self.accept(caller, &publish);
            }
        }
    }

    pub(super) fn pubrel(&mut self, caller: Caller, id: PacketId) {
        let held = self
            .sessions
            .get_mut(caller.session)
            .is_some_and(|session| session.unreleased.remove(&id));
        // Also where the id is unknown: after a lost session the client must be able to finish.
        let reason = if held {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdNotFound
        };
        let ack = acknowledgement(caller, id, reason.into());
        self.answer(caller, Packet::PubComp(ack));
    }

    pub(super) fn puback(&mut self, session: SessionId, ack: &Ack) {
        self.count_rejection(ack);
        self.acknowledge(session, |session, room| {
            session.outbound.puback(ack.id, room.budget)
        });
    }

    pub(super) fn pubrec(&mut self, caller: Caller, ack: &Ack) {
        self.count_rejection(ack);
        let done = self.acknowledge(caller.session, |session, room| {
            session.outbound.pubrec(ack.id, ack.reason, room.budget)
        });
        // PUBREL is due either way, so that no client waits for ever; but not for what it refused.
        let reason = match (caller.version, done) {
            (_, Acknowledged::Yes) if ack.reason.is_error() => return,
            (Version::V5, Acknowledged::Unexpected) => ReasonCode::PacketIdNotFound,
            _ => ReasonCode::Success,
        };
        self.answer(caller, packet::pubrel(ack.id, reason));
    }

    pub(super) fn pubcomp(&mut self, session: SessionId, ack: &Ack) {
        self.acknowledge(session, |session, _| session.outbound.pubcomp(ack.id));
    }

    /// Retains where asked to, and gives a copy to everyone who subscribed.
    pub(super) fn distribute(&mut self, message: &Arc<Message>) -> Reach {
        if message.retain && self.retained.put(message) == Kept::NoRoom {
            self.counters.retained_refused += 1;
        }
        let mut matches = Vec::new();
        self.tree
            .matches(&message.topic, message.from, &mut matches);
        let reach = if matches.is_empty() {
            Reach::Nobody
        } else {
            Reach::Somebody
        };
        for found in matches {
            match found {
                Match::Session(session, wanted) => {
                    self.deliver(session, Delivery::of(message, wanted, None));
                }
                Match::Group(group) => self.deliver_shared(group, message),
            }
        }
        reach
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
            now: self.now,
            limits: &self.limits,
            budget: &mut self.budget,
            counters: &mut self.counters,
        };
        (&mut self.sessions, room, &mut self.actions)
    }

    /// Whether an id stands for a QoS 2 message that is not released, and so for nothing else [MQTT-2.2.1-4]. 3.1.1
    /// has no way to say so.
    pub(super) fn is_in_use(&self, caller: Caller, id: PacketId) -> bool {
        caller.version == Version::V5
            && self
                .sessions
                .get(caller.session)
                .is_some_and(|session| session.unreleased.contains(&id))
    }

    /// What the connection is closed for: a breach of what CONNACK announced, or what 3.1.1 cannot answer.
    fn check(&mut self, caller: Caller, publish: &mut Publish) -> Result<(), CloseReason> {
        self.resolve_alias(caller, publish)?;
        if publish.qos > self.limits.maximum_qos {
            let code = ReasonCode::QoSNotSupported;
            return Err(CloseReason::Breach(code, "QoS above the maximum"));
        }
        match caller.version {
            Version::V311 if !filter::within(&self.limits, &publish.topic) => {
                Err(CloseReason::Limit("topic_bytes or topic_levels"))
            }
            Version::V5 if publish.retain && !self.retained.is_available() => {
                let code = ReasonCode::RetainNotSupported;
                Err(CloseReason::Breach(code, "nothing is retained here"))
            }
            _ => Ok(()),
        }
    }

    /// Puts the topic in where an alias stands for it, and notes aliases that are set.
    fn resolve_alias(&mut self, caller: Caller, publish: &mut Publish) -> Result<(), CloseReason> {
        let properties = publish.properties.as_deref();
        let Some(alias) = properties.and_then(|properties| properties.topic_alias) else {
            if publish.topic.as_bytes().is_empty() {
                return Err(CloseReason::Protocol("no topic and no topic alias"));
            }
            return Ok(());
        };
        // So that what is remembered is bounded.
        if !filter::within(&self.limits, &publish.topic) {
            let code = ReasonCode::TopicNameInvalid;
            return Err(CloseReason::Breach(code, "topic too long for an alias"));
        }
        let Some(known) = self.connections.get_mut(&caller.connection) else {
            return Ok(());
        };
        let State::Online(online) = &mut known.state else {
            return Ok(());
        };
        publish.topic =
            online
                .aliases
                .resolve(alias, &publish.topic)
                .map_err(|wrong| match wrong {
                    Wrong::TooHigh => {
                        let code = ReasonCode::TopicAliasInvalid;
                        CloseReason::Breach(code, "topic alias above the maximum")
                    }
                    Wrong::Unknown => CloseReason::Protocol("topic alias that was never set"),
                })?;
        Ok(())
    }

    /// QoS 2: the message goes on when its PUBLISH comes first; repeats until PUBREL are only answered
    /// (MQTT 3.1.1 section 4.3.3, "method B").
    fn publish_once(&mut self, caller: Caller, publish: &Publish, id: PacketId) {
        let most = self.limits.incoming_qos2;
        let Some(held) = self.sessions.get_mut(caller.session) else {
            return;
        };
        let outcome = if held.unreleased.contains(&id) {
            self.counters.duplicates_suppressed += 1;
            // MQTT 5 repeats only on a new connection, and then says so.
            if publish.dup {
                ReasonCode::Success.into()
            } else {
                ReasonCode::PacketIdInUse.into()
            }
        } else if held.unreleased.len() >= most {
            return self.close(caller.connection, too_many_unreleased(caller.version));
        } else {
            self.accept(caller, publish)
        };
        // An error ends the exchange and frees the id (MQTT 5 section 4.3.3); 3.1.1 goes on as if all were well.
        let goes_on = caller.version == Version::V311 || !outcome.reason.is_error();
        if goes_on && let Some(held) = self.sessions.get_mut(caller.session) {
            held.unreleased.insert(id);
        }
        let ack = acknowledgement(caller, id, outcome);
        self.answer(caller, Packet::PubRec(ack));
    }

    fn accept(&mut self, caller: Caller, publish: &Publish) -> Outcome {
        if publish.topic.starts_with("$SYS/") || publish.topic.starts_with("$share/") {
            self.counters.dropped_reserved_topic += 1;
            return Outcome::refused(ReasonCode::NotAuthorized, "the topic is the broker's own");
        }
        if caller.version == Version::V5
            && let Some(refused) = self.refuses(publish)
        {
            self.counters.publishes_refused += 1;
            return refused;
        }
        let message = Message::published(publish, caller.session, self.now);
        match self.distribute(&Arc::new(message)) {
            Reach::Somebody => ReasonCode::Success.into(),
            Reach::Nobody => ReasonCode::NoMatchingSubscribers.into(),
        }
    }

    /// What MQTT 5 lets a server answer; at QoS 0 the message is dropped without an answer.
    fn refuses(&self, publish: &Publish) -> Option<Outcome> {
        let properties = publish.properties.as_deref();
        if !filter::within(&self.limits, &publish.topic) {
            let why = "topic too long or of too many levels";
            return Some(Outcome::refused(ReasonCode::TopicNameInvalid, why));
        }
        let properties = properties?;
        if message::property_bytes(properties) > self.limits.property_bytes {
            let why = "too much in properties";
            return Some(Outcome::refused(ReasonCode::QuotaExceeded, why));
        }
        let text = properties.payload_format == Some(PayloadFormat::Utf8);
        if text && Text::from_utf8(publish.payload.clone()).is_none() {
            let why = "the payload is not UTF-8";
            return Some(Outcome::refused(ReasonCode::PayloadFormatInvalid, why));
        }
        None
    }

    fn acknowledge(
        &mut self,
        session: SessionId,
        apply: impl FnOnce(&mut Session, &mut Room<'_>) -> Acknowledged,
    ) -> Acknowledged {
        let (sessions, mut room, actions) = self.parts();
        let Some(session) = sessions.get_mut(session) else {
            return Acknowledged::Unexpected;
        };
        let done = apply(session, &mut room);
        if done == Acknowledged::Unexpected {
            room.counters.unexpected_acknowledgements += 1;
        }
        session.pump(&mut room, actions);
        done
    }

    fn count_rejection(&mut self, ack: &Ack) {
        self.counters.rejected_by_receiver += u64::from(ack.reason.is_error());
    }
}

/// 3.1.1 has one answer for all.
fn acknowledgement(caller: Caller, id: PacketId, outcome: Outcome) -> Ack {
    match caller.version {
        Version::V311 => Ack::from(id),
        Version::V5 => Ack {
            id,
            reason: outcome.reason,
            properties: outcome
                .why
                .filter(|_| caller.explains)
                .and_then(packet::why),
        },
    }
}

fn too_many_unreleased(version: Version) -> CloseReason {
    match version {
        Version::V311 => CloseReason::Limit("incoming_qos2"),
        Version::V5 => {
            let code = ReasonCode::ReceiveMaximumExceeded;
            CloseReason::Breach(code, "more than the receive maximum")
        }
    }
}
