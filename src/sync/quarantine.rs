//! The last messages that could not be read, kept for whoever wants to know why.
//!
//! A bounded ring in memory: topic, reason and first bytes, no more. The messages themselves were
//! acknowledged; what they held shows up as missing.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;

/// Messages kept.
pub(super) const CAPACITY: usize = 100;
const TOPIC_BYTES: usize = 256;
const FIRST_BYTES: usize = 64;

/// A message that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// When it came, microseconds since the Unix epoch.
    pub received_us: i64,
    /// Its topic, at most 256 bytes of it.
    pub topic: String,
    /// What is wrong with it.
    pub reason: String,
    /// How long it is.
    pub bytes: usize,
    /// Its first bytes, in hexadecimal.
    pub first_bytes: String,
}

/// The ring.
#[derive(Debug, Default)]
pub(super) struct Quarantine(Mutex<VecDeque<Quarantined>>);

impl Quarantine {
    /// Keeps a message, in place of the oldest where the ring is full.
    pub(super) fn keep(&self, received_us: i64, topic: &str, payload: &[u8], reason: String) {
        let first = &payload[..payload.len().min(FIRST_BYTES)];
        let entry = Quarantined {
            received_us,
            topic: topic[..topic.floor_char_boundary(TOPIC_BYTES)].to_owned(),
            reason,
            bytes: payload.len(),
            first_bytes: first.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let mut ring = self.0.lock();
        if ring.len() == CAPACITY {
            ring.pop_front();
        }
        ring.push_back(entry);
    }

    /// What is kept, oldest first.
    pub(super) fn list(&self) -> Vec<Quarantined> {
        self.0.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_ones_and_only_their_beginning() {
        let quarantine = Quarantine::default();
        for n in 0..CAPACITY + 5 {
            let topic = "é".repeat(1000);
            quarantine.keep(1, &topic, &[0xab; 5000], n.to_string());
        }
        let list = quarantine.list();
        assert_eq!((list.len(), list[0].reason.as_str()), (CAPACITY, "5"));
        assert_eq!(list[0].first_bytes, "ab".repeat(FIRST_BYTES));
        assert_eq!((list[0].topic.len(), list[0].bytes), (TOPIC_BYTES, 5000));
    }
}
