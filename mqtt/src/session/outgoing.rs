//! What the client has published and waits to see acknowledged.
//!
//! A publish of QoS 1 or 2 keeps its whole message until the server has it, to send it again under its id. What the
//! server of this connection does not take fails here, before a byte of it is written.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::codec::{Ack, Packet, PacketId, Publish, QoS, ReasonCode};
use crate::said::ServerReason;

use super::alias::{Outbound, Sent};
use super::control::{CONTROL_WINDOW, Control};
use super::in_flight::{Open, Place, State, Unreceived};
use super::past::Past;
use super::saved::Changes;
use super::table::Table;
use super::{Config, Event, Failure, OnSessionLost, Outbox, SessionChange, Terms, WindowFree};

#[derive(Debug)]
pub(super) struct Outgoing<P, S> {
    window: u16,
    window_exactly_once: u16,
    on_session_lost: OnSessionLost,
    pub(super) terms: Terms,
    past: Past,
    aliases: Outbound,
    pub(super) table: Table<State<P, S>>,
    pub(super) publishes: usize,
    /// Of those, of QoS 2.
    exactly_once: usize,
    /// Of those, the ones that are behind, because the server takes only so many at once.
    again: VecDeque<PacketId>,
    /// Publishes of QoS 2 that the server answered as if they were of QoS 1.
    pub(super) downgraded: u64,
    pub(super) controls: u16,
    /// Subscribes and unsubscribes that have no id yet.
    pub(super) waiting: VecDeque<Control<S>>,
    pub(super) changes: Changes,
}

impl<P, S> Outgoing<P, S> {
    pub(super) fn new(config: &Config) -> Self {
        let window = config.window.max(1);
        Self {
            window,
            window_exactly_once: config.window_exactly_once.max(1),
            on_session_lost: config.on_session_lost,
            terms: Terms::plain(false),
            past: Past::Unknown,
            aliases: Outbound::default(),
            table: Table::new(2 * usize::from(window) + 2 * usize::from(CONTROL_WINDOW)),
            publishes: 0,
            exactly_once: 0,
            again: VecDeque::new(),
            downgraded: 0,
            controls: 0,
            waiting: VecDeque::new(),
            changes: Changes::default(),
        }
    }

    pub(super) fn window_free(&self) -> WindowFree {
        if self.past.is_releasing() {
            return WindowFree {
                acknowledged: 0,
                exactly_once: 0,
            };
        }
        let room = self.window.min(self.terms.receive_maximum);
        // Controls may take their ids between this answer and the publishes that rely on it.
        let room = room.min(u16::MAX - CONTROL_WINDOW);
        let acknowledged = usize::from(room).saturating_sub(self.publishes);
        let exactly_once = usize::from(self.window_exactly_once);
        WindowFree {
            acknowledged,
            exactly_once: exactly_once.saturating_sub(self.exactly_once),
        }
    }

    /// When to call `tick` next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.past.deadline()
    }

    /// Publishes wait no longer for a server that does not answer PUBREL.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        outbox: &mut Outbox,
        events: &mut Vec<Event<P, S>>,
    ) {
        if self.past.give_up(now) {
            self.send_again(now, outbox, events);
        }
    }

    pub(super) fn is_releasing(&self) -> bool {
        self.past.is_releasing()
    }

    pub(super) fn open(&self) -> usize {
        self.publishes + usize::from(self.controls) + self.waiting.len()
    }

    pub(super) fn publish(
        &mut self,
        mut publish: Publish,
        token: P,
        now: Instant,
        outbox: &mut Outbox,
        events: &mut Vec<Event<P, S>>,
    ) -> Option<P> {
        publish.dup = false;
        publish.id = None;
        let acknowledged = publish.qos != QoS::AtMostOnce;
        let id = acknowledged.then(|| self.table.allocate());
        publish.id = id;
        if publish.qos == QoS::ExactlyOnce {
            self.past.release(self.table.spread(), now, outbox);
        }
        if let Some(id) = id
            && self.past.is_releasing()
        {
            self.again.push_back(id);
            self.open_publish(id, publish, now, Place::Held, token);
            return None;
        }
        let sent = send(&self.terms, &mut self.aliases, &mut publish, outbox);
        let Some(id) = id else {
            return match sent {
                Ok(()) => Some(token),
                Err(failure) => {
                    events.push(Event::PublishFailed(token, failure));
                    None
                }
            };
        };
        if let Err(failure) = sent {
            self.table.release(id);
            events.push(Event::PublishFailed(token, failure));
            return None;
        }
        self.open_publish(id, publish, now, Place::OnWire, token);
        None
    }

    fn open_publish(
        &mut self,
        id: PacketId,
        publish: Publish,
        now: Instant,
        place: Place,
        token: P,
    ) {
        self.publishes += 1;
        self.exactly_once += usize::from(publish.qos == QoS::ExactlyOnce);
        let lasts = publish.properties.as_ref().and_then(|it| it.message_expiry);
        let expires =
            lasts.and_then(|seconds| now.checked_add(Duration::from_secs(seconds.into())));
        self.table.put(
            id,
            State::Publish(Open {
                token,
                message: Some(Unreceived {
                    publish,
                    expires,
                    place,
                }),
            }),
        );
        self.changes.push(SessionChange::Sent(id));
    }

    pub(super) fn restore_publish(
        &mut self,
        id: PacketId,
        mut publish: Publish,
        expires: Option<Instant>,
        token: P,
    ) {
        publish.id = Some(id);
        self.past = Past::Known;
        self.publishes += 1;
        self.exactly_once += usize::from(publish.qos == QoS::ExactlyOnce);
        self.table.claim(id);
        self.table.put(
            id,
            State::Publish(Open {
                token,
                message: Some(Unreceived {
                    publish,
                    expires,
                    place: Place::Behind,
                }),
            }),
        );
    }

    pub(super) fn restore_release(&mut self, id: PacketId, token: P) {
        self.past = Past::Known;
        self.publishes += 1;
        self.exactly_once += 1;
        self.table.claim(id);
        let message = None;
        self.table.put(id, State::Publish(Open { token, message }));
    }

    /// Takes an entry out and gives its id back.
    pub(super) fn remove(&mut self, id: PacketId) -> Option<State<P, S>> {
        let state = self.table.take(id)?;
        self.table.release(id);
        match &state {
            State::Publish(open) => {
                let kept = open.message.as_ref();
                let once = kept.is_none_or(|it| it.publish.qos == QoS::ExactlyOnce);
                self.publishes -= 1;
                self.exactly_once -= usize::from(once);
                self.changes.push(SessionChange::Completed(id));
            }
            State::Control(_) => self.controls -= 1,
        }
        Some(state)
    }

    /// The QoS of a PUBLISH that is on its way on this connection.
    fn sent_with(&self, id: PacketId) -> Option<QoS> {
        let Some(State::Publish(open)) = self.table.get(id) else {
            return None;
        };
        let message = open.message.as_ref();
        let sent = message.filter(|it| it.place == Place::OnWire)?;
        Some(sent.publish.qos)
    }

    /// Whether PUBREC has come for it, and PUBREL gone out.
    fn is_released(&self, id: PacketId) -> bool {
        matches!(self.table.get(id), Some(State::Publish(open)) if open.message.is_none())
    }

    /// Whether the answer belonged to something.
    pub(super) fn puback(&mut self, ack: &Ack, events: &mut Vec<Event<P, S>>) -> bool {
        match self.sent_with(ack.id) {
            Some(QoS::AtLeastOnce) => {}
            // RabbitMQ 3.10 answers QoS 2 as if it were QoS 1. It has the message and will say nothing else about
            // it: to wait on would keep the place in the window, and the caller, for ever.
            Some(QoS::ExactlyOnce) => self.downgraded += 1,
            _ => return false,
        }
        self.complete(ack, events);
        true
    }

    /// A PUBREC is answered with PUBREL, or the server would wait for ever (4.3.3); but one that says an error is the
    /// end of it, and its id is free again.
    pub(super) fn pubrec(
        &mut self,
        ack: &Ack,
        outbox: &mut Outbox,
        events: &mut Vec<Event<P, S>>,
    ) -> bool {
        let id = ack.id;
        let released = self.is_released(id);
        let expected = released || self.sent_with(id) == Some(QoS::ExactlyOnce);
        if ack.reason.is_error() {
            if expected {
                self.complete(ack, events);
            }
            return expected;
        }
        if expected && !released {
            if let Some(State::Publish(open)) = self.table.renew(id) {
                open.message = None;
                self.changes.push(SessionChange::Released(id));
            }
        } else if self.table.get(id).is_some() && !released {
            return false;
        }
        let reason = if expected {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdNotFound
        };
        outbox.push(&Packet::PubRel(Ack::new(id, reason)));
        expected
    }

    /// "Packet identifier not found" completes it too: the server had taken the message over at its PUBREC.
    pub(super) fn pubcomp(&mut self, ack: &Ack, events: &mut Vec<Event<P, S>>) -> bool {
        if self.past.released(ack.id) {
            return true;
        }
        if !self.is_released(ack.id) {
            return false;
        }
        self.complete(&Ack::from(ack.id), events);
        true
    }

    fn complete(&mut self, ack: &Ack, events: &mut Vec<Event<P, S>>) {
        let Some(State::Publish(Open { token, .. })) = self.remove(ack.id) else {
            return;
        };
        events.push(if ack.reason.is_error() {
            let said = ServerReason::of_ack(ack.reason, ack.properties.as_deref());
            Event::PublishFailed(token, Failure::Refused(said))
        } else {
            Event::Published(token, ack.reason)
        });
    }

    /// Subscribes and unsubscribes are no part of a session: they go out again as new ones.
    pub(super) fn connection_lost(&mut self) {
        self.again.clear();
        let mut controls = self
            .table
            .in_order(|state| matches!(state, State::Control(_)));
        while let Some(id) = controls.pop() {
            if let Some(State::Control(control)) = self.remove(id) {
                self.waiting.push_front(control);
            }
        }
    }

    /// Sends again what is open, as far as the server takes it at once: PUBLISH in the order of publishing, then
    /// PUBREL in the order of PUBREC. Returns the number of PUBLISH sent again, and of those that failed.
    pub(super) fn resume(
        &mut self,
        terms: Terms,
        kept: bool,
        now: Instant,
        outbox: &mut Outbox,
        events: &mut Vec<Event<P, S>>,
    ) -> (usize, usize) {
        self.aliases.reset(terms.topic_alias_maximum);
        self.terms = terms;
        if kept {
            self.past.resume(now, outbox);
        } else {
            self.past = Past::Known;
        }
        let fails = !kept && self.on_session_lost == OnSessionLost::Fail;
        let (mut sent, mut failed) = (0_usize, 0);
        self.again.clear();
        for id in self.table.in_order(|state| state.message().is_some()) {
            let Some(message) = self.table.get_mut(id).and_then(State::message_mut) else {
                continue;
            };
            if message.place != Place::Held {
                sent += 1;
                if fails {
                    self.fail(id, Failure::SessionLost, events);
                    failed += 1;
                    continue;
                }
                message.publish.dup = kept;
                message.place = Place::Behind;
            }
            self.again.push_back(id);
        }
        let sent = sent - failed;
        let refused = self.send_again(now, outbox, events);
        for id in self
            .table
            .in_order(|state| matches!(state, State::Publish(open) if open.message.is_none()))
        {
            if kept {
                outbox.push(&Packet::PubRel(Ack::from(id)));
            } else {
                self.complete(&Ack::from(id), events);
            }
        }
        (sent.saturating_sub(refused), failed + refused)
    }

    /// Sends again as many as the server takes at once; returns how many it does not take at all.
    pub(super) fn send_again(
        &mut self,
        now: Instant,
        outbox: &mut Outbox,
        events: &mut Vec<Event<P, S>>,
    ) -> usize {
        let mut failed = 0;
        if self.past.is_releasing() {
            return failed;
        }
        while self.publishes - self.again.len() < usize::from(self.terms.receive_maximum) {
            let Some(id) = self.again.pop_front() else {
                break;
            };
            let Some(message) = self.table.get_mut(id).and_then(State::message_mut) else {
                continue;
            };
            message.shorten(now);
            message.place = Place::OnWire;
            let sent = send(&self.terms, &mut self.aliases, &mut message.publish, outbox);
            if let Err(failure) = sent {
                self.fail(id, failure, events);
                failed += 1;
            }
        }
        failed
    }

    fn fail(&mut self, id: PacketId, failure: Failure, events: &mut Vec<Event<P, S>>) {
        if let Some(State::Publish(open)) = self.remove(id) {
            events.push(Event::PublishFailed(open.token, failure));
        }
    }

    pub(super) fn take_tokens(&mut self) -> (Vec<P>, Vec<S>)
    where
        P: Default,
        S: Default,
    {
        let (mut published, mut answered) = (Vec::new(), Vec::new());
        for id in self.table.in_order(|_| true) {
            match self.table.get_mut(id) {
                Some(State::Publish(Open { token, .. })) => {
                    published.push(std::mem::take(token));
                }
                Some(State::Control(control)) => answered.extend(control.take_token()),
                None => {}
            }
        }
        answered.extend(self.waiting.iter_mut().filter_map(Control::take_token));
        (published, answered)
    }

    pub(super) fn abandon(&mut self, forget: bool) -> (Vec<P>, Vec<S>)
    where
        P: Default,
    {
        let mut published = Vec::new();
        for id in self
            .table
            .in_order(|state| !matches!(state, State::Control(_)))
        {
            if let Some(State::Publish(Open { token, .. })) = self.table.get_mut(id) {
                published.push(std::mem::take(token));
            }
            if forget {
                self.remove(id);
            }
        }
        let controls = self.waiting.drain(..).filter_map(Control::into_token);
        (published, controls.collect())
    }
}

/// Apart from `Outgoing`, for a publish that lies in its table.
fn send(
    terms: &Terms,
    aliases: &mut Outbound,
    publish: &mut Publish,
    outbox: &mut Outbox,
) -> Result<(), Failure> {
    terms.check_publish(publish)?;
    let limit = terms.max_packet_size;
    let sent = aliases.choose(&publish.topic);
    let mut pushed = outbox.push_publish(publish, sent, limit);
    if pushed.is_err() && matches!(sent, Sent::Introduced(_)) {
        // The number is ours to give, and costs three bytes: the message may fit without.
        aliases.take_back(&publish.topic, sent);
        pushed = outbox.push_publish(publish, Sent::InFull, limit);
    }
    pushed.map_err(|size| Failure::Forbidden(super::Forbidden::TooLarge { size, limit }))
}
