//! SUBSCRIBE and UNSUBSCRIBE.

use std::sync::Arc;

use qproxy_mqtt::codec::{Packet, QoS, ReasonCode, Subscribe, Subscription, UnsubAck, Unsubscribe};

use super::filter::{self, Filter};
use super::message::{Delivery, Message};
use super::session::SessionId;
use super::{Broker, ConnectionId, packet};

impl Broker {
    pub(super) fn subscribe(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        subscribe: &Subscribe,
    ) {
        let codes: Vec<ReasonCode> = subscribe
            .filters
            .iter()
            .map(|wanted| self.subscribe_one(session, wanted))
            .collect();
        self.send(connection, packet::suback(subscribe.id, codes.clone()));
        for (wanted, code) in subscribe.filters.iter().zip(codes) {
            if let Some(qos) = code.granted_qos() {
                self.deliver_retained(session, &wanted.filter, qos);
            }
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        unsubscribe: &Unsubscribe,
    ) {
        for filter in &unsubscribe.filters {
            if self.sessions.unsubscribe(session, filter) {
                self.drop_filter(filter, session);
            }
        }
        self.send(connection, Packet::UnsubAck(UnsubAck::from(unsubscribe.id)));
    }

    /// Takes a filter out of the tree for one session.
    pub(super) fn drop_filter(&mut self, text: &str, session: SessionId) {
        match Filter::parse(text) {
            Some(Filter::Plain(filter)) => self.tree.remove(filter, session),
            Some(Filter::Shared { filter }) if self.groups.part(text, session) => {
                self.tree.remove_group(filter, text);
            }
            _ => {}
        }
    }

    fn subscribe_one(&mut self, session: SessionId, wanted: &Subscription) -> ReasonCode {
        let text = wanted.filter.as_str();
        let parsed = Filter::parse(text).filter(|_| filter::within(&self.limits, text));
        let Some(parsed) = parsed.filter(|_| self.has_room_for(session, text)) else {
            self.counters.subscriptions_refused += 1;
            return ReasonCode::UnspecifiedError;
        };
        match parsed {
            Filter::Plain(filter) => self.tree.insert(filter, session, wanted.qos),
            Filter::Shared { filter } => {
                if let Some(group) = self.groups.join(text, session, wanted.qos) {
                    self.tree.insert_group(filter, group);
                }
            }
        }
        self.sessions
            .subscribe(session, wanted.filter.detached(), wanted.qos);
        ReasonCode::granted(wanted.qos)
    }

    /// A filter that is there already is replaced and needs no room.
    fn has_room_for(&self, session: SessionId, filter: &str) -> bool {
        let Some(held) = self.sessions.get(session) else {
            return false;
        };
        held.subscriptions.contains_key(filter)
            || (held.subscriptions.len() < self.limits.subscriptions_per_session
                && self.sessions.subscriptions() < self.limits.subscriptions)
    }

    /// Each SUBSCRIBE brings the retained messages, again where the filter was there before
    /// [MQTT-3.8.4-3]; a shared one brings none. Stops at a full queue, which bounds the work.
    fn deliver_retained(&mut self, session: SessionId, filter: &str, granted: QoS) {
        if !matches!(Filter::parse(filter), Some(Filter::Plain(_))) {
            return;
        }
        if self.is_full(session) {
            self.counters.dropped_queue_full += 1;
            return;
        }
        let found: Vec<Arc<Message>> = self.retained.matching(filter).cloned().collect();
        for message in found {
            if self.is_full(session) {
                self.counters.dropped_queue_full += 1;
                return;
            }
            let qos = granted.min(message.qos);
            let delivery = Delivery {
                message,
                qos,
                retain: true,
                group: None,
            };
            self.deliver(session, delivery);
        }
    }

    fn is_full(&self, session: SessionId) -> bool {
        self.sessions
            .get(session)
            .is_none_or(|session| session.outbound.is_full(&self.limits))
    }
}
