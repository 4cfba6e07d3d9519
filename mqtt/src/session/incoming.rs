//! What the server has sent and waits to see acknowledged.
//!
//! Acknowledgements leave in the order in which the messages came [MQTT-4.6.0-2], whatever order the program settles
//! them in. QoS 2 is delivered at its PUBLISH; its id is remembered until PUBREL, over connections, so that a repeat
//! is not delivered again.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::codec::{Ack, Packet, PacketId, Publish, QoS, ReasonCode};

use super::saved::Changes;
use super::{AckMode, Outbox, SessionChange, Violation};

/// What the program does with a message it was to acknowledge.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use qproxy_mqtt::session::*;
/// # use qproxy_mqtt::Version;
/// # let config = Config {
/// #     version: Version::V311,
/// #     window: 10,
/// #     window_exactly_once: 5,
/// #     continuity: Continuity::Resumed,
/// #     keep_alive: Duration::from_secs(60),
/// #     ack_mode: AckMode::Manual,
/// #     receive_maximum: 100,
/// #     topic_alias_maximum: 0,
/// #     on_session_lost: OnSessionLost::Republish,
/// # };
/// # let now = Instant::now();
/// # let mut session = Session::<u32, &str>::new(&config);
/// # session.connected(&Terms::plain(false), now).unwrap();
/// use qproxy_mqtt::codec::{Packet, PacketId, Publish, QoS};
///
/// # let (qos, id) = (QoS::AtLeastOnce, PacketId::new(9));
/// # let message = Publish { qos, id, topic: "a".into(), ..Publish::default() };
/// # session.receive(Packet::Publish(message), now).unwrap();
/// # let mut events = Vec::new();
/// # session.take_events(&mut events);
/// if let Some(Event::Message(_, Some(id))) = events.pop() {
///     session.settle(id, Settled::Dropped);
/// }
/// assert!(session.outbox().is_empty(), "the server will send it again");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Done with it: PUBACK or PUBREC goes out, in the order of arrival.
    Acknowledged,
    /// Let go without: nothing goes out, and the server sends it again in the next connection.
    Dropped,
}

/// Names a message that the program has to settle. Never used twice in the life of a session.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use qproxy_mqtt::session::*;
/// # use qproxy_mqtt::Version;
/// # let config = Config {
/// #     version: Version::V311,
/// #     window: 10,
/// #     window_exactly_once: 5,
/// #     continuity: Continuity::Resumed,
/// #     keep_alive: Duration::from_secs(60),
/// #     ack_mode: AckMode::Manual,
/// #     receive_maximum: 100,
/// #     topic_alias_maximum: 0,
/// #     on_session_lost: OnSessionLost::Republish,
/// # };
/// # let now = Instant::now();
/// # let mut session = Session::<u32, &str>::new(&config);
/// # session.connected(&Terms::plain(false), now).unwrap();
/// use qproxy_mqtt::codec::{Packet, PacketId, Publish, QoS};
///
/// # let (qos, id) = (QoS::AtLeastOnce, PacketId::new(9));
/// # let message = Publish { qos, id, topic: "a".into(), ..Publish::default() };
/// session.receive(Packet::Publish(message), now).unwrap();
/// let mut events = Vec::new();
/// session.take_events(&mut events);
/// let unsettled: Vec<AckId> = events
///     .iter()
///     .filter_map(|event| match event {
///         Event::Message(_, id) => *id,
///         _ => None,
///     })
///     .collect();
/// assert_eq!(unsettled.len(), 1);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AckId(u64);

#[cfg(test)]
impl AckId {
    pub(crate) const FIRST: Self = Self(0);
}

#[derive(Debug)]
pub(super) struct Incoming {
    mode: AckMode,
    /// Messages of this connection that are not acknowledged, in order of arrival.
    unsettled: VecDeque<Unsettled>,
    /// Number of the first of `unsettled`; the next message gets `first + unsettled.len()`.
    first: u64,
    /// QoS 2 ids between PUBLISH and PUBREL.
    received: HashMap<PacketId, Received>,
    /// Messages of QoS 2 that came in an earlier connection and that the program still holds.
    carried: HashMap<u64, PacketId>,
    pub(super) changes: Changes,
    quota: Option<Quota>,
}

/// How many messages the server may have unacknowledged on one connection (MQTT 5.0 section 4.9).
#[derive(Debug)]
struct Quota {
    max: u16,
    /// Of QoS 1, and not acknowledged.
    once: usize,
    /// Of QoS 2, and not complete.
    exactly_once: HashSet<PacketId>,
}

impl Quota {
    fn take(&mut self, id: PacketId, qos: QoS) -> Result<(), Violation> {
        match qos {
            QoS::ExactlyOnce => drop(self.exactly_once.insert(id)),
            _ => self.once += 1,
        }
        if self.once + self.exactly_once.len() > usize::from(self.max) {
            return Err(Violation::ReceiveMaximum(self.max));
        }
        Ok(())
    }

    fn connection_lost(&mut self) {
        self.once = 0;
        self.exactly_once.clear();
    }
}

#[derive(Debug)]
struct Unsettled {
    id: PacketId,
    qos: QoS,
    settled: Option<Settled>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    /// The program has it, under this number; `repeat` is the number of its latest repeat.
    Held { number: u64, repeat: Option<u64> },
    /// The program is done with it: PUBREC is out, or goes out when the server repeats its PUBLISH.
    Done,
}

impl Incoming {
    /// With `receive_maximum`, a server that has more than that unacknowledged breaks the protocol.
    pub(super) fn new(mode: AckMode, receive_maximum: Option<u16>) -> Self {
        let quota = receive_maximum.map(|max| Quota {
            max,
            once: 0,
            exactly_once: HashSet::new(),
        });
        Self {
            mode,
            quota,
            unsettled: VecDeque::new(),
            first: 0,
            received: HashMap::new(),
            carried: HashMap::new(),
            changes: Changes::default(),
        }
    }

    /// What to deliver, if it is not a repeat.
    pub(super) fn publish(
        &mut self,
        publish: Publish,
        outbox: &mut Outbox,
    ) -> Result<Option<(Publish, Option<AckId>)>, Violation> {
        let Some(id) = publish.id else {
            return Ok(Some((publish, None)));
        };
        if let Some(quota) = &mut self.quota {
            quota.take(id, publish.qos)?;
        }
        match (self.mode, publish.qos) {
            (AckMode::Auto, QoS::ExactlyOnce) => {
                let repeat = self.received.insert(id, Received::Done).is_some();
                if !repeat {
                    self.changes.push(SessionChange::Received(id));
                }
                outbox.push(&Packet::PubRec(Ack::from(id)));
                Ok((!repeat).then_some((publish, None)))
            }
            (AckMode::Auto, _) => {
                self.acknowledge(id, outbox);
                Ok(Some((publish, None)))
            }
            (AckMode::Manual, QoS::ExactlyOnce) => self.exactly_once(id, publish, outbox),
            (AckMode::Manual, qos) => {
                let number = self.push(id, qos, None)?;
                Ok(Some((publish, Some(AckId(number)))))
            }
        }
    }

    fn exactly_once(
        &mut self,
        id: PacketId,
        publish: Publish,
        outbox: &mut Outbox,
    ) -> Result<Option<(Publish, Option<AckId>)>, Violation> {
        match self.received.get(&id).copied() {
            None => {
                let number = self.push(id, QoS::ExactlyOnce, None)?;
                self.received.insert(
                    id,
                    Received::Held {
                        number,
                        repeat: None,
                    },
                );
                Ok(Some((publish, Some(AckId(number)))))
            }
            Some(Received::Done) => {
                self.push(id, QoS::ExactlyOnce, Some(Settled::Acknowledged))?;
                self.flush(outbox);
                Ok(None)
            }
            Some(Received::Held { number, repeat }) => {
                if repeat.unwrap_or(number) < self.first {
                    let repeat = Some(self.push(id, QoS::ExactlyOnce, None)?);
                    self.received.insert(id, Received::Held { number, repeat });
                }
                Ok(None)
            }
        }
    }

    fn acknowledge(&mut self, id: PacketId, outbox: &mut Outbox) {
        outbox.push(&Packet::PubAck(Ack::from(id)));
        if let Some(quota) = &mut self.quota {
            quota.once -= 1;
        }
    }

    fn push(&mut self, id: PacketId, qos: QoS, settled: Option<Settled>) -> Result<u64, Violation> {
        if self.unsettled.len() >= usize::from(u16::MAX) {
            return Err(Violation::TooManyUnacknowledged);
        }
        self.unsettled.push_back(Unsettled { id, qos, settled });
        Ok(self.first + self.unsettled.len() as u64 - 1)
    }

    pub(super) fn settle(&mut self, AckId(number): AckId, settled: Settled, outbox: &mut Outbox) {
        let number = match self.carried.remove(&number) {
            None => number,
            Some(id) => match self.settle_carried(id, settled) {
                None => return,
                Some(repeat) => repeat,
            },
        };
        let position = number
            .checked_sub(self.first)
            .and_then(|at| usize::try_from(at).ok());
        let Some(entry) = position.and_then(|at| self.unsettled.get_mut(at)) else {
            return;
        };
        if entry.settled.is_some() {
            return;
        }
        entry.settled = Some(settled);
        let held = Received::Held {
            number,
            repeat: None,
        };
        if entry.qos == QoS::ExactlyOnce && self.received.get(&entry.id) == Some(&held) {
            match settled {
                Settled::Acknowledged => {
                    self.changes.push(SessionChange::Received(entry.id));
                    self.received.insert(entry.id, Received::Done)
                }
                Settled::Dropped => self.received.remove(&entry.id),
            };
        }
        self.flush(outbox);
    }

    /// For a message of an earlier connection; returns the number of its repeat, if that came.
    fn settle_carried(&mut self, id: PacketId, settled: Settled) -> Option<u64> {
        let Some(Received::Held { repeat, .. }) = self.received.get(&id).copied() else {
            return None;
        };
        match settled {
            Settled::Acknowledged => {
                self.changes.push(SessionChange::Received(id));
                self.received.insert(id, Received::Done)
            }
            Settled::Dropped => self.received.remove(&id),
        };
        repeat
    }

    fn flush(&mut self, outbox: &mut Outbox) {
        while let Some(Unsettled {
            id,
            qos,
            settled: Some(settled),
        }) = self.unsettled.front()
        {
            let id = *id;
            match (settled, qos) {
                (Settled::Dropped, _) => {}
                (Settled::Acknowledged, QoS::ExactlyOnce) => {
                    outbox.push(&Packet::PubRec(Ack::from(id)));
                }
                (Settled::Acknowledged, _) => self.acknowledge(id, outbox),
            }
            self.unsettled.pop_front();
            self.first += 1;
        }
    }

    /// PUBCOMP answers every PUBREL, also of an id that is not known: it may be the repeat of a finished one.
    pub(super) fn release(&mut self, id: PacketId, outbox: &mut Outbox) -> bool {
        let known = self.received.remove(&id).is_some();
        let reason = if known {
            self.changes.push(SessionChange::Forgotten(id));
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdNotFound
        };
        outbox.push(&Packet::PubComp(Ack::new(id, reason)));
        if let Some(quota) = &mut self.quota {
            quota.exactly_once.remove(&id);
        }
        known
    }

    pub(super) fn restore(&mut self, id: PacketId) {
        self.received.insert(id, Received::Done);
    }

    /// Acknowledgements of QoS 1 die with their connection: the server sends those messages again.
    pub(super) fn connection_lost(&mut self) {
        if let Some(quota) = &mut self.quota {
            quota.connection_lost();
        }
        self.first += self.unsettled.len() as u64;
        self.unsettled.clear();
        for (&id, received) in &mut self.received {
            if let Received::Held { number, repeat } = received {
                *repeat = None;
                self.carried.insert(*number, id);
            }
        }
    }

    pub(super) fn session_lost(&mut self) {
        self.received.clear();
        self.carried.clear();
        self.changes.push(SessionChange::AllForgotten);
    }
}
