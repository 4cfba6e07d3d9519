//! The record of everything that passed a mock broker, for assertions.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use qproxy_mqtt::codec::Packet;

use super::script::{Direction, Fault};
use crate::core::CloseReason;

/// One thing that happened on a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Since the broker's start.
    pub at: Duration,
    /// The connection's number in the order of acceptance, from 0.
    pub connection: u64,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The connection was accepted.
    Accepted,
    /// The client sent a packet; noted before any fault.
    Received(Packet),
    /// The broker sent a packet; noted after the faults, so what was lost is not here.
    Sent(Packet),
    /// Bytes of the script were sent.
    SentRaw(Bytes),
    /// The client sent bytes that are no packet, and what is wrong with them.
    Malformed(String),
    /// `mqttbytes` sees a packet of the client in another way; what it sees.
    Disagreement(String),
    /// A rule acted on a packet of this direction.
    Faulted(Direction, Fault),
    /// The connection ended.
    Closed(CloseReason),
}

impl Entry {
    /// The packet that the client sent here.
    #[must_use]
    pub fn received(&self) -> Option<&Packet> {
        match &self.event {
            Event::Received(packet) => Some(packet),
            _ => None,
        }
    }

    /// The packet that the broker sent here.
    #[must_use]
    pub fn sent(&self) -> Option<&Packet> {
        match &self.event {
            Event::Sent(packet) => Some(packet),
            _ => None,
        }
    }
}

/// A bounded list of entries.
#[derive(Debug)]
pub(super) struct Record {
    entries: VecDeque<Entry>,
    most: usize,
    bytes: usize,
}

/// Payload bytes that a record keeps; the oldest entries go first.
const MOST_BYTES: usize = 256 * 1024 * 1024;

impl Record {
    pub(super) fn new(most: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            most,
            bytes: 0,
        }
    }

    pub(super) fn note(&mut self, at: Duration, connection: u64, event: Event) {
        self.bytes += size(&event);
        self.entries.push_back(Entry {
            at,
            connection,
            event,
        });
        while self.entries.len() > self.most || self.bytes > MOST_BYTES {
            let Some(oldest) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= size(&oldest.event);
        }
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.iter().cloned().collect()
    }
}

fn size(event: &Event) -> usize {
    match event {
        Event::Received(packet) | Event::Sent(packet) => crate::core::weight(packet),
        Event::SentRaw(bytes) => bytes.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest() {
        let mut record = Record::new(2);
        for connection in 0..5 {
            record.note(Duration::ZERO, connection, Event::Accepted);
        }
        let kept: Vec<u64> = record
            .entries()
            .iter()
            .map(|entry| entry.connection)
            .collect();
        assert_eq!(kept, [3, 4]);
    }
}
