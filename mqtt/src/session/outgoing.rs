//! What the client has sent and waits to see acknowledged.
//!
//! A packet id is the place of its entry in a table, plus one, and free ids stand in a queue: taking one, giving it
//! back and finding its entry are one step each, an id is never 0 and never given out twice. Order lives in stamps,
//! which are sorted only when a connection is resumed.

use std::collections::{BTreeMap, VecDeque};

use crate::codec::{
    Ack, Packet, PacketId, Publish, QoS, SubAck, Subscribe, Subscription, Text, Unsubscribe,
};

use super::{Event, Outbox, Violation, WindowFree};

/// Subscribes and unsubscribes in flight at once; more wait.
const CONTROL_WINDOW: u16 = 16;
/// Filters in one renewing SUBSCRIBE; some servers take no more.
const RENEW_FILTERS: usize = 8;

#[derive(Debug)]
pub(super) struct Outgoing<P, S> {
    window: u16,
    window_exactly_once: u16,
    entries: Vec<Option<Entry<P, S>>>,
    free: VecDeque<PacketId>,
    next_stamp: u64,
    publishes: usize,
    /// Of those, of QoS 2.
    exactly_once: usize,
    controls: u16,
    /// Subscribes and unsubscribes that have no id yet.
    waiting: VecDeque<Control<S>>,
}

#[derive(Debug)]
struct Entry<P, S> {
    stamp: u64,
    state: State<P, S>,
}

#[derive(Debug)]
enum State<P, S> {
    /// PUBLISH sent; kept whole to be sent again.
    Publish(Publish, P),
    /// PUBREC came and PUBREL went out; the message itself is no longer needed.
    Release(P),
    Control(Control<S>),
}

#[derive(Debug)]
enum Control<S> {
    Subscribe(Vec<Subscription>, S),
    /// Made by the session itself.
    Renew(Vec<Subscription>),
    Unsubscribe(Vec<Text>, S),
}

impl<P, S> Outgoing<P, S> {
    pub(super) fn new(window: u16, window_exactly_once: u16) -> Self {
        Self {
            window: window.max(1),
            window_exactly_once: window_exactly_once.max(1),
            entries: Vec::new(),
            free: VecDeque::new(),
            next_stamp: 0,
            publishes: 0,
            exactly_once: 0,
            controls: 0,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn window_free(&self) -> WindowFree {
        let ids_left = usize::from(u16::MAX) - self.publishes - usize::from(self.controls);
        let acknowledged = usize::from(self.window)
            .saturating_sub(self.publishes)
            .min(ids_left);
        let exactly_once = usize::from(self.window_exactly_once);
        WindowFree {
            acknowledged,
            exactly_once: exactly_once.saturating_sub(self.exactly_once),
        }
    }

    pub(super) fn open(&self) -> usize {
        self.publishes + usize::from(self.controls) + self.waiting.len()
    }

    pub(super) fn publish(
        &mut self,
        mut publish: Publish,
        token: P,
        outbox: &mut Outbox,
    ) -> Option<P> {
        publish.dup = false;
        if publish.qos == QoS::AtMostOnce {
            publish.id = None;
            outbox.push_publish(&publish);
            return Some(token);
        }
        let id = self.allocate();
        publish.id = Some(id);
        outbox.push_publish(&publish);
        self.publishes += 1;
        self.exactly_once += usize::from(publish.qos == QoS::ExactlyOnce);
        self.put(id, State::Publish(publish, token));
        None
    }

    /// The longest-free id; a new one as long as the table is smaller than the id space wants it to be.
    fn allocate(&mut self) -> PacketId {
        let wanted = 2 * usize::from(self.window) + 2 * usize::from(CONTROL_WINDOW);
        let wanted = wanted.min(usize::from(u16::MAX));
        if self.entries.len() < wanted || self.free.is_empty() {
            self.entries.push(None);
            let id = u16::try_from(self.entries.len())
                .ok()
                .and_then(PacketId::new);
            return id.expect("the windows leave an id free");
        }
        self.free.pop_front().expect("seen not to be empty")
    }

    fn put(&mut self, id: PacketId, state: State<P, S>) {
        let stamp = self.next_stamp;
        self.next_stamp += 1;
        self.entries[index(id)] = Some(Entry { stamp, state });
    }

    fn state(&self, id: PacketId) -> Option<&State<P, S>> {
        Some(&self.entries.get(index(id))?.as_ref()?.state)
    }

    /// Takes an entry out and gives its id back.
    fn remove(&mut self, id: PacketId) -> Option<State<P, S>> {
        let entry = self.entries.get_mut(index(id))?.take()?;
        self.free.push_back(id);
        match &entry.state {
            State::Publish(publish, _) if publish.qos == QoS::AtLeastOnce => self.publishes -= 1,
            State::Publish(..) | State::Release(_) => {
                self.publishes -= 1;
                self.exactly_once -= 1;
            }
            State::Control(_) => self.controls -= 1,
        }
        Some(entry.state)
    }

    /// Whether the answer belonged to something.
    pub(super) fn puback(&mut self, id: PacketId, events: &mut Vec<Event<P, S>>) -> bool {
        match self.state(id) {
            Some(State::Publish(publish, _)) if publish.qos == QoS::AtLeastOnce => {}
            _ => return false,
        }
        self.complete(id, events);
        true
    }

    /// A PUBREC is always answered with PUBREL, or the server would wait for ever (4.3.3).
    pub(super) fn pubrec(&mut self, id: PacketId, outbox: &mut Outbox) -> bool {
        let expected = match self.state(id) {
            Some(State::Publish(publish, _)) if publish.qos == QoS::AtLeastOnce => return false,
            Some(State::Publish(..)) => {
                if let Some(State::Publish(_, token)) = self.take_state(id) {
                    self.put(id, State::Release(token));
                }
                true
            }
            Some(State::Release(_)) => true,
            Some(State::Control(_)) => return false,
            None => false,
        };
        outbox.push(&Packet::PubRel(Ack::from(id)));
        expected
    }

    /// As `remove`, but the id stays taken.
    fn take_state(&mut self, id: PacketId) -> Option<State<P, S>> {
        Some(self.entries.get_mut(index(id))?.take()?.state)
    }

    pub(super) fn pubcomp(&mut self, id: PacketId, events: &mut Vec<Event<P, S>>) -> bool {
        if !matches!(self.state(id), Some(State::Release(_))) {
            return false;
        }
        self.complete(id, events);
        true
    }

    fn complete(&mut self, id: PacketId, events: &mut Vec<Event<P, S>>) {
        if let Some(State::Publish(_, token) | State::Release(token)) = self.remove(id) {
            events.push(Event::Published(token));
        }
    }

    pub(super) fn subscribe(&mut self, filters: Vec<Subscription>, token: S) {
        self.waiting.push_back(Control::Subscribe(filters, token));
    }

    pub(super) fn unsubscribe(&mut self, filters: Vec<Text>, token: S) {
        self.waiting.push_back(Control::Unsubscribe(filters, token));
    }

    /// Subscribes again to everything, before whatever else waits.
    pub(super) fn renew(&mut self, subscriptions: &BTreeMap<Text, QoS>) {
        self.waiting
            .retain(|control| !matches!(control, Control::Renew(_)));
        let wanted: Vec<Subscription> = subscriptions
            .iter()
            .map(|(filter, &qos)| Subscription::new(filter.clone(), qos))
            .collect();
        for filters in wanted.chunks(RENEW_FILTERS).rev() {
            self.waiting.push_front(Control::Renew(filters.to_vec()));
        }
    }

    /// Sends subscribes and unsubscribes that wait, as many as may be in flight.
    pub(super) fn pump_control(&mut self, outbox: &mut Outbox) {
        while self.controls < CONTROL_WINDOW
            && self.publishes + usize::from(self.controls) < usize::from(u16::MAX)
        {
            let Some(control) = self.waiting.pop_front() else {
                return;
            };
            let id = self.allocate();
            outbox.push(&control.packet(id));
            self.controls += 1;
            self.put(id, State::Control(control));
        }
    }

    pub(super) fn suback(
        &mut self,
        suback: SubAck,
        subscriptions: &mut BTreeMap<Text, QoS>,
        events: &mut Vec<Event<P, S>>,
    ) -> Result<bool, Violation> {
        let (Control::Subscribe(filters, _) | Control::Renew(filters)) =
            (match self.state(suback.id) {
                Some(State::Control(control)) => control,
                _ => return Ok(false),
            })
        else {
            return Ok(false);
        };
        let (expected, found) = (filters.len(), suback.codes.len());
        if expected != found {
            return Err(Violation::CodeCount { expected, found });
        }
        let Some(State::Control(control)) = self.remove(suback.id) else {
            return Ok(false);
        };
        match control {
            Control::Subscribe(filters, token) => {
                for (wanted, code) in filters.into_iter().zip(&suback.codes) {
                    if !code.is_error() {
                        subscriptions.insert(wanted.filter, wanted.qos);
                    }
                }
                events.push(Event::Subscribed(token, suback.codes));
            }
            Control::Renew(filters) => {
                for (wanted, code) in filters.into_iter().zip(&suback.codes) {
                    if code.is_error() {
                        subscriptions.remove(&wanted.filter);
                        events.push(Event::RenewalRefused(wanted.filter));
                    }
                }
            }
            Control::Unsubscribe(..) => {}
        }
        Ok(true)
    }

    pub(super) fn unsuback(
        &mut self,
        id: PacketId,
        subscriptions: &mut BTreeMap<Text, QoS>,
        events: &mut Vec<Event<P, S>>,
    ) -> bool {
        if !matches!(
            self.state(id),
            Some(State::Control(Control::Unsubscribe(..)))
        ) {
            return false;
        }
        if let Some(State::Control(Control::Unsubscribe(filters, token))) = self.remove(id) {
            for filter in &filters {
                subscriptions.remove(filter);
            }
            events.push(Event::Unsubscribed(token));
        }
        true
    }

    /// Subscribes and unsubscribes are no part of a session: they go out again as new ones.
    pub(super) fn connection_lost(&mut self) {
        let mut controls = self.in_order(|state| matches!(state, State::Control(_)));
        while let Some(id) = controls.pop() {
            if let Some(State::Control(control)) = self.remove(id) {
                self.waiting.push_front(control);
            }
        }
    }

    /// Sends again what is open: PUBLISH in the order of publishing, then PUBREL in the order of PUBREC.
    /// Returns the number of PUBLISH.
    pub(super) fn resume(
        &mut self,
        session_present: bool,
        outbox: &mut Outbox,
        events: &mut Vec<Event<P, S>>,
    ) -> usize {
        let publishes = self.in_order(|state| matches!(state, State::Publish(..)));
        for &id in &publishes {
            if let Some(Entry {
                state: State::Publish(publish, _),
                ..
            }) = &mut self.entries[index(id)]
            {
                publish.dup = session_present;
                outbox.push_publish(publish);
            }
        }
        for id in self.in_order(|state| matches!(state, State::Release(_))) {
            if session_present {
                outbox.push(&Packet::PubRel(Ack::from(id)));
            } else {
                self.complete(id, events);
            }
        }
        publishes.len()
    }

    fn in_order(&self, wanted: impl Fn(&State<P, S>) -> bool) -> Vec<PacketId> {
        let mut stamped: Vec<(u64, PacketId)> = (1..=u16::MAX)
            .filter_map(PacketId::new)
            .zip(&self.entries)
            .filter_map(|(id, entry)| Some((id, entry.as_ref()?)))
            .filter(|(_, entry)| wanted(&entry.state))
            .map(|(id, entry)| (entry.stamp, id))
            .collect();
        stamped.sort_unstable();
        stamped.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn controls_free(&self) -> usize {
        usize::from(CONTROL_WINDOW).saturating_sub(self.waiting.len())
    }

    pub(super) fn take_tokens(&mut self) -> (Vec<P>, Vec<S>)
    where
        P: Default,
        S: Default,
    {
        let (mut published, mut answered) = (Vec::new(), Vec::new());
        for id in self.in_order(|_| true) {
            let entry = self.entries[index(id)].as_mut();
            match entry.map(|entry| &mut entry.state) {
                Some(State::Publish(_, token) | State::Release(token)) => {
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
        for id in self.in_order(|state| !matches!(state, State::Control(_))) {
            let entry = self.entries[index(id)]
                .as_mut()
                .map(|entry| &mut entry.state);
            if let Some(State::Publish(_, token) | State::Release(token)) = entry {
                published.push(std::mem::take(token));
            }
            if forget {
                self.remove(id);
            }
        }
        let controls = self.waiting.drain(..).filter_map(|control| match control {
            Control::Subscribe(_, token) | Control::Unsubscribe(_, token) => Some(token),
            Control::Renew(_) => None,
        });
        (published, controls.collect())
    }
}

impl<S> Control<S> {
    fn take_token(&mut self) -> Option<S>
    where
        S: Default,
    {
        match self {
            Self::Subscribe(_, token) | Self::Unsubscribe(_, token) => Some(std::mem::take(token)),
            Self::Renew(_) => None,
        }
    }

    fn packet(&self, id: PacketId) -> Packet {
        match self {
            Self::Subscribe(filters, _) | Self::Renew(filters) => Packet::Subscribe(Subscribe {
                id,
                filters: filters.clone(),
                properties: None,
            }),
            Self::Unsubscribe(filters, _) => Packet::Unsubscribe(Unsubscribe {
                id,
                filters: filters.clone(),
                user_properties: Vec::new(),
            }),
        }
    }
}

fn index(id: PacketId) -> usize {
    usize::from(id.get()) - 1
}
