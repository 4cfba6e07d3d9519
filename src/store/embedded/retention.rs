//! Giving space back, and how full the store is.
//!
//! Age hides single records at once; files go when all in them is old, or when they take too much.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use super::{Open, kind};
use crate::record::RecordId;
use crate::segment::{self, Limits};
use crate::store::stored::Stored;
use crate::store::{Error, Expired, Order, Stats};

/// How many ids are counted under one hold of the log's lock.
const COUNT_STEP: usize = 4096;

impl Open {
    pub(super) fn expire(&self, now_us: i64) -> Result<Expired, Error> {
        self.count_failures();
        let visible = self.first_visible();
        self.hide_old(now_us);
        let aged = self.count(visible, self.first_visible());
        self.metrics.expired("age", aged);
        let hidden_before = self.count(0, self.first_visible());
        let limits = Limits {
            max_bytes: self.config.max_bytes,
            older_than: self.oldest_file(now_us),
        };
        let reclaimed = self.log.retain(&limits).map_err(|e| self.failed(e))?;
        let hidden_gone = hidden_before.saturating_sub(self.count_hidden());
        let gone = reclaimed.entries.get(&kind::RECORD).copied().unwrap_or(0);
        let by_bytes = gone.saturating_sub(hidden_gone);
        self.metrics.expired("bytes", by_bytes);
        self.metrics.expired_bytes.inc_by(reclaimed.bytes);
        Ok(Expired {
            records: aged + by_bytes,
            bytes: reclaimed.bytes,
        })
    }

    pub(super) fn stats(&self) -> Stats {
        let stats = self.log.stats();
        let records = stats.entries.get(&kind::RECORD).copied().unwrap_or(0);
        let mut oldest_us = None;
        let ids = self.first_visible()..=u128::MAX;
        self.scan(ids, Order::OldestFirst, &mut |header| {
            let summary = Stored::read(header.meta)
                .and_then(|stored| stored.summary(RecordId::from_u128(header.id)));
            match summary {
                Ok(summary) => {
                    oldest_us = Some(summary.started_us);
                    ControlFlow::Break(())
                }
                Err(_) => ControlFlow::Continue(()),
            }
        });
        Stats {
            records: records.saturating_sub(self.hidden.load(Relaxed)),
            bytes: stats.bytes,
            oldest_us,
        }
    }

    /// What the log's own thread could not do is only in its statistics.
    fn count_failures(&self) {
        let stats = self.log.stats();
        let failures = stats.sync_failures + stats.seal_failures;
        let counted = self.disk_failures.fetch_max(failures, Relaxed);
        let news = failures.saturating_sub(counted);
        self.metrics.disk_failures.inc_by(news);
    }

    /// Hides what is too old; what is hidden stays so.
    pub(super) fn hide_old(&self, now_us: i64) {
        let Some(age) = self.config.max_age else {
            return;
        };
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let bound = RecordId::floor_at(now_us.saturating_sub(age)).unix_millis();
        self.hidden_before_ms.fetch_max(bound, Relaxed);
    }

    /// Counts the hidden records that are still in a file.
    pub(super) fn count_hidden(&self) -> u64 {
        let count = self.count(0, self.first_visible());
        self.hidden.store(count, Relaxed);
        count
    }

    /// How many records have an id from `low` to under `high`.
    fn count(&self, mut low: u128, high: u128) -> u64 {
        let mut count = 0;
        while low < high {
            let ids = self.log.ids(
                kind::RECORD,
                low..=high - 1,
                segment::Order::Oldest,
                COUNT_STEP,
            );
            count += ids.len() as u64;
            match ids.last() {
                Some(last) if ids.len() == COUNT_STEP => low = last + 1,
                _ => break,
            }
        }
        count
    }

    /// Files that were last written before this hold only what is too old.
    fn oldest_file(&self, now_us: i64) -> Option<SystemTime> {
        let age = self.config.max_age?;
        let now = Duration::from_micros(u64::try_from(now_us).unwrap_or(0));
        let oldest = now.checked_sub(age)?;
        SystemTime::UNIX_EPOCH.checked_add(oldest)
    }
}
