//! What was captured, dropped and cut: the recorder's side of the ledger.

use super::queue::Queue;
use crate::metrics::{Counter, Family, Gauge, Registry, label};
use crate::record::GapReason;

/// Counters of capture.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(super) records: Counter,
    pub(super) items: Counter,
    pub(super) appended: Counter,
    pub(super) bytes: Counter,
    pub(super) encode_seconds: Counter<f64>,
    pub(super) sequence: Gauge,
    pub(super) skipped: Skipped,
    pub(super) truncated: Truncated,
    pub(super) calls: Counter,
    pub(super) calls_given_up: Counter,
    dropped: Family<label::Reason, Counter>,
}

/// Exchanges that were not to be copied.
#[derive(Debug, Clone, Default)]
pub(super) struct Skipped {
    pub(super) paused: Counter,
    pub(super) sampled: Counter,
    pub(super) filtered: Counter,
    pub(super) replay: Counter,
}

/// Bodies and streams of which less was kept than passed.
#[derive(Debug, Clone, Default)]
pub(super) struct Truncated {
    pub(super) limit: Counter,
    pub(super) overload: Counter,
}

/// The ledger of capture: `sequence == appended + dropped`, once nothing is being encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// The last sequence number that was given out.
    pub sequence: u64,
    /// Exchanges and streams encoded.
    pub records: u64,
    /// Items that the outlet took, gaps not counted.
    pub appended: u64,
    /// Bytes that the outlet took.
    pub bytes: u64,
    /// Places in the sequence that were lost, by reason, in the order of [`GapReason::ALL`].
    pub dropped: [u64; 4],
    /// Records of which less was kept than passed.
    pub truncated: u64,
    /// Exchanges that were not to be copied: paused, sampled out, filtered out, or replayed.
    pub skipped: u64,
    /// Bytes of copies that wait to be encoded.
    pub waiting_bytes: u64,
}

impl Metrics {
    /// Adds the counters to the page.
    pub fn register(&self, registry: &mut Registry) {
        registry.add(
            "capture_records",
            "Exchanges and streams encoded.",
            &self.records,
        );
        registry.add(
            "capture_items",
            "Records, chunks and segment batches encoded.",
            &self.items,
        );
        registry.add(
            "capture_appended",
            "Items that the spool took.",
            &self.appended,
        );
        registry.add(
            "capture_bytes",
            "Encoded bytes that the spool took.",
            &self.bytes,
        );
        registry.add(
            "capture_encode_seconds",
            "Time spent encoding.",
            &self.encode_seconds,
        );
        registry.add(
            "capture_sequence",
            "The last sequence number given out.",
            &self.sequence,
        );
        registry.add(
            "capture_dropped",
            "Copies that were dropped.",
            &self.dropped,
        );
        for (reason, counter) in self.skipped.all() {
            let name = format!("capture_skipped_{reason}");
            registry.add(&name, "Exchanges that were not to be copied.", counter);
        }
        registry.add(
            "capture_calls",
            "Commands and queries told apart on TCP streams.",
            &self.calls,
        );
        registry.add(
            "capture_calls_given_up",
            "TCP streams whose calls were given up for want of memory.",
            &self.calls_given_up,
        );
        let truncated = "Bodies and streams of which less was kept than passed.";
        registry.add("capture_truncated_limit", truncated, &self.truncated.limit);
        registry.add(
            "capture_truncated_overload",
            truncated,
            &self.truncated.overload,
        );
    }

    pub(super) fn dropped(&self, reason: GapReason, count: u64) {
        let counter = self.dropped.get_or_create(&reason.as_str().into());
        counter.inc_by(count);
    }

    pub(super) fn stats(&self, queue: &Queue) -> Stats {
        let dropped =
            GapReason::ALL.map(|reason| self.dropped.get_or_create(&reason.as_str().into()).get());
        Stats {
            sequence: u64::try_from(self.sequence.get()).unwrap_or(0),
            records: self.records.get(),
            appended: self.appended.get(),
            bytes: self.bytes.get(),
            dropped,
            truncated: self.truncated.limit.get(),
            skipped: self
                .skipped
                .all()
                .iter()
                .map(|(_, counter)| counter.get())
                .sum(),
            waiting_bytes: queue.bytes() as u64,
        }
    }
}

impl Skipped {
    fn all(&self) -> [(&'static str, &Counter); 4] {
        [
            ("paused", &self.paused),
            ("sampled", &self.sampled),
            ("filtered", &self.filtered),
            ("replay", &self.replay),
        ]
    }
}
