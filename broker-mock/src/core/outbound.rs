//! What one session has still to send: the queue, and what is in flight and not acknowledged.
//!
//! QoS 1: PUBLISH, PUBACK. QoS 2: PUBLISH, PUBREC, PUBREL, PUBCOMP; the payload is let go at PUBREC.
//! One queue for all QoS keeps the order in which messages came; QoS 0 waits behind QoS 1 when the window
//! is full. What does not fit is dropped and counted, never waited for: one slow reader delays nobody.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use qproxy_mqtt::codec::{Packet, PacketId, QoS, ReasonCode};

use super::filter::GroupKey;
use super::message::{Budget, Claim, Delivery};
use super::packet;
use super::terms::{Sending, Terms};
use crate::stats::Counters;
use crate::{Limits, Overflow};

/// The outgoing half of a session.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    queue: VecDeque<Delivery>,
    in_flight: HashMap<PacketId, InFlight>,
    /// What is to be sent again on this connection, in order; ids that are finished meanwhile are passed over.
    unfinished: VecDeque<PacketId>,
    /// Of `in_flight`, what was sent on this connection: what the client's window is full of.
    active: usize,
    last_id: u16,
    next_order: u64,
    /// Of the queue and of what is in flight with its payload.
    bytes: usize,
    /// No message that waits expires before this.
    soonest_expiry: Option<Duration>,
}

#[derive(Debug)]
struct InFlight {
    /// Of first sending, which is the order of sending again (MQTT 3.1.1 section 4.6).
    order: u64,
    stage: Stage,
    turn: Turn,
}

/// Whether something was sent on the connection that there is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Sent,
    /// Only on an earlier one.
    Waits,
}

#[derive(Debug)]
enum Stage {
    /// PUBLISH sent; waits for PUBACK, or PUBREC where the QoS is 2.
    Published(Delivery),
    /// PUBREL sent; waits for PUBCOMP.
    Released,
}

/// The bounds and counts that a change of the queue needs, and the time.
pub(super) struct Room<'a> {
    pub(super) now: Duration,
    pub(super) limits: &'a Limits,
    pub(super) budget: &'a mut Budget,
    pub(super) counters: &'a mut Counters,
}

/// What an acknowledgement did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// It moved a message on.
    Yes,
    /// No message waited for it.
    Unexpected,
}

impl Outbound {
    /// Queues a message, or drops one as the limits and [`Overflow`] say.
    pub(super) fn push(&mut self, delivery: Delivery, online: bool, room: &mut Room<'_>) {
        let bytes = delivery.message.bytes();
        if !self.fits(bytes, room.limits) {
            self.drop_expired(room);
        }
        loop {
            if self.fits(bytes, room.limits)
                && room
                    .budget
                    .take(bytes, self.claim(online, bytes, room.limits))
            {
                self.bytes += bytes;
                self.soonest_expiry = earlier(self.soonest_expiry, delivery.message.expires());
                self.queue.push_back(delivery);
                return;
            }
            room.counters.dropped_queue_full += 1;
            let oldest = match room.limits.overflow {
                Overflow::DropNewest => None,
                Overflow::DropOldest => self.queue.pop_front(),
            };
            let Some(oldest) = oldest else { return };
            self.release(oldest.message.bytes(), room.budget);
        }
    }

    /// Lets go what waits and has expired (MQTT 5 section 3.3.2.3.3). Looks only when something has.
    pub(super) fn drop_expired(&mut self, room: &mut Room<'_>) {
        if self.soonest_expiry.is_none_or(|soonest| soonest > room.now) {
            return;
        }
        let (mut bytes, mut soonest) = (0, None);
        let before = self.queue.len();
        self.queue.retain(|delivery| {
            let keep = !delivery.message.has_expired(room.now);
            if keep {
                soonest = earlier(soonest, delivery.message.expires());
            } else {
                bytes += delivery.message.bytes();
            }
            keep
        });
        room.counters.messages_expired += (before - self.queue.len()) as u64;
        self.soonest_expiry = soonest;
        self.release(bytes, room.budget);
    }

    /// Whether another message would be dropped for the session's own limits.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        !self.fits(0, limits)
    }

    /// The client is there: what is unfinished comes first, in its order [MQTT-4.6.0-1], within the window
    /// of the new connection.
    pub(super) fn start_again(&mut self) {
        let mut unfinished: Vec<(u64, PacketId)> = Vec::with_capacity(self.in_flight.len());
        for (&id, entry) in &mut self.in_flight {
            entry.turn = Turn::Waits;
            unfinished.push((entry.order, id));
        }
        unfinished.sort_unstable();
        self.unfinished = unfinished.into_iter().map(|(_, id)| id).collect();
        self.active = 0;
    }

    /// The next packet that the window allows.
    pub(super) fn pop(&mut self, terms: &mut Terms, room: &mut Room<'_>) -> Option<Packet> {
        while let Some(&id) = self.unfinished.front() {
            let full = self.active >= terms.window;
            let published = match self.in_flight.get(&id) {
                Some(entry) if entry.turn == Turn::Waits => {
                    matches!(entry.stage, Stage::Published(_))
                }
                _ => {
                    self.unfinished.pop_front();
                    continue;
                }
            };
            if published && full {
                return None;
            }
            self.unfinished.pop_front();
            if let Some(packet) = self.send_again(id, terms, room) {
                return Some(packet);
            }
        }
        loop {
            let front = self.queue.front()?;
            let acknowledged = front.qos != QoS::AtMostOnce;
            if front.message.has_expired(room.now) {
                let expired = self.queue.pop_front()?;
                room.counters.messages_expired += 1;
                self.release(expired.message.bytes(), room.budget);
                continue;
            }
            if acknowledged && self.active >= terms.window {
                return None;
            }
            let delivery = self.queue.pop_front()?;
            let id = acknowledged.then(|| self.free_id());
            let packet = terms.publish(&delivery, id, Sending::First, room.now);
            match (packet, id) {
                (Some(packet), Some(id)) => {
                    self.keep(id, delivery);
                    return Some(packet);
                }
                (Some(packet), None) => {
                    self.release(delivery.message.bytes(), room.budget);
                    return Some(packet);
                }
                // As if it were through [MQTT-3.1.2-25].
                (None, _) => {
                    room.counters.dropped_too_large += 1;
                    self.release(delivery.message.bytes(), room.budget);
                }
            }
        }
    }

    /// PUBACK: the QoS 1 message is done, whatever the reason says.
    pub(super) fn puback(&mut self, id: PacketId, budget: &mut Budget) -> Acknowledged {
        match self.in_flight.get(&id) {
            Some(InFlight {
                stage: Stage::Published(delivery),
                ..
            }) if delivery.qos == QoS::AtLeastOnce => {
                let bytes = delivery.message.bytes();
                self.finish(id);
                self.release(bytes, budget);
                Acknowledged::Yes
            }
            _ => Acknowledged::Unexpected,
        }
    }

    /// PUBREC: the QoS 2 message has arrived, or is refused and done with that (MQTT 5 section 4.3.3).
    pub(super) fn pubrec(
        &mut self,
        id: PacketId,
        reason: ReasonCode,
        budget: &mut Budget,
    ) -> Acknowledged {
        let Some(entry) = self.in_flight.get_mut(&id) else {
            return Acknowledged::Unexpected;
        };
        match &entry.stage {
            Stage::Published(delivery) if delivery.qos == QoS::ExactlyOnce => {
                let bytes = delivery.message.bytes();
                if reason.is_error() {
                    self.finish(id);
                } else {
                    entry.stage = Stage::Released;
                    if entry.turn == Turn::Waits {
                        entry.turn = Turn::Sent;
                        self.active += 1;
                    }
                }
                self.release(bytes, budget);
                Acknowledged::Yes
            }
            Stage::Published(_) => Acknowledged::Unexpected,
            Stage::Released => Acknowledged::Yes,
        }
    }

    /// PUBCOMP: the QoS 2 message is done.
    pub(super) fn pubcomp(&mut self, id: PacketId) -> Acknowledged {
        match self.in_flight.get(&id) {
            Some(InFlight {
                stage: Stage::Released,
                ..
            }) => {
                self.finish(id);
                Acknowledged::Yes
            }
            _ => Acknowledged::Unexpected,
        }
    }

    /// The connection is gone: QoS 0 messages that wait are not kept (MQTT 3.1.1 section 4.3.1).
    pub(super) fn forget_qos0(&mut self, room: &mut Room<'_>) {
        let mut bytes = 0;
        let before = self.queue.len();
        self.queue.retain(|delivery| {
            let keep = delivery.qos != QoS::AtMostOnce;
            if !keep {
                bytes += delivery.message.bytes();
            }
            keep
        });
        room.counters.dropped_offline += (before - self.queue.len()) as u64;
        self.release(bytes, room.budget);
    }

    /// Takes out what another member of a shared subscription can get in place of this session, oldest
    /// first. A QoS 2 message that was sent stays: its receiver may have it (MQTT 5 section 4.8.2).
    pub(super) fn take_shared(
        &mut self,
        movable: impl Fn(&str) -> bool,
        budget: &mut Budget,
    ) -> Vec<Delivery> {
        let moves = |delivery: &Delivery| delivery.group.as_deref().is_some_and(&movable);
        let mut sent: Vec<(u64, Delivery)> = self
            .in_flight
            .extract_if(|_, entry| match &entry.stage {
                Stage::Published(delivery) => delivery.qos == QoS::AtLeastOnce && moves(delivery),
                Stage::Released => false,
            })
            .filter_map(|(_, entry)| match entry.stage {
                Stage::Published(delivery) => Some((entry.order, delivery)),
                Stage::Released => None,
            })
            .collect();
        // The session is offline: what is active is counted afresh when it comes back.
        sent.sort_unstable_by_key(|&(order, _)| order);
        let mut taken: Vec<Delivery> = sent.into_iter().map(|(_, delivery)| delivery).collect();
        let (waiting, kept) = std::mem::take(&mut self.queue)
            .into_iter()
            .partition::<VecDeque<_>, _>(moves);
        self.queue = kept;
        taken.extend(waiting);
        let bytes = taken.iter().map(|delivery| delivery.message.bytes()).sum();
        self.release(bytes, budget);
        taken
    }

    /// The session has ended: everything is let go. Returns how many messages that were.
    pub(super) fn clear(&mut self, budget: &mut Budget) -> usize {
        let lost = self.queue.len() + self.in_flight.len();
        let bytes = self.bytes;
        self.queue.clear();
        self.in_flight.clear();
        self.unfinished.clear();
        self.active = 0;
        self.release(bytes, budget);
        lost
    }

    /// The shared subscriptions that messages are held for.
    pub(super) fn groups(&self) -> BTreeSet<GroupKey> {
        let sent = self
            .in_flight
            .values()
            .filter_map(|entry| match &entry.stage {
                Stage::Published(delivery) => Some(delivery),
                Stage::Released => None,
            });
        self.queue
            .iter()
            .chain(sent)
            .filter_map(|delivery| delivery.group.clone())
            .collect()
    }

    fn send_again(
        &mut self,
        id: PacketId,
        terms: &mut Terms,
        room: &mut Room<'_>,
    ) -> Option<Packet> {
        let entry = self.in_flight.get_mut(&id)?;
        entry.turn = Turn::Sent;
        self.active += 1;
        let Stage::Published(delivery) = &entry.stage else {
            return Some(packet::pubrel(id, ReasonCode::Success));
        };
        let packet = terms.publish(delivery, Some(id), Sending::Again, room.now);
        if packet.is_none() {
            let bytes = delivery.message.bytes();
            room.counters.dropped_too_large += 1;
            self.finish(id);
            self.release(bytes, room.budget);
        }
        packet
    }

    fn keep(&mut self, id: PacketId, delivery: Delivery) {
        let entry = InFlight {
            order: self.next_order,
            stage: Stage::Published(delivery),
            turn: Turn::Sent,
        };
        self.next_order += 1;
        self.active += 1;
        self.in_flight.insert(id, entry);
    }

    fn finish(&mut self, id: PacketId) {
        if let Some(entry) = self.in_flight.remove(&id)
            && entry.turn == Turn::Sent
        {
            self.active -= 1;
        }
    }

    fn fits(&self, bytes: usize, limits: &Limits) -> bool {
        self.queue.len() < limits.queued_messages && self.bytes + bytes <= limits.queued_bytes
    }

    fn claim(&self, online: bool, bytes: usize, limits: &Limits) -> Claim {
        if !online {
            Claim::Offline
        } else if self.bytes == 0 || self.bytes + bytes <= limits.outbox_bytes {
            Claim::Guaranteed
        } else {
            Claim::Online
        }
    }

    fn release(&mut self, bytes: usize, budget: &mut Budget) {
        self.bytes -= bytes;
        budget.give_back(bytes);
    }

    /// The next packet id that is not in flight; ids run in a circle so that a late acknowledgement
    /// does not hit a new message. `Limits::in_flight` keeps most ids free.
    fn free_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = PacketId::new(self.last_id)
                && !self.in_flight.contains_key(&id)
            {
                return id;
            }
        }
    }
}

fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    [one, other].into_iter().flatten().min()
}
