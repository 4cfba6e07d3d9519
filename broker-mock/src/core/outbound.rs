//! What one session has still to send: the queue, and what is in flight and not acknowledged.
//!
//! QoS 1: PUBLISH, PUBACK. QoS 2: PUBLISH, PUBREC, PUBREL, PUBCOMP; the payload is let go at PUBREC.
//! One queue for all QoS keeps the order in which messages came; QoS 0 waits behind QoS 1 when the window
//! is full. What does not fit is dropped and counted, never waited for: one slow reader delays nobody.

use std::collections::{BTreeSet, HashMap, VecDeque};

use qproxy_mqtt::codec::{Packet, PacketId, QoS};

use super::filter::GroupKey;
use super::message::{Budget, Claim, Delivery};
use super::packet::{self, Sending};
use crate::stats::Counters;
use crate::{Limits, Overflow};

/// The outgoing half of a session.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    queue: VecDeque<Delivery>,
    in_flight: HashMap<PacketId, InFlight>,
    last_id: u16,
    next_order: u64,
    /// Of the queue and of what is in flight with its payload.
    bytes: usize,
}

#[derive(Debug)]
struct InFlight {
    /// Of first sending, which is the order of sending again (MQTT 3.1.1 section 4.6).
    order: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// PUBLISH sent; waits for PUBACK, or PUBREC where the QoS is 2.
    Published(Delivery),
    /// PUBREL sent; waits for PUBCOMP.
    Released,
}

/// The bounds and counts that a change of the queue needs.
pub(super) struct Room<'a> {
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
        loop {
            if self.fits(bytes, room.limits)
                && room
                    .budget
                    .take(bytes, self.claim(online, bytes, room.limits))
            {
                self.bytes += bytes;
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

    /// Whether another message would be dropped for the session's own limits.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        !self.fits(0, limits)
    }

    /// The next packet that the window allows.
    pub(super) fn pop(&mut self, room: &mut Room<'_>) -> Option<Packet> {
        let front = self.queue.front()?;
        if front.qos == QoS::AtMostOnce {
            let delivery = self.queue.pop_front()?;
            self.release(delivery.message.bytes(), room.budget);
            return Some(packet::publish(&delivery, None, Sending::First));
        }
        if self.in_flight.len() >= usize::from(room.limits.in_flight) {
            return None;
        }
        let delivery = self.queue.pop_front()?;
        let id = self.free_id();
        let packet = packet::publish(&delivery, Some(id), Sending::First);
        let entry = InFlight {
            order: self.next_order,
            stage: Stage::Published(delivery),
        };
        self.next_order += 1;
        self.in_flight.insert(id, entry);
        Some(packet)
    }

    /// PUBACK: the QoS 1 message is done.
    pub(super) fn puback(&mut self, id: PacketId, budget: &mut Budget) -> Acknowledged {
        match self.in_flight.get(&id) {
            Some(InFlight {
                stage: Stage::Published(delivery),
                ..
            }) if delivery.qos == QoS::AtLeastOnce => {
                let bytes = delivery.message.bytes();
                self.in_flight.remove(&id);
                self.release(bytes, budget);
                Acknowledged::Yes
            }
            _ => Acknowledged::Unexpected,
        }
    }

    /// PUBREC: the QoS 2 message has arrived; PUBREL is due either way, so that no client waits for ever.
    pub(super) fn pubrec(&mut self, id: PacketId, budget: &mut Budget) -> Acknowledged {
        let Some(entry) = self.in_flight.get_mut(&id) else {
            return Acknowledged::Unexpected;
        };
        match &entry.stage {
            Stage::Published(delivery) if delivery.qos == QoS::ExactlyOnce => {
                let bytes = delivery.message.bytes();
                entry.stage = Stage::Released;
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
                self.in_flight.remove(&id);
                Acknowledged::Yes
            }
            _ => Acknowledged::Unexpected,
        }
    }

    /// What a client that is back gets first: unfinished messages in their order, marked DUP.
    pub(super) fn again(&self) -> Vec<Packet> {
        let mut unfinished: Vec<(&PacketId, &InFlight)> = self.in_flight.iter().collect();
        unfinished.sort_unstable_by_key(|(_, entry)| entry.order);
        unfinished
            .into_iter()
            .map(|(&id, entry)| match &entry.stage {
                Stage::Published(delivery) => packet::publish(delivery, Some(id), Sending::Again),
                Stage::Released => packet::pubrel(id),
            })
            .collect()
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
