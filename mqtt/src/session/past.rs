//! What an earlier process may have left at the server, under packet ids that this one gives out anew.
//!
//! Where the server has kept the session and the client has not, the server may hold ids between PUBREC and PUBREL. A
//! new message of QoS 2 under such an id is a repeat to it, and lost without a word. PUBREL frees an id whether or not
//! the server holds it, completes what the earlier process handed over, and is answered with PUBCOMP either way (4.3.3).
//! So the first publish of QoS 2 has every id released that there is to be one under, and publishes wait until all are
//! answered: sent right behind PUBREL, they could not be told from what was there before if the connection broke then.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::codec::{Ack, Packet, PacketId};

use super::Outbox;

/// Connections that end before a single answer came: to a server that cannot take a PUBREL it means nothing, so it
/// holds no ids either, and to go on asking would be to never publish.
const ATTEMPTS: u8 = 3;
/// Nor is a server waited for that has no answer to PUBREL, as RabbitMQ 3.10, which has no QoS 2: so long in one
/// connection, and then publishes go out.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) enum Past {
    /// This session's own, or the server has none.
    Known,
    /// An earlier process may have used any id.
    Unknown,
    /// PUBREL is out for these, or was when the connection ended.
    Releasing {
        unanswered: BTreeSet<PacketId>,
        /// Connections without an answer, this one included.
        attempt: u8,
        until: Instant,
    },
}

impl Past {
    pub(super) fn is_releasing(&self) -> bool {
        matches!(self, Self::Releasing { .. })
    }

    /// Asks the server to let go of the first `count` ids, where that was not done yet.
    pub(super) fn release(&mut self, count: usize, now: Instant, outbox: &mut Outbox) {
        if let Self::Unknown = self {
            let unanswered = (1..=u16::MAX).filter_map(PacketId::new).take(count);
            *self = Self::Releasing {
                unanswered: unanswered.collect(),
                attempt: 0,
                until: now,
            };
            self.resume(now, outbox);
        }
    }

    /// Asks again in a new connection.
    pub(super) fn resume(&mut self, now: Instant, outbox: &mut Outbox) {
        let Self::Releasing {
            unanswered,
            attempt,
            until,
        } = self
        else {
            return;
        };
        if *attempt == ATTEMPTS {
            *self = Self::Known;
            return;
        }
        *attempt += 1;
        *until = now + PATIENCE;
        for &id in &*unanswered {
            outbox.push(&Packet::PubRel(Ack::from(id)));
        }
    }

    /// When to stop waiting.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Releasing { until, .. } => Some(*until),
            Self::Known | Self::Unknown => None,
        }
    }

    /// Stops waiting where it is time; whether it was.
    pub(super) fn give_up(&mut self, now: Instant) -> bool {
        let over = self.deadline().is_some_and(|until| until <= now);
        if over {
            *self = Self::Known;
        }
        over
    }

    /// PUBCOMP came; whether it was for one of these.
    pub(super) fn released(&mut self, id: PacketId) -> bool {
        let Self::Releasing {
            unanswered,
            attempt,
            ..
        } = self
        else {
            return false;
        };
        let expected = unanswered.remove(&id);
        if expected {
            *attempt = 0;
        }
        if unanswered.is_empty() {
            *self = Self::Known;
        }
        expected
    }
}
