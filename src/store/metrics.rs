//! What a store counts, the same for every backend.

use super::{Error, Receipt};
use crate::metrics::{Counter, Family, Registry, label};

/// Counters of the store of a process.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    records: Counter,
    pieces: Counter,
    duplicates: Counter,
    pub(super) unreadable: Counter,
    pub(super) reindexed: Counter,
    pub(super) disk_failures: Counter,
    pub(super) expired: Family<label::Reason, Counter>,
    pub(super) expired_bytes: Counter,
    errors: Family<label::Kind, Counter>,
}

impl Metrics {
    /// Adds the counters to the page.
    pub fn register(&self, registry: &mut Registry) {
        registry.add("store_records", "Records committed.", &self.records);
        registry.add(
            "store_pieces",
            "Body chunks and segment batches committed.",
            &self.pieces,
        );
        registry.add(
            "store_duplicates",
            "Items that were there already.",
            &self.duplicates,
        );
        registry.add(
            "store_unreadable",
            "Stored summaries and coverages that could not be read and were skipped.",
            &self.unreadable,
        );
        registry.add(
            "store_reindexed",
            "Sealed files whose index was missing, damaged or old and was made again at opening.",
            &self.reindexed,
        );
        registry.add(
            "store_disk_failures",
            "Syncs and indexes of sealed files that failed and are tried again.",
            &self.disk_failures,
        );
        registry.add(
            "store_expired",
            "Records removed by retention, by age or by bytes.",
            &self.expired,
        );
        registry.add(
            "store_expired_bytes",
            "Bytes given back by retention.",
            &self.expired_bytes,
        );
        registry.add(
            "store_errors",
            "Store operations that failed, by kind.",
            &self.errors,
        );
    }

    pub(super) fn committed(&self, receipt: &Receipt) {
        self.records.inc_by(receipt.records);
        self.pieces.inc_by(receipt.pieces);
        self.duplicates.inc_by(receipt.duplicates);
    }

    /// Counts a failure and passes it on.
    pub(super) fn failed(&self, error: Error) -> Error {
        let kind = match error {
            Error::Io { .. } => "io",
            Error::Full(_) => "full",
            Error::Unavailable { .. } => "unavailable",
            Error::Corrupt { .. } => "corrupt",
            Error::Sealed { .. } => "sealed",
            Error::TooLarge { .. } => "too_large",
            Error::Closed => "closed",
        };
        self.errors.get_or_create(&kind.into()).inc();
        error
    }

    pub(super) fn expired(&self, reason: &'static str, records: u64) {
        self.expired.get_or_create(&reason.into()).inc_by(records);
    }
}
