//! SUBSCRIBE and UNSUBSCRIBE.

use std::sync::Arc;

use qproxy_mqtt::codec::{
    Packet, ReasonCode, RetainHandling, SubAck, Subscribe, Subscription, SubscriptionId, UnsubAck,
    Unsubscribe, Version,
};

use super::filter::{self, Filter};
use super::message::{Delivery, Message};
use super::session::SessionId;
use super::tree::{Grant, Wanted};
use super::{Broker, Caller, CloseReason, Outcome, packet};

/// A filter that was subscribed to.
#[derive(Debug, Clone, Copy)]
struct Subscribed {
    grant: Grant,
    novelty: Novelty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Novelty {
    /// The session did not have the filter.
    New,
    /// It had, and the options were replaced.
    Known,
}

impl Broker {
    pub(super) fn subscribe(&mut self, caller: Caller, subscribe: &Subscribe) {
        let id = subscribe
            .properties
            .as_ref()
            .and_then(|properties| properties.subscription_id);
        let shy = |wanted: &Subscription| wanted.no_local && is_shared(&wanted.filter);
        if subscribe.filters.iter().any(shy) {
            let reason = CloseReason::Protocol("no local on a shared subscription");
            return self.close(caller.connection, reason); // [MQTT-3.8.3-4]
        }
        let in_use = self.is_in_use(caller, subscribe.id);
        let results: Vec<Result<Subscribed, Outcome>> = subscribe
            .filters
            .iter()
            .map(|wanted| {
                if in_use {
                    return Err(ReasonCode::PacketIdInUse.into());
                }
                self.subscribe_one(caller.session, wanted, id)
            })
            .collect();
        let code = |result: &Result<Subscribed, Outcome>| match result {
            Ok(subscribed) => ReasonCode::granted(subscribed.grant.qos),
            Err(outcome) => outcome.reason,
        };
        let why = results.iter().find_map(|result| result.err()?.why);
        let suback = SubAck {
            id: subscribe.id,
            codes: results.iter().map(code).collect(),
            properties: why.filter(|_| caller.explains).and_then(packet::why),
        };
        self.answer(caller, Packet::SubAck(suback));
        for (wanted, result) in subscribe.filters.iter().zip(results) {
            if let Ok(subscribed) = result {
                self.greet(caller.session, wanted, subscribed);
            }
        }
    }

    pub(super) fn unsubscribe(&mut self, caller: Caller, unsubscribe: &Unsubscribe) {
        let in_use = self.is_in_use(caller, unsubscribe.id);
        let mut codes = Vec::with_capacity(unsubscribe.filters.len());
        for filter in &unsubscribe.filters {
            codes.push(if in_use {
                ReasonCode::PacketIdInUse
            } else if self.sessions.unsubscribe(caller.session, filter) {
                self.drop_filter(filter, caller.session);
                ReasonCode::Success
            } else {
                ReasonCode::NoSubscriptionExisted
            });
        }
        if caller.version == Version::V311 {
            codes.clear();
        }
        let unsuback = UnsubAck {
            id: unsubscribe.id,
            codes,
            properties: None,
        };
        self.answer(caller, Packet::UnsubAck(unsuback));
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

    fn subscribe_one(
        &mut self,
        session: SessionId,
        wanted: &Subscription,
        id: Option<SubscriptionId>,
    ) -> Result<Subscribed, Outcome> {
        let text = wanted.filter.as_str();
        let parsed = self.check_filter(session, text).inspect_err(|_| {
            self.counters.subscriptions_refused += 1;
        })?;
        let grant = Grant {
            qos: wanted.qos.min(self.limits.maximum_qos),
            no_local: wanted.no_local,
            retain_as_published: wanted.retain_as_published,
            id,
        };
        match parsed {
            Filter::Plain(filter) => self.tree.insert(filter, session, grant),
            Filter::Shared { filter } => {
                if let Some(group) = self.groups.join(text, session, grant) {
                    self.tree.insert_group(filter, group);
                }
            }
        }
        let new = self.sessions.subscribe(session, wanted.filter.detached());
        let novelty = if new { Novelty::New } else { Novelty::Known };
        Ok(Subscribed { grant, novelty })
    }

    fn check_filter<'f>(&self, session: SessionId, text: &'f str) -> Result<Filter<'f>, Outcome> {
        let invalid = |why| Outcome::refused(ReasonCode::TopicFilterInvalid, why);
        let parsed = Filter::parse(text).ok_or(invalid("malformed shared subscription"))?;
        if !filter::within(&self.limits, text) {
            return Err(invalid("filter too long or of too many levels"));
        }
        if !self.has_room_for(session, text) {
            let why = "too many subscriptions";
            return Err(Outcome::refused(ReasonCode::QuotaExceeded, why));
        }
        Ok(parsed)
    }

    /// A filter that is there already is replaced and needs no room.
    fn has_room_for(&self, session: SessionId, filter: &str) -> bool {
        let Some(held) = self.sessions.get(session) else {
            return false;
        };
        held.subscriptions.contains(filter)
            || (held.subscriptions.len() < self.limits.subscriptions_per_session
                && self.sessions.subscriptions() < self.limits.subscriptions)
    }

    /// The retained messages that a subscription brings: again where the filter was there before [MQTT-3.8.4-3],
    /// unless MQTT 5's retain handling says otherwise; a shared one brings none. Stops at a full queue, which
    /// bounds the work.
    fn greet(&mut self, session: SessionId, wanted: &Subscription, subscribed: Subscribed) {
        let silent = match wanted.retain_handling {
            RetainHandling::Send => false,
            RetainHandling::SendIfNew => subscribed.novelty == Novelty::Known,
            RetainHandling::Never => true,
        };
        if silent || is_shared(&wanted.filter) {
            return;
        }
        if self.is_full(session) {
            self.counters.dropped_queue_full += 1;
            return;
        }
        let own = |message: &Message| wanted.no_local && message.from == Some(session);
        let found: Vec<Arc<Message>> = self
            .retained
            .matching(&wanted.filter, self.now)
            .filter(|message| !own(message))
            .cloned()
            .collect();
        for message in found {
            if self.is_full(session) {
                self.counters.dropped_queue_full += 1;
                return;
            }
            let delivery = Delivery {
                retain: true,
                ..Delivery::of(&message, Wanted::from(subscribed.grant), None)
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

fn is_shared(filter: &str) -> bool {
    !matches!(Filter::parse(filter), Some(Filter::Plain(_)))
}
