//! Going: what the end of a connection means, wills and their delay, and the end of a session.

use std::sync::Arc;

use qproxy_mqtt::codec::{Disconnect, ReasonCode};

use super::connect::Testament;
use super::message::Claim;
use super::session::{PendingWill, SessionId};
use super::{Broker, Caller, CloseReason, Online};

impl Broker {
    /// DISCONNECT: the client may change when its session ends, but not make one durable that was not (MQTT 5
    /// section 3.14.2.2.2).
    pub(super) fn disconnect(&mut self, caller: Caller, disconnect: &Disconnect) {
        let properties = disconnect.properties.as_deref();
        if let Some(seconds) = properties.and_then(|properties| properties.session_expiry) {
            let expiry = self.capped_expiry(seconds);
            if let Some(session) = self.sessions.get_mut(caller.session) {
                if session.expiry.is_zero() && seconds > 0 {
                    let reason = CloseReason::Protocol("session expiry that CONNECT did not have");
                    return self.close(caller.connection, reason);
                }
                session.expiry = expiry;
            }
        }
        let reason = if disconnect.reason == ReasonCode::Success {
            CloseReason::Disconnected
        } else {
            CloseReason::Left(disconnect.reason)
        };
        self.close(caller.connection, reason);
    }

    /// What the end of a connection means: the session stays or ends, shared messages move on, and the
    /// will is published, at once or later, unless the client said DISCONNECT [MQTT-3.1.2-8].
    pub(super) fn leave(&mut self, online: Online, reason: &CloseReason) {
        let session = online.caller.session;
        self.sessions.go_offline(session, self.now);
        let (sessions, mut room, _) = self.parts();
        if let Some(held) = sessions.get_mut(session) {
            held.outbound.forget_qos0(&mut room);
        }
        self.reassign(session);
        let will = online
            .will
            .filter(|_| *reason != CloseReason::Disconnected)
            .and_then(|will| self.delay_will(session, will));
        let ends = self
            .sessions
            .get(session)
            .is_some_and(|session| session.expiry.is_zero());
        if ends {
            self.end_session(session);
        }
        if let Some(will) = will {
            self.publish_will(will);
        }
    }

    /// Ends a session. A will that waits is published now [MQTT-3.1.2-8].
    pub(super) fn end_session(&mut self, session: SessionId) {
        let will = self.take_will(session);
        let Some(mut ended) = self.sessions.remove(session) else {
            return;
        };
        for filter in &ended.subscriptions {
            self.drop_filter(filter, session);
        }
        let lost = ended.outbound.clear(&mut self.budget);
        self.counters.dropped_session_ended += lost as u64;
        if let Some(will) = will {
            self.publish_will(will);
        }
    }

    /// Publishes the wills whose delay is over.
    pub(super) fn publish_due_wills(&mut self) {
        for session in self.sessions.wills_due(self.now) {
            if let Some(will) = self.take_will(session) {
                self.publish_will(will);
            }
        }
    }

    /// The client is back before its will was due [MQTT-3.1.3-9].
    pub(super) fn cancel_will(&mut self, session: SessionId) {
        if self.take_will(session).is_some() {
            self.counters.wills_cancelled += 1;
        }
    }

    /// Keeps a will for later where it is to wait, within the bytes for sessions without a connection; `None` then.
    fn delay_will(&mut self, session: SessionId, will: Testament) -> Option<Testament> {
        let Some(held) = self.sessions.get_mut(session) else {
            return Some(will);
        };
        let delay = will.delay.min(held.expiry);
        if delay.is_zero() || !self.budget.take(will.message.bytes(), Claim::Offline) {
            return Some(will);
        }
        let due = self.now + delay;
        held.pending_will = Some(PendingWill { due, will });
        None
    }

    fn take_will(&mut self, session: SessionId) -> Option<Testament> {
        let pending = self.sessions.get_mut(session)?.pending_will.take()?;
        self.budget.give_back(pending.will.message.bytes());
        Some(pending.will)
    }

    fn publish_will(&mut self, will: Testament) {
        self.counters.wills_published += 1;
        let mut message = will.message;
        message.expire_after(will.expiry, self.now);
        self.distribute(&Arc::new(message));
    }
}
