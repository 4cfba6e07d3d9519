//! The sum of all changes: what is still open.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use crate::codec::{PacketId, Publish};

use super::{Change, form};

/// A session as it was saved.
///
/// ```
/// use qproxy_mqtt::codec::PacketId;
/// use qproxy_mqtt::persistence::{Change, InFlight, Saved};
///
/// let id = PacketId::MIN;
/// let publish = Default::default();
/// let mut saved = Saved::default();
/// saved.apply(&Change::Accepted { number: 3, publish, expires: None });
/// assert_eq!(saved.queued().count(), 1);
/// saved.apply(&Change::Sent { number: 3, id });
/// saved.apply(&Change::Released { id });
/// assert_eq!(saved.in_flight(), [(id, &InFlight::Release { order: 0 })]);
/// assert_eq!(saved.changes(), [Change::Released { id }]);
/// assert_eq!(saved.received().count(), 0);
/// assert_eq!(saved.next_number(), 4);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    queued: BTreeMap<u64, (Publish, Option<SystemTime>)>,
    in_flight: BTreeMap<PacketId, InFlight>,
    received: BTreeSet<PacketId>,
    /// Counts releases, for their order.
    releases: u64,
    next_number: u64,
}

/// A publish that went out and is not complete.
///
/// ```
/// use qproxy_mqtt::codec::PacketId;
/// use qproxy_mqtt::persistence::{Change, InFlight, Saved};
///
/// let (number, id) = (0, PacketId::MIN);
/// let publish = Default::default();
/// let mut saved = Saved::default();
/// saved.apply(&Change::Accepted { number, publish, expires: None });
/// saved.apply(&Change::Sent { number, id });
/// assert!(matches!(saved.in_flight()[0].1, InFlight::Publish { number: 0, .. }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InFlight {
    /// PUBLISH may have left.
    Publish {
        /// Where it stands among all publishes.
        number: u64,
        /// The message.
        publish: Publish,
        /// When it is of no use any more.
        expires: Option<SystemTime>,
    },
    /// PUBREC has come; `order` rises from one to the next.
    Release {
        /// Where it stands among the releases.
        order: u64,
    },
}

impl Saved {
    /// Takes one change in. One that refers to nothing changes nothing.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Accepted {
                number,
                publish,
                expires,
            } => {
                self.queued.insert(*number, (publish.clone(), *expires));
                self.next_number = self.next_number.max(number.saturating_add(1));
            }
            Change::Withdrawn { number } => {
                self.queued.remove(number);
            }
            Change::Sent { number, id } => {
                if let Some((publish, expires)) = self.queued.remove(number) {
                    let in_flight = InFlight::Publish {
                        number: *number,
                        publish,
                        expires,
                    };
                    self.in_flight.insert(*id, in_flight);
                }
            }
            Change::Released { id } => {
                let order = self.releases;
                self.releases += 1;
                self.in_flight.insert(*id, InFlight::Release { order });
            }
            Change::Completed { id } => {
                self.in_flight.remove(id);
            }
            Change::Received { id } => {
                self.received.insert(*id);
            }
            Change::Forgotten { id } => {
                self.received.remove(id);
            }
            Change::AllForgotten => self.received.clear(),
        }
    }

    /// The fewest changes that lead here.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut releases = Vec::new();
        for (&id, in_flight) in &self.in_flight {
            match in_flight {
                InFlight::Publish {
                    number,
                    publish,
                    expires,
                } => {
                    changes.push(accepted(*number, publish, *expires));
                    changes.push(Change::Sent {
                        number: *number,
                        id,
                    });
                }
                InFlight::Release { order } => releases.push((*order, id)),
            }
        }
        releases.sort_unstable();
        changes.extend(releases.into_iter().map(|(_, id)| Change::Released { id }));
        let queued = self.queued();
        changes.extend(queued.map(|(number, publish, expires)| accepted(number, publish, expires)));
        changes.extend(self.received.iter().map(|&id| Change::Received { id }));
        changes
    }

    /// About what it takes as changes, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let in_flight = self.in_flight.values().filter_map(|it| match it {
            InFlight::Publish {
                publish, expires, ..
            } => Some((publish, *expires)),
            InFlight::Release { .. } => None,
        });
        let queued = self.queued();
        let publishes = queued
            .map(|(_, publish, expires)| (publish, expires))
            .chain(in_flight);
        publishes
            .map(|(publish, expires)| form::size(publish, expires))
            .sum()
    }

    /// Publishes that were not sent, in their order, with the time at which they are of no use any more.
    pub fn queued(&self) -> impl Iterator<Item = (u64, &Publish, Option<SystemTime>)> {
        self.queued
            .iter()
            .map(|(&number, (publish, expires))| (number, publish, *expires))
    }

    /// Publishes that were, with their packet ids: first PUBLISH in the order of publishing, then PUBREL in the order
    /// of PUBREC.
    #[must_use]
    pub fn in_flight(&self) -> Vec<(PacketId, &InFlight)> {
        let mut all: Vec<_> = self.in_flight.iter().map(|(&id, it)| (id, it)).collect();
        all.sort_by_key(|(_, it)| match it {
            InFlight::Publish { number, .. } => (0, *number),
            InFlight::Release { order } => (1, *order),
        });
        all
    }

    /// Packet ids of the server between PUBLISH and PUBREL.
    pub fn received(&self) -> impl Iterator<Item = PacketId> {
        self.received.iter().copied()
    }

    /// A number above those of all publishes that are open.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next_number
    }
}

fn accepted(number: u64, publish: &Publish, expires: Option<SystemTime>) -> Change {
    Change::Accepted {
        number,
        publish: publish.clone(),
        expires,
    }
}
