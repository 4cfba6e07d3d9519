//! The queue behind every handle: appending, acknowledging, asking again, expiring.

use std::path::PathBuf;
use std::sync::atomic::{self, AtomicU64};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::error::Error;
use super::ledger::{Dropped, Ledger, Progress};
use super::message::{self, ALL, GAP, ITEM, Key, Message, ids, key, span_of};
use super::paced_sum::PacedSum;
use super::state::State;
use super::tail::Tail;
use super::{Config, Metrics, Resend, Spool, Stats};
use crate::record::{Epoch, GapReason, NodeId, Sequence, SequenceRange};
use crate::segment::{self, Limits, Log, Order, Position, encoded_len};

/// Lock order: `expiring`, `writing`, then `tail` or `ledger`, never both of these.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) log: Log,
    pub(super) epoch: Epoch,
    pub(super) node: NodeId,
    /// What is older in the log is another node's: it is neither sent nor offered.
    node_since: u64,
    pub(super) metrics: Metrics,
    pub(super) tail: Mutex<Tail>,
    pub(super) ledger: Mutex<Ledger>,
    /// Told whenever there may be something new to read.
    pub(super) news: Notify,
    /// Told whenever the keeper should look at the limits.
    pub(super) full: super::keeper::Bell,
    dir: PathBuf,
    max_bytes: u64,
    max_age: Duration,
    /// Held by an append, and by expiry while it decides what goes.
    writing: Mutex<Last>,
    /// Held by a run of expiry, so that one that returns leaves the limits kept.
    expiring: Mutex<()>,
    saved: Mutex<Progress>,
    given_up_log: Mutex<PacedSum>,
    /// Failed syncs that are counted already.
    sync_failures: AtomicU64,
}

/// What was appended last.
#[derive(Debug)]
struct Last {
    seq: u64,
    segment: u64,
}

impl Shared {
    pub(super) fn open(config: Config, metrics: Metrics) -> Result<Self, Error> {
        if config.max_bytes < Config::MIN_MAX_BYTES {
            return Err(Error::MaxBytes {
                given: config.max_bytes,
            });
        }
        let (log, recovery) = Log::open(segment::Config {
            dir: config.dir.clone(),
            segment_bytes: config.segment_bytes.min(config.max_bytes / 8),
            rotate_after: config.rotate_after,
            fsync: config.fsync,
        })?;
        report(&recovery, &metrics);
        let state = State::load(&config.dir)?;
        let (dropped, given_up) = (state.dropped(), state.given_up());
        let mut ledger = Ledger::restore(state.acknowledged, state.unlinked, &dropped, &given_up);
        if !state.is_of_another(&config.node) {
            ledger.restore_sent(&state.unsure(), &state.sent);
        }
        let mut newest = state.epoch.max(state.acknowledged.0);
        // What was given out and then removed is in the log no more; the reader counts it.
        let places = lives(&log).into_iter().chain(state.removed());
        for last in places {
            newest = newest.max(last.0);
            if last >= state.acknowledged {
                ledger.reached(last);
            }
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        let epoch = now.max(newest.saturating_add(1));
        let mut node_since = state.node_since;
        if state.is_of_another(&config.node) {
            if ledger.unsent() > 0 {
                return Err(Error::Node {
                    node: config.node,
                    kept: state.node,
                    unsent: ledger.unsent(),
                    dir: config.dir,
                });
            }
            node_since = epoch;
        }
        ledger.reached((epoch, 0));
        if node_since == epoch {
            // Nothing of the other node is sent, not even its gaps.
            ledger.acknowledge((epoch, 0));
        }
        let shared = Self {
            epoch: Epoch(epoch),
            node: config.node,
            node_since,
            metrics,
            tail: Mutex::new(Tail::new(config.tail_bytes)),
            saved: Mutex::new(ledger.progress()),
            given_up_log: Mutex::default(),
            ledger: Mutex::new(ledger),
            news: Notify::new(),
            full: super::keeper::Bell::default(),
            sync_failures: AtomicU64::new(0),
            dir: config.dir,
            max_bytes: config.max_bytes,
            max_age: config.max_age,
            expiring: Mutex::default(),
            writing: Mutex::new(Last {
                seq: 0,
                segment: log.end().segment,
            }),
            log,
        };
        // The epoch is taken only once it is on the disk.
        shared.save_state()?;
        shared.show();
        Ok(shared)
    }

    pub(super) fn append(&self, messages: &[Message]) -> Result<(), Error> {
        let Some(newest) = messages.last() else {
            return Ok(());
        };
        let mut last = self.writing.lock();
        self.check_order(messages, last.seq)?;
        let metas: Vec<Vec<u8>> = messages.iter().map(Message::meta).collect();
        let entries: Vec<_> = messages
            .iter()
            .zip(&metas)
            .map(|(message, meta)| message.entry(meta))
            .collect();
        let appended = self
            .log
            .append(&entries)
            .map_err(|error| self.count(error))?;
        self.hold(messages, &metas, appended.at);
        self.ledger.lock().reached((self.epoch.0, newest.last().0));
        last.seq = newest.last().0;
        let rotated = std::mem::replace(&mut last.segment, appended.at.segment);
        if rotated != appended.at.segment {
            self.full.ring();
        }
        drop(last);
        let bytes: usize = messages.iter().map(|message| message.payload.len()).sum();
        self.metrics.messages.inc_by(messages.len() as u64);
        self.metrics.written_bytes.inc_by(bytes as u64);
        self.show_unsent();
        self.news.notify_waiters();
        Ok(())
    }

    /// Puts appended messages into the tail.
    fn hold(&self, messages: &[Message], metas: &[Vec<u8>], mut at: Position) {
        let mut tail = self.tail.lock();
        for (message, meta) in messages.iter().zip(metas) {
            let length = encoded_len(meta.len(), message.payload.len());
            let end = Position {
                offset: at.offset + length as u64,
                ..at
            };
            tail.push(at, end, message.clone());
            at = end;
        }
    }

    fn check_order(&self, messages: &[Message], mut after: u64) -> Result<(), Error> {
        for message in messages {
            let follows = message.epoch == self.epoch
                && message.seq.0 > after
                && message.span > 0
                && message.last().0 < u64::MAX;
            if !follows {
                return Err(Error::Order {
                    epoch: message.epoch,
                    seq: message.seq,
                    after: Sequence(after),
                });
            }
            after = message.last().0;
        }
        Ok(())
    }

    pub(super) fn acknowledge(&self, epoch: Epoch, seq: Sequence) {
        if self.ledger.lock().acknowledge((epoch.0, seq.0)) {
            self.show_unsent();
        }
    }

    /// Ignores lives that are not known here: any client of the broker may say anything.
    pub(super) fn confirm(&self, epoch: Epoch, seq: Sequence) {
        if let Some(highest) = self.highest(epoch) {
            self.ledger.lock().confirm((epoch.0, seq.min(highest).0));
        }
    }

    pub(super) fn range(
        &self,
        epoch: Epoch,
        wanted: SequenceRange,
        max_messages: usize,
    ) -> Result<Resend, Error> {
        let mut resend = Resend::default();
        let mut last = wanted.last;
        if epoch == self.epoch {
            last = last.min(self.highest(epoch).map_or(0, |highest| highest.0));
        }
        if wanted.first > last {
            return Ok(resend);
        }
        if epoch.0 < self.node_since {
            push_range(&mut resend.gone, wanted.first, last);
            return Ok(resend);
        }
        let first = self.first_covering(epoch.0, wanted.first)?;
        let there = ids(epoch.0, SequenceRange { first, last });
        let limit = max_messages.saturating_add(1);
        let of = |kind| self.log.ids(kind, there.clone(), Order::Oldest, limit);
        let mut found: Vec<(u128, u8)> = Vec::new();
        found.extend(of(ITEM).into_iter().map(|id| (id, ITEM)));
        found.extend(of(GAP).into_iter().map(|id| (id, GAP)));
        found.sort_unstable();
        let (mut next, mut bytes) = (wanted.first, 0);
        for (count, (id, kind)) in found.into_iter().enumerate() {
            let seq = key(id).1;
            if count == max_messages || bytes >= Spool::MAX_RESEND_BYTES {
                let first = seq.max(next);
                self.not_there(epoch.0, next, first - 1, &mut resend);
                resend.rest = Some(SequenceRange { first, last });
                return Ok(resend);
            }
            let Some(message) = self.read(kind, id)? else {
                continue;
            };
            self.not_there(epoch.0, next, seq.saturating_sub(1), &mut resend);
            next = message.last().0.saturating_add(1);
            bytes += message.payload.len();
            resend.messages.push(message);
        }
        self.not_there(epoch.0, next, last, &mut resend);
        Ok(resend)
    }

    /// Numbers that are not in the log: dropped, which a gap says, or gone after they were sent. The gap covers all that was
    /// dropped there, so that one answer settles a long outage.
    fn not_there(&self, epoch: u64, first: u64, last: u64, resend: &mut Resend) {
        if first > last {
            return;
        }
        let lacked = SequenceRange { first, last };
        let (dropped, new) = self.ledger.lock().lacked(epoch, lacked);
        self.count_given_up(new);
        let mut next = first;
        for range in dropped {
            push_range(&mut resend.gone, next, range.first.saturating_sub(1));
            next = range.last.saturating_add(1);
            let gap = Message::spool_limit(&self.node, epoch, range);
            resend.messages.push(gap);
        }
        push_range(&mut resend.gone, next, last);
    }

    /// `first`, or the start of the gap message that covers it.
    fn first_covering(&self, epoch: u64, first: u64) -> Result<u64, Error> {
        let before = SequenceRange {
            first: 0,
            last: first,
        };
        let nearest = self.log.ids(GAP, ids(epoch, before), Order::Newest, 1);
        if let Some(id) = nearest.first()
            && let Some(gap) = self.read(GAP, *id)?
            && gap.last().0 >= first
        {
            return Ok(gap.seq.0);
        }
        Ok(first)
    }

    /// A message by its id; `None` where it is gone or damaged.
    fn read(&self, kind: u8, id: u128) -> Result<Option<Message>, Error> {
        match self.log.get(kind, id) {
            Ok(entry) => Ok(entry.as_ref().and_then(Message::of)),
            Err(segment::Error::Damaged { .. }) => {
                self.metrics.disk_errors.inc();
                Ok(None)
            }
            Err(error) => Err(self.count(error)),
        }
    }

    pub(super) fn highest(&self, epoch: Epoch) -> Option<Sequence> {
        if epoch.0 < self.node_since {
            return None;
        }
        let known = self.ledger.lock().highest(epoch.0);
        let highest = match known {
            Some(highest) => Some(highest),
            None => last_of(&self.log, epoch.0),
        };
        highest.map(Sequence)
    }

    /// Lives before this one, newest first, with the largest number of each.
    pub(super) fn earlier_lives(&self, limit: usize) -> Vec<(Epoch, Sequence)> {
        let mut lives = Vec::new();
        let mut below = self.epoch.0;
        while lives.len() < limit && below > self.node_since {
            let earlier = message::id((self.node_since, 0))..=(message::id((below, 0)) - 1);
            let newest = |kind| self.log.ids(kind, earlier.clone(), Order::Newest, 1).pop();
            let Some(epoch) = newest(ITEM).max(newest(GAP)).map(|id| key(id).0) else {
                break;
            };
            if let Some(highest) = self.highest(Epoch(epoch)) {
                lives.push((Epoch(epoch), highest));
            }
            below = epoch;
        }
        lives
    }

    pub(super) fn stats(&self) -> Stats {
        let bytes = self.log.stats().bytes;
        let ledger = self.ledger.lock();
        Stats {
            bytes,
            unsent: ledger.unsent(),
            oldest_unsent: ledger
                .oldest_unsent()
                .map(|(epoch, seq)| (Epoch(epoch), Sequence(seq))),
            epoch: self.epoch,
            highest: Sequence(ledger.highest(self.epoch.0).unwrap_or_default()),
        }
    }

    /// Removes what is over the limits; counts what of it was not sent.
    pub(super) fn expire(&self, now: SystemTime) -> Result<(), Error> {
        let limits = Limits {
            max_bytes: Some(self.max_bytes),
            older_than: now.checked_sub(self.max_age),
        };
        let _expiring = self.expiring.lock();
        let writing = self.writing.lock();
        let keep = self.log.plan(&limits).map_err(|error| self.count(error))?;
        if keep.segment > 0 {
            let first = self
                .log
                .read_from(keep, 1)
                .map_err(|error| self.count(error))?;
            let first = first.entries.first().map(|entry| key(entry.id));
            self.set_gaps_apart(first);
            let dropped = self.ledger.lock().unlink_before(first);
            drop(writing);
            self.count_dropped(&dropped);
            // Saved before the files go, so that a restart still tells players of the gap; but on a full disk
            // the files must go first.
            let saved = self.save_state();
            let unlinked = self.log.unlink_before(keep);
            self.news.notify_waiters();
            unlinked.map_err(|error| self.count(error))?;
            saved.or_else(|_| self.save_state())?;
        }
        self.show();
        Ok(())
    }

    /// Counts dropped numbers, without those that were no copies but gaps and counted as such before.
    pub(super) fn count_dropped(&self, dropped: &[Dropped]) {
        let mut numbers: u64 = dropped.iter().map(|(_, range)| range.count()).sum();
        for (epoch, range) in dropped {
            let inside = ids(*epoch, *range);
            self.log.scan(GAP, inside, Order::Oldest, &mut |gap| {
                let first = key(gap.id).1;
                let places = span_of(gap.meta).min(range.last - first + 1);
                numbers = numbers.saturating_sub(places);
                std::ops::ControlFlow::Continue(())
            });
        }
        self.count_given_up(numbers);
    }

    /// Gaps among what no player confirmed and is about to go: they are counted already.
    fn set_gaps_apart(&self, before: Option<Key>) {
        let unconfirmed = self.ledger.lock().unconfirmed_before(before);
        for (epoch, range) in unconfirmed {
            let mut gaps = Vec::new();
            self.log
                .scan(GAP, ids(epoch, range), Order::Oldest, &mut |gap| {
                    gaps.extend(SequenceRange::spanning(key(gap.id).1, span_of(gap.meta)));
                    std::ops::ControlFlow::Continue(())
                });
            let mut ledger = self.ledger.lock();
            for gap in gaps {
                ledger.never_there((epoch, gap));
            }
        }
    }

    fn count_given_up(&self, numbers: u64) {
        if numbers > 0 {
            let reason = GapReason::SpoolLimit.as_str();
            let counter = self.metrics.dropped.get_or_create(&reason.into());
            counter.inc_by(numbers);
            log_given_up(self.given_up_log.lock().add(numbers, Instant::now()));
        }
    }

    /// Tells the log what was dropped and not told yet, where it is time.
    pub(super) fn tell_given_up(&self) {
        log_given_up(self.given_up_log.lock().due(Instant::now()));
    }

    /// Tells the log the rest of it.
    pub(super) fn tell_last_given_up(&self) {
        log_given_up(self.given_up_log.lock().rest());
    }

    /// Saves how far the broker and players are where that moved.
    pub(super) fn save_if_moved(&self) -> Result<(), Error> {
        let progress = self.ledger.lock().progress();
        if progress == *self.saved.lock() {
            return Ok(());
        }
        self.save_state()
    }

    pub(super) fn save_state(&self) -> Result<(), Error> {
        // Held over the write, so that an older state never replaces a newer one.
        let mut saved = self.saved.lock();
        let ledger = self.ledger.lock();
        let progress = ledger.progress();
        let state = State::new(&self.node, self.node_since, self.epoch.0, &ledger);
        drop(ledger);
        state.save(&self.dir).inspect_err(|_| {
            self.metrics.disk_errors.inc();
        })?;
        *saved = progress;
        Ok(())
    }

    pub(super) fn count(&self, error: segment::Error) -> Error {
        self.metrics.disk_errors.inc();
        error.into()
    }

    fn show_unsent(&self) {
        let unsent = self.ledger.lock().unsent();
        self.metrics
            .unsent
            .set(i64::try_from(unsent).unwrap_or(i64::MAX));
    }

    fn show(&self) {
        self.show_unsent();
        let stats = self.log.stats();
        let bytes = i64::try_from(stats.bytes).unwrap_or(i64::MAX);
        self.metrics.bytes.set(bytes);
        let failures = stats.sync_failures + stats.seal_failures;
        let counted = self
            .sync_failures
            .fetch_max(failures, atomic::Ordering::Relaxed);
        let news = failures.saturating_sub(counted);
        self.metrics.disk_errors.inc_by(news);
    }
}

fn log_given_up(numbers: Option<u64>) {
    if let Some(numbers) = numbers {
        tracing::error!(numbers, "spool over its limit: dropped the oldest unsent");
    }
}

fn push_range(into: &mut Vec<SequenceRange>, first: u64, last: u64) {
    if first <= last {
        into.push(SequenceRange { first, last });
    }
}

fn report(recovery: &segment::Recovery, metrics: &Metrics) {
    metrics.recovery_cut_bytes.inc_by(recovery.cut_bytes);
    metrics.reindexed.inc_by(recovery.reindexed);
    for damage in &recovery.damage {
        metrics.damaged_bytes.inc_by(damage.bytes);
        tracing::error!(
            path = %damage.path.display(),
            offset = damage.offset,
            bytes = damage.bytes,
            "part of the spool is damaged and was set aside"
        );
    }
}

/// The last place of every epoch in the log.
fn lives(log: &Log) -> Vec<Key> {
    let mut lives = Vec::new();
    let mut from = Some(0);
    while let Some(epoch) = from {
        let rest = message_ids_from(epoch);
        let first = [ITEM, GAP].into_iter().filter_map(|kind| {
            let ids = log.ids(kind, rest.clone(), Order::Oldest, 1);
            ids.first().map(|id| key(*id).0)
        });
        let Some(epoch) = first.min() else {
            break;
        };
        if let Some(last) = last_of(log, epoch) {
            lives.push((epoch, last));
        }
        from = epoch.checked_add(1);
    }
    lives
}

fn message_ids_from(epoch: u64) -> segment::Ids {
    super::message::id((epoch, 0))..=u128::MAX
}

/// The last place of an epoch in the log.
fn last_of(log: &Log, epoch: u64) -> Option<u64> {
    let mut last = None;
    for kind in [ITEM, GAP] {
        log.scan(kind, ids(epoch, ALL), Order::Newest, &mut |header| {
            let first = key(header.id).1;
            let end = first.saturating_add(span_of(header.meta).saturating_sub(1));
            last = last.max(Some(end));
            std::ops::ControlFlow::Break(())
        });
    }
    last
}
