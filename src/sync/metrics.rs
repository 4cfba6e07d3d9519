//! The counters of the bus.

use crate::metrics::{
    Counter, Family, Gauge, Histogram, Registry, duration_histogram, exponential_buckets, label,
};

/// Counters of both ends; a node has those that its roles move.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Messages handed to the broker's connection, those sent again included.
    pub published_messages: Counter,
    /// Items taken from the spool to be published, resends included, by `record`, `chunk`, `segments`, `gap`.
    pub published_items: Family<label::Kind, Counter>,
    /// Bytes of them, as sent.
    pub published_bytes: Counter,
    /// Messages that the broker acknowledged.
    pub acked_messages: Counter,
    /// Messages handed over that wait for their acknowledgement.
    pub unacked_messages: Gauge,
    /// Messages that failed and were sent again.
    pub republished_messages: Counter,
    /// Items that no message can hold; a gap was sent in their place.
    pub oversize_items: Counter,
    /// Requests to send again that were answered, by `served`, `busy`, `invalid`, `failed`.
    pub resends_served: Family<label::Outcome, Counter>,
    /// Items that were sent again.
    pub resent_items: Counter,
    /// Numbers that were asked for and are gone.
    pub resend_gone: Counter,
    /// Numbers published less the watermark of the slowest live player.
    pub player_lag: Gauge,
    /// Acknowledgements of players beyond the limit.
    pub players_ignored: Counter,
    /// Messages that arrived.
    pub received_messages: Counter,
    /// Bytes of them, as received.
    pub received_bytes: Counter,
    /// Items stored that were not there before, by `record` and `piece`.
    pub stored_items: Family<label::Kind, Counter>,
    /// Items that were there already.
    pub duplicates: Counter,
    /// Numbers that are missing now.
    pub missing: Gauge,
    /// Numbers that nobody has any more.
    pub lost: Counter,
    /// Numbers that a recorder said it dropped, by its reason.
    pub dropped_told: Family<label::Reason, Counter>,
    /// Items stored without a place in the ledger, because a limit of it is reached.
    pub unaccounted: Counter,
    /// Sealed items that arrived and could not be opened, by `unknown_key`, `refused`; they are kept as they are.
    pub sealed_unreadable: Family<label::Reason, Counter>,
    /// Messages that could not be read.
    pub quarantined: Counter,
    /// Those of them that decode to more than a message may, or that the store has no room for in one entry.
    pub too_large: Counter,
    /// Requests to recorders to send again, by `answered`, `failed`.
    pub resends_asked: Family<label::Outcome, Counter>,
    /// Commits that the store refused, by kind of error.
    pub store_failures: Family<label::Kind, Counter>,
    /// From the start of a commit to its end, seconds.
    pub commit_seconds: Histogram,
    /// Items per commit.
    pub commit_items: Histogram,
    /// From the start of a record by its recorder's clock to its commit by ours, seconds.
    pub sync_delay_seconds: Histogram,
    /// Records that slow listeners of the live feed missed.
    pub feed_skipped: Counter,
    /// Live settings and other notices that could not be read, by kind.
    pub notices_refused: Family<label::Kind, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            published_messages: Counter::default(),
            published_items: Family::default(),
            published_bytes: Counter::default(),
            acked_messages: Counter::default(),
            unacked_messages: Gauge::default(),
            republished_messages: Counter::default(),
            oversize_items: Counter::default(),
            resends_served: Family::default(),
            resent_items: Counter::default(),
            resend_gone: Counter::default(),
            player_lag: Gauge::default(),
            players_ignored: Counter::default(),
            received_messages: Counter::default(),
            received_bytes: Counter::default(),
            stored_items: Family::default(),
            duplicates: Counter::default(),
            missing: Gauge::default(),
            lost: Counter::default(),
            dropped_told: Family::default(),
            unaccounted: Counter::default(),
            sealed_unreadable: Family::default(),
            quarantined: Counter::default(),
            too_large: Counter::default(),
            resends_asked: Family::default(),
            store_failures: Family::default(),
            commit_seconds: duration_histogram(),
            commit_items: Histogram::new(exponential_buckets(1.0, 2.0, 14)),
            sync_delay_seconds: duration_histogram(),
            feed_skipped: Counter::default(),
            notices_refused: Family::default(),
        }
    }
}

impl Metrics {
    /// Puts every counter on the page.
    pub fn register(&self, registry: &mut Registry) {
        self.register_recorder(registry);
        self.register_player(registry);
    }

    fn register_recorder(&self, r: &mut Registry) {
        r.add(
            "sync_published_messages",
            "Messages given to the broker.",
            &self.published_messages,
        );
        r.add(
            "sync_published_items",
            "Items in them.",
            &self.published_items,
        );
        r.add(
            "sync_published_bytes",
            "Bytes of them.",
            &self.published_bytes,
        );
        r.add(
            "sync_acked_messages",
            "Messages that the broker acknowledged.",
            &self.acked_messages,
        );
        r.add(
            "sync_unacked_messages",
            "Messages not acknowledged yet.",
            &self.unacked_messages,
        );
        r.add(
            "sync_republished_messages",
            "Messages sent again after a failure.",
            &self.republished_messages,
        );
        r.add(
            "sync_oversize_items",
            "Items larger than any message.",
            &self.oversize_items,
        );
        r.add(
            "sync_resends_served",
            "Requests to send again.",
            &self.resends_served,
        );
        r.add("sync_resent_items", "Items sent again.", &self.resent_items);
        r.add(
            "sync_resend_gone",
            "Numbers asked for that are gone.",
            &self.resend_gone,
        );
        r.add(
            "sync_player_lag",
            "Numbers that the slowest live player lacks.",
            &self.player_lag,
        );
        r.add(
            "sync_players_ignored",
            "Acknowledgements of too many players.",
            &self.players_ignored,
        );
    }

    fn register_player(&self, r: &mut Registry) {
        r.add(
            "sync_received_messages",
            "Messages that arrived.",
            &self.received_messages,
        );
        r.add(
            "sync_received_bytes",
            "Bytes of them.",
            &self.received_bytes,
        );
        r.add("sync_stored_items", "Items stored.", &self.stored_items);
        r.add(
            "sync_duplicates",
            "Items that were there already.",
            &self.duplicates,
        );
        r.add("sync_missing", "Numbers missing now.", &self.missing);
        r.add("sync_lost", "Numbers that nobody has any more.", &self.lost);
        r.add(
            "sync_dropped_told",
            "Numbers that a recorder said it dropped.",
            &self.dropped_told,
        );
        r.add(
            "sync_unaccounted",
            "Items stored without a place in the ledger.",
            &self.unaccounted,
        );
        r.add(
            "sync_sealed_unreadable",
            "Sealed items that arrived and could not be opened here, by reason; they are kept as they are.",
            &self.sealed_unreadable,
        );
        r.add(
            "sync_quarantined",
            "Messages that could not be read.",
            &self.quarantined,
        );
        r.add(
            "sync_too_large",
            "Messages of these that decode to more than a message may, or that the store never takes.",
            &self.too_large,
        );
        r.add(
            "sync_resends_asked",
            "Requests to recorders to send again.",
            &self.resends_asked,
        );
        r.add(
            "sync_store_failures",
            "Commits that the store refused.",
            &self.store_failures,
        );
        r.add(
            "sync_commit_seconds",
            "How long a commit takes.",
            &self.commit_seconds,
        );
        r.add("sync_commit_items", "Items per commit.", &self.commit_items);
        r.add(
            "sync_delay_seconds",
            "From a record's start to its commit.",
            &self.sync_delay_seconds,
        );
        r.add(
            "sync_feed_skipped",
            "Records missed by slow listeners.",
            &self.feed_skipped,
        );
        r.add(
            "sync_notices_refused",
            "Notices that could not be read.",
            &self.notices_refused,
        );
    }
}
