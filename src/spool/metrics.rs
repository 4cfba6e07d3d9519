//! What a spool counts.

use crate::metrics::{Counter, Family, Gauge, Registry, label};

/// The spool's counters.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Messages appended.
    pub messages: Counter,
    /// Bytes of messages appended.
    pub written_bytes: Counter,
    /// Bytes on disk.
    pub bytes: Gauge,
    /// Sequence numbers that are not acknowledged and not dropped.
    pub unsent: Gauge,
    /// Sequence numbers that were dropped here, by reason.
    pub dropped: Family<label::Reason, Counter>,
    /// Failed reads, writes, syncs, and indexes of sealed files.
    pub disk_errors: Counter,
    /// Bytes of half written batches that were cut at opening.
    pub recovery_cut_bytes: Counter,
    /// Sealed files whose index was made again at opening.
    pub reindexed: Counter,
    /// Bytes that could not be read back.
    pub damaged_bytes: Counter,
}

impl Metrics {
    /// Puts them on the page.
    pub fn register(&self, registry: &mut Registry) {
        registry.add(
            "spool_messages",
            "Messages appended to the spool",
            &self.messages,
        );
        registry.add(
            "spool_written_bytes",
            "Bytes of messages appended to the spool",
            &self.written_bytes,
        );
        registry.add("spool_bytes", "Bytes on disk in the spool", &self.bytes);
        registry.add(
            "spool_unsent",
            "Sequence numbers in the spool that are not acknowledged",
            &self.unsent,
        );
        registry.add(
            "spool_dropped",
            "Sequence numbers that the spool dropped before they were sent",
            &self.dropped,
        );
        registry.add(
            "spool_disk_errors",
            "Failed reads, writes and syncs of the spool",
            &self.disk_errors,
        );
        registry.add(
            "spool_recovery_cut_bytes",
            "Bytes of half written batches cut when the spool was opened",
            &self.recovery_cut_bytes,
        );
        registry.add(
            "spool_reindexed",
            "Sealed files whose index was missing, damaged or old and was made again at opening",
            &self.reindexed,
        );
        registry.add(
            "spool_damaged_bytes",
            "Bytes in the spool that could not be read back",
            &self.damaged_bytes,
        );
    }
}
