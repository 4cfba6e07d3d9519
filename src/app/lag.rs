//! How far behind the node is, in seconds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::record::{Record, Timing};
use crate::spool::Spool;

/// How often the spool's head is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// How many heads are remembered; beyond it every second one is forgotten.
const MAX_SAMPLES: usize = 4096;

/// Both directions; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Lag(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// When the spool's head was first seen at this number, oldest first.
    heads: Mutex<VecDeque<(u64, Instant)>>,
    /// Microseconds from the end of the newest stored record to its commit; one more than that, 0: none yet.
    commit_us: AtomicI64,
}

impl Lag {
    /// Watches the spool until told to stop.
    pub(super) async fn watch(self, spool: Spool, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.sample(spool.stats().highest.0, Instant::now()),
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn sample(&self, highest: u64, now: Instant) {
        let mut heads = self.0.heads.lock();
        if heads.back().is_none_or(|(seen, _)| *seen < highest) {
            heads.push_back((highest, now));
        }
        if heads.len() > MAX_SAMPLES {
            let mut keep = false;
            heads.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// A record was stored just now.
    pub(super) fn stored(&self, record: &Record) {
        let timing: Timing = match record {
            Record::Exchange(exchange) => exchange.timing,
            Record::Stream(stream) => stream.timing,
        };
        let ended = timing.started_us.saturating_add_unsigned(timing.end_us);
        // The clocks of two zones differ; less than nothing is no lag.
        let lag = wall_us().saturating_sub(ended).max(0);
        self.0
            .commit_us
            .store(lag.saturating_add(1), Ordering::Relaxed);
    }

    /// Seconds by direction: `publish`, the age of the oldest item that the broker has not taken; `commit`, from
    /// the end of the newest stored record to its commit.
    pub(super) fn seconds(&self, spool: Option<&Spool>) -> BTreeMap<String, f64> {
        let mut lag = BTreeMap::new();
        if let Some(spool) = spool {
            lag.insert("publish".to_owned(), self.unsent(spool, Instant::now()));
        }
        let commit = self.0.commit_us.load(Ordering::Relaxed);
        if commit > 0 {
            lag.insert("commit".to_owned(), (commit - 1) as f64 / 1e6);
        }
        lag
    }

    fn unsent(&self, spool: &Spool, now: Instant) -> f64 {
        let stats = spool.stats();
        let Some((epoch, oldest)) = stats.oldest_unsent else {
            self.0.heads.lock().clear();
            return 0.0;
        };
        if epoch != stats.epoch {
            // Left over from an earlier life, of which only the beginning is known.
            let began_us = i64::try_from(epoch.0.saturating_mul(1000)).unwrap_or(i64::MAX);
            return wall_us().saturating_sub(began_us).max(0) as f64 / 1e6;
        }
        let mut heads = self.0.heads.lock();
        while heads.front().is_some_and(|(seen, _)| *seen < oldest.0) {
            heads.pop_front();
        }
        heads.front().map_or(0.0, |(_, at)| {
            now.saturating_duration_since(*at).as_secs_f64()
        })
    }
}

fn wall_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::NodeId;
    use crate::spool::{Config, Metrics};

    #[test]
    fn nothing_unsent_is_no_lag_and_heads_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path(), NodeId::new("rec").unwrap());
        let spool = Spool::open(config, Metrics::default()).unwrap();
        let lag = Lag::default();
        for number in 1..20_000 {
            lag.sample(number, Instant::now());
        }
        assert!(lag.0.heads.lock().len() <= MAX_SAMPLES);
        assert_eq!(lag.seconds(Some(&spool))["publish"], 0.0);
        assert!(lag.0.heads.lock().is_empty());
        assert!(!lag.seconds(None).contains_key("commit"));
    }
}
