//! Subscribes and unsubscribes that wait for their answer, and the renewal of what the server has lost.

use std::collections::BTreeMap;

use crate::codec::{
    Packet, PacketId, ReasonCode, SubAck, Subscribe, SubscribeProperties, Subscription,
    SubscriptionId, Text, UnsubAck, Unsubscribe,
};

use super::in_flight::State;
use super::outgoing::Outgoing;
use super::{Event, Failure, Outbox, Violation};
use crate::codec::Kind;

/// Subscribes and unsubscribes in flight at once; more wait.
pub(super) const CONTROL_WINDOW: u16 = 16;
/// Filters in one renewing SUBSCRIBE; some servers take no more.
const RENEW_FILTERS: usize = 8;

/// What the server has granted, and how to ask for it again.
pub(super) type Subscriptions = BTreeMap<Text, Granted>;

/// See [`Subscriptions`].
#[derive(Debug, Clone)]
pub(super) struct Granted {
    pub(super) wanted: Subscription,
    pub(super) id: Option<SubscriptionId>,
}

#[derive(Debug)]
pub(super) enum Control<S> {
    Subscribe(Vec<Subscription>, Option<SubscriptionId>, S),
    /// Made by the session itself.
    Renew(Vec<Subscription>, Option<SubscriptionId>),
    Unsubscribe(Vec<Text>, S),
}

impl<P, S> Outgoing<P, S> {
    /// Subscribes again to everything, before whatever else waits.
    pub(super) fn renew(&mut self, subscriptions: &Subscriptions) {
        self.waiting
            .retain(|control| !matches!(control, Control::Renew(..)));
        let mut by_id: BTreeMap<Option<SubscriptionId>, Vec<Subscription>> = BTreeMap::new();
        for granted in subscriptions.values() {
            let alike = by_id.entry(granted.id).or_default();
            alike.push(granted.wanted.clone());
        }
        for (id, wanted) in by_id.into_iter().rev() {
            for filters in wanted.chunks(RENEW_FILTERS).rev() {
                self.waiting
                    .push_front(Control::Renew(filters.to_vec(), id));
            }
        }
    }

    /// Sends subscribes and unsubscribes that wait, as many as may be in flight.
    pub(super) fn pump_control(&mut self, outbox: &mut Outbox, events: &mut Vec<Event<P, S>>) {
        while self.controls < CONTROL_WINDOW
            && self.publishes + usize::from(self.controls) < usize::from(u16::MAX)
        {
            let Some(control) = self.waiting.pop_front() else {
                return;
            };
            let id = self.table.allocate();
            let sent = control.check(&self.terms).and_then(|()| {
                let limit = self.terms.max_packet_size;
                let size = outbox.push_within(&control.packet(id), limit);
                Ok(size.map_err(|size| super::Forbidden::TooLarge { size, limit })?)
            });
            match sent {
                Ok(()) => {
                    self.controls += 1;
                    self.table.put(id, State::Control(control));
                }
                Err(failure) => {
                    self.table.release(id);
                    control.fail(failure, events);
                }
            }
        }
    }

    pub(super) fn suback(
        &mut self,
        suback: SubAck,
        subscriptions: &mut Subscriptions,
        events: &mut Vec<Event<P, S>>,
    ) -> Result<bool, Violation> {
        let asked = match self.table.get(suback.id) {
            Some(State::Control(Control::Subscribe(filters, ..) | Control::Renew(filters, ..))) => {
                filters.len()
            }
            _ => return Ok(false),
        };
        check_count(Kind::SubAck, asked, suback.codes.len())?;
        match self.remove(suback.id) {
            Some(State::Control(Control::Subscribe(filters, id, token))) => {
                for (wanted, code) in filters.into_iter().zip(&suback.codes) {
                    if code.granted_qos().is_some() {
                        let filter = wanted.filter.clone();
                        subscriptions.insert(filter, Granted { wanted, id });
                    }
                }
                let text = reason_text(suback.properties.as_deref());
                events.push(Event::Subscribed(token, suback.codes, text));
            }
            Some(State::Control(Control::Renew(filters, _))) => {
                for (wanted, &code) in filters.into_iter().zip(&suback.codes) {
                    if code.granted_qos().is_none() {
                        subscriptions.remove(&wanted.filter);
                        events.push(Event::RenewalRefused(wanted.filter, Some(code)));
                    }
                }
            }
            _ => {}
        }
        Ok(true)
    }

    pub(super) fn unsuback(
        &mut self,
        unsuback: UnsubAck,
        subscriptions: &mut Subscriptions,
        events: &mut Vec<Event<P, S>>,
    ) -> Result<bool, Violation> {
        let asked = match self.table.get(unsuback.id) {
            Some(State::Control(Control::Unsubscribe(filters, _))) => filters.len(),
            _ => return Ok(false),
        };
        let mut codes = unsuback.codes;
        if codes.is_empty() {
            // MQTT 3.1.1 says no more than that it is done.
            codes.resize(asked, ReasonCode::Success);
        }
        check_count(Kind::UnsubAck, asked, codes.len())?;
        if let Some(State::Control(Control::Unsubscribe(filters, token))) = self.remove(unsuback.id)
        {
            for (filter, _) in filters.iter().zip(&codes).filter(|(_, it)| !it.is_error()) {
                subscriptions.remove(filter);
            }
            let text = reason_text(unsuback.properties.as_deref());
            events.push(Event::Unsubscribed(token, codes, text));
        }
        Ok(true)
    }

    pub(super) fn controls_free(&self) -> usize {
        usize::from(CONTROL_WINDOW).saturating_sub(self.waiting.len())
    }
}

fn check_count(kind: Kind, expected: usize, found: usize) -> Result<(), Violation> {
    if expected == found {
        return Ok(());
    }
    Err(Violation::CodeCount {
        kind,
        expected,
        found,
    })
}

fn reason_text(said: Option<&crate::codec::AckProperties>) -> Option<Text> {
    Some(said?.reason_string.as_ref()?.detached())
}

impl<S> Control<S> {
    pub(super) fn take_token(&mut self) -> Option<S>
    where
        S: Default,
    {
        match self {
            Self::Subscribe(.., token) | Self::Unsubscribe(_, token) => Some(std::mem::take(token)),
            Self::Renew(..) => None,
        }
    }

    pub(super) fn into_token(self) -> Option<S> {
        match self {
            Self::Subscribe(.., token) | Self::Unsubscribe(_, token) => Some(token),
            Self::Renew(..) => None,
        }
    }

    fn check(&self, terms: &super::Terms) -> Result<(), Failure> {
        match self {
            Self::Subscribe(filters, id, _) | Self::Renew(filters, id) => {
                Ok(terms.check_subscribe(filters, *id)?)
            }
            Self::Unsubscribe(..) => Ok(()),
        }
    }

    /// A renewal stays on the list: the next connection may be with a server that takes it.
    fn fail<P>(self, failure: Failure, events: &mut Vec<Event<P, S>>) {
        match self {
            Self::Subscribe(.., token) | Self::Unsubscribe(_, token) => {
                events.push(Event::ControlFailed(token, failure));
            }
            Self::Renew(filters, _) => events.extend(
                filters
                    .into_iter()
                    .map(|wanted| Event::RenewalRefused(wanted.filter, None)),
            ),
        }
    }

    fn packet(&self, id: PacketId) -> Packet {
        match self {
            Self::Subscribe(filters, number, _) | Self::Renew(filters, number) => {
                let properties = number.map(|number| {
                    Box::new(SubscribeProperties {
                        subscription_id: Some(number),
                        ..SubscribeProperties::default()
                    })
                });
                Packet::Subscribe(Subscribe {
                    id,
                    filters: filters.clone(),
                    properties,
                })
            }
            Self::Unsubscribe(filters, _) => Packet::Unsubscribe(Unsubscribe {
                id,
                filters: filters.clone(),
                user_properties: Vec::new(),
            }),
        }
    }
}
