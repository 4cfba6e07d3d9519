//! What a player has of every recorder: coverage per life, gaps and how long each has been there.
//!
//! Pure: arrivals, heads and `now` go in; coverage to commit and gaps to ask for come out. Everything a
//! recorder can make grow has a limit: lives, ranges per life, gaps that are watched. Past a limit an item is
//! still stored; only its place is not noted, so it counts as missing and is asked for again later.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::record::{Coverage, Epoch, Gap, NodeId, Observation, SequenceRange};
use crate::store::{News, Settled};

/// Limits of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerConfig {
    /// Lives kept per recorder; the oldest is forgotten first (its records stay).
    pub max_epochs_per_node: usize,
    /// Recorders known; items of more are stored but not accounted for.
    pub max_nodes: usize,
    /// Settled ranges above the watermark, per life.
    pub max_ranges: usize,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            max_epochs_per_node: 64,
            max_nodes: 256,
            max_ranges: 4096,
        }
    }
}

/// Gaps watched per life; more are looked at when these are closed.
const MAX_GAPS: usize = 256;

/// Lives to be forgotten that wait for a commit; of more the coverage stays until the next start.
const MAX_FORGOTTEN: usize = 1024;

/// One life of one recorder.
#[derive(Debug, Default)]
pub(super) struct Life {
    pub(super) coverage: Coverage,
    /// The largest number that the recorder says it has published.
    announced: u64,
    last_arrival: Option<Instant>,
    gaps: Vec<(SequenceRange, Instant)>,
}

/// What came of noting an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// It was not known before.
    New,
    /// It was.
    Duplicate,
    /// A limit is reached: it is stored, but its place is not noted.
    Unaccounted,
}

/// A gap that is old enough to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Overdue {
    pub(super) node: NodeId,
    pub(super) epoch: Epoch,
    pub(super) range: SequenceRange,
    pub(super) since: Instant,
}

/// Every life that a player knows of.
#[derive(Debug)]
pub(super) struct Ledger {
    config: LedgerConfig,
    nodes: BTreeMap<NodeId, BTreeMap<Epoch, Life>>,
    /// What changed since the last [`Ledger::take_changed`].
    changed: HashMap<(NodeId, Epoch), News>,
    /// Lives that a limit removed, and whose coverage is of no more use.
    forgotten: Vec<(NodeId, Epoch)>,
}

/// What is to be committed of a ledger.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// The coverage of each life that changed.
    pub(super) settled: Vec<Settled>,
    /// What changed in it.
    pub(super) news: Vec<News>,
    /// Lives that are known no more.
    pub(super) forgotten: Vec<(NodeId, Epoch)>,
}

/// What became of numbers.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrived,
    Dropped,
    Lost,
}

impl Ledger {
    /// A ledger that goes on from what the store has.
    pub(super) fn new(config: LedgerConfig, stored: Vec<Settled>) -> Self {
        let mut ledger = Self {
            config,
            nodes: BTreeMap::new(),
            changed: HashMap::new(),
            forgotten: Vec::new(),
        };
        for settled in stored {
            if let Some(life) = ledger.life(&settled.node, settled.epoch) {
                life.coverage = settled.coverage;
            } else if ledger.nodes.contains_key(&settled.node) {
                // Older than all that are kept of its recorder.
                ledger.forgotten.push((settled.node, settled.epoch));
            }
        }
        ledger
    }

    /// Notes that the item at `range` arrived.
    pub(super) fn arrived(
        &mut self,
        node: &NodeId,
        epoch: Epoch,
        range: SequenceRange,
        now: Instant,
    ) -> Noted {
        self.settle(node, epoch, range, now, Fate::Arrived)
    }

    /// Notes a gap item: numbers that the recorder dropped.
    pub(super) fn told_dropped(&mut self, gap: &Gap, range: SequenceRange, now: Instant) -> Noted {
        self.settle(
            &gap.origin.node,
            gap.origin.epoch,
            range,
            now,
            Fate::Dropped,
        )
    }

    /// Notes numbers that the recorder does not have any more; tells how many were still missing.
    pub(super) fn told_lost(&mut self, node: &NodeId, epoch: Epoch, range: SequenceRange) -> u64 {
        self.note(node, epoch, range, Fate::Lost).unwrap_or(0)
    }

    /// Turns what arrived since the last commit, which `changed` tells, into losses: no store takes it. Tells how many
    /// numbers that is.
    pub(super) fn refused(&mut self, changed: Vec<News>) -> u64 {
        let mut lost = 0;
        for news in changed {
            let count = news.arrived.ranges().map(|range| range.count()).sum();
            lost += count;
            if let Some(life) = self.life(&news.node, news.epoch) {
                let was = &life.coverage;
                let losses = was.lost().saturating_add(count);
                life.coverage =
                    Coverage::restore(was.watermark(), was.above(), was.dropped(), losses);
            }
            let (node, epoch) = (news.node.clone(), news.epoch);
            let kept = self.changed.entry((node.clone(), epoch));
            let kept = kept.or_insert_with(|| News::of(node, epoch));
            for range in news.arrived.ranges().chain(news.lost.ranges()) {
                kept.lost.observe(range);
            }
            for range in news.dropped.ranges() {
                kept.dropped.observe(range);
            }
        }
        lost
    }

    /// Notes how far a recorder says it has published.
    pub(super) fn announced(&mut self, node: &NodeId, epoch: Epoch, highest: u64) {
        if let Some(life) = self.life(node, epoch) {
            life.announced = life.announced.max(highest);
        }
    }

    /// Takes over what the store has, which other players may have added to, or which may have lost something; what is
    /// not committed yet is kept.
    pub(super) fn merge(&mut self, stored: Vec<Settled>) {
        for settled in stored {
            let Settled {
                node,
                epoch,
                mut coverage,
            } = settled;
            if let Some(news) = self.changed.get(&(node.clone(), epoch)) {
                for range in news.dropped.ranges() {
                    coverage.observe_dropped(range);
                }
                for range in news.lost.ranges() {
                    coverage.observe_lost(range);
                }
                for range in news.arrived.ranges() {
                    coverage.observe(range);
                }
            }
            if let Some(life) = self.life(&node, epoch) {
                life.coverage = coverage;
            }
        }
    }

    /// [`Ledger::merge`] where the store may have lost whole lives: what it does not have is not settled.
    pub(super) fn reload(&mut self, stored: Vec<Settled>) {
        for lives in self.nodes.values_mut() {
            for life in lives.values_mut() {
                life.coverage = Coverage::default();
            }
        }
        let there: HashSet<_> = stored.iter().map(|s| (s.node.clone(), s.epoch)).collect();
        let pending = self.changed.keys().filter(|key| !there.contains(*key));
        let pending: Vec<_> = pending.cloned().collect();
        let empty = pending.into_iter().map(|(node, epoch)| Settled {
            node,
            epoch,
            coverage: Coverage::default(),
        });
        self.merge(empty.chain(stored).collect());
    }

    /// What changed since the last call.
    pub(super) fn take_changed(&mut self) -> Changed {
        let mut changed = Changed {
            forgotten: std::mem::take(&mut self.forgotten),
            ..Changed::default()
        };
        for ((node, epoch), news) in self.changed.drain() {
            let lives = self.nodes.get(&node);
            let Some(life) = lives.and_then(|lives| lives.get(&epoch)) else {
                continue;
            };
            changed.settled.push(Settled {
                node,
                epoch,
                coverage: life.coverage.clone(),
            });
            changed.news.push(news);
        }
        changed
    }

    /// Whether there is something to be committed that no arrival brings along.
    pub(super) fn has_forgotten(&self) -> bool {
        !self.forgotten.is_empty()
    }

    /// Looks at all gaps again and gives those that have been there for `delay`, newest first per life.
    ///
    /// Newest first, because these hold up live traffic; the long past of a recorder that was
    /// there before this player can wait.
    pub(super) fn overdue(&mut self, delay: Duration, now: Instant) -> Vec<Overdue> {
        let mut overdue = Vec::new();
        for (node, lives) in &mut self.nodes {
            for (&epoch, life) in lives.iter_mut() {
                life.watch_gaps(now);
                let old = life
                    .gaps
                    .iter()
                    .rev()
                    .filter(|(_, since)| now.duration_since(*since) >= delay);
                overdue.extend(old.map(|&(range, since)| Overdue {
                    node: node.clone(),
                    epoch,
                    range,
                    since,
                }));
            }
        }
        overdue
    }

    /// Every life.
    pub(super) fn lives(&self) -> impl Iterator<Item = (&NodeId, Epoch, &Life)> {
        self.nodes
            .iter()
            .flat_map(|(node, lives)| lives.iter().map(move |(&epoch, life)| (node, epoch, life)))
    }

    fn settle(
        &mut self,
        node: &NodeId,
        epoch: Epoch,
        range: SequenceRange,
        now: Instant,
        fate: Fate,
    ) -> Noted {
        if let Some(life) = self.life(node, epoch) {
            life.last_arrival = Some(now);
        }
        match self.note(node, epoch, range, fate) {
            None => Noted::Unaccounted,
            Some(0) => Noted::Duplicate,
            Some(_) => Noted::New,
        }
    }

    /// Settles a range, and keeps what is new of it for the next commit; tells how many numbers that is, `None` where a
    /// limit is reached.
    fn note(
        &mut self,
        node: &NodeId,
        epoch: Epoch,
        range: SequenceRange,
        fate: Fate,
    ) -> Option<u64> {
        let max_ranges = self.config.max_ranges;
        let life = self.life(node, epoch)?;
        if !fits(&life.coverage, range, max_ranges) {
            return None;
        }
        let news = if range.first > life.coverage.highest() {
            // As nearly always: all of it is new.
            Vec::new()
        } else {
            life.coverage.unsettled(range)
        };
        let new = life.note(range, fate);
        if new > 0 {
            let whole = news.is_empty().then_some(range);
            let all = whole.into_iter().chain(news);
            let key = (node.clone(), epoch);
            let changed = self.changed.entry(key);
            let changed = changed.or_insert_with(|| News::of(node.clone(), epoch));
            let part = match fate {
                Fate::Arrived => &mut changed.arrived,
                Fate::Dropped => &mut changed.dropped,
                Fate::Lost => &mut changed.lost,
            };
            all.for_each(|range| _ = part.observe(range));
        }
        Some(new)
    }

    /// The life, made if it is new and within the limits.
    fn life(&mut self, node: &NodeId, epoch: Epoch) -> Option<&mut Life> {
        if !self.nodes.contains_key(node) {
            if self.nodes.len() >= self.config.max_nodes {
                return None;
            }
            self.nodes.insert(node.clone(), BTreeMap::new());
        }
        let lives = self.nodes.get_mut(node)?;
        if !lives.contains_key(&epoch) && lives.len() >= self.config.max_epochs_per_node {
            // A later life of the same recorder has a larger epoch: what is older than all we know stays out.
            let (&oldest, _) = lives.first_key_value()?;
            if epoch < oldest {
                return None;
            }
            lives.remove(&oldest);
            let key = (node.clone(), oldest);
            self.changed.remove(&key);
            if self.forgotten.len() < MAX_FORGOTTEN {
                self.forgotten.push(key);
            }
        }
        Some(lives.entry(epoch).or_default())
    }
}

impl Life {
    /// Settles a range; tells how many of its numbers were not settled before.
    fn note(&mut self, range: SequenceRange, fate: Fate) -> u64 {
        match fate {
            Fate::Arrived => match self.coverage.observe(range) {
                Observation::New(new) => new,
                Observation::Duplicate => 0,
            },
            Fate::Dropped => self.coverage.observe_dropped(range),
            Fate::Lost => self.coverage.observe_lost(range),
        }
    }

    /// The largest number known to exist.
    pub(super) fn highest(&self) -> u64 {
        self.announced.max(self.coverage.highest())
    }

    /// How many numbers are missing.
    pub(super) fn missing(&self) -> u64 {
        self.coverage.missing_count(self.highest())
    }

    /// The missing ranges that have been there for `delay`, lowest first.
    pub(super) fn old_gaps(
        &self,
        delay: Duration,
        now: Instant,
    ) -> impl Iterator<Item = SequenceRange> {
        self.gaps
            .iter()
            .filter(move |(_, since)| now.duration_since(*since) >= delay)
            .map(|(range, _)| *range)
    }

    /// Finds the gaps of now; a part that was a gap before keeps its age.
    ///
    /// Numbers above all that arrived may only be late: while something arrives, they stay young.
    fn watch_gaps(&mut self, now: Instant) {
        let tail = self.coverage.highest();
        let known = std::mem::take(&mut self.gaps);
        for range in self.newest_missing() {
            let mut next = range.first;
            for &(old, since) in &known {
                let (first, last) = (old.first.max(next), old.last.min(range.last));
                if first > last {
                    continue;
                }
                if first > next {
                    let fresh = SequenceRange {
                        first: next,
                        last: first - 1,
                    };
                    self.gaps.push((fresh, now));
                }
                let since = match self.last_arrival {
                    Some(arrival) if first > tail => since.max(arrival),
                    _ => since,
                };
                self.gaps.push((SequenceRange { first, last }, since));
                next = last + 1;
            }
            if next <= range.last {
                let fresh = SequenceRange {
                    first: next,
                    last: range.last,
                };
                self.gaps.push((fresh, now));
            }
        }
        self.join_equal_ages();
    }

    /// The missing ranges, at most `MAX_GAPS` and the newest of them, lowest first.
    fn newest_missing(&self) -> Vec<SequenceRange> {
        let all = self.coverage.above().len() + 1;
        let mut missing = self.coverage.missing(self.announced, all);
        let surplus = missing.len().saturating_sub(MAX_GAPS);
        missing.drain(..surplus);
        missing
    }

    /// Keeps the list short: pieces of one gap that have the same age become one.
    fn join_equal_ages(&mut self) {
        self.gaps.dedup_by(|next, before| {
            let joins = before.0.last + 1 == next.0.first && before.1 == next.1;
            if joins {
                before.0.last = next.0.last;
            }
            joins
        });
        if self.gaps.len() > 4 * MAX_GAPS {
            let surplus = self.gaps.len() - 4 * MAX_GAPS;
            self.gaps.drain(..surplus);
        }
    }
}

/// Whether noting `range` keeps the number of ranges within the limit.
fn fits(coverage: &Coverage, range: SequenceRange, max_ranges: usize) -> bool {
    let above = coverage.above();
    if above.len() < max_ranges || range.first <= coverage.watermark().saturating_add(1) {
        return true;
    }
    let at = above.partition_point(|r| r.last.saturating_add(1) < range.first);
    above
        .get(at)
        .is_some_and(|r| r.first <= range.last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const EPOCH: Epoch = Epoch(5);
    const DELAY: Duration = Duration::from_secs(2);

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn range(first: u64, last: u64) -> SequenceRange {
        SequenceRange { first, last }
    }

    fn ledger() -> Ledger {
        Ledger::new(LedgerConfig::default(), Vec::new())
    }

    fn arrive(ledger: &mut Ledger, numbers: impl IntoIterator<Item = u64>, now: Instant) {
        for n in numbers {
            ledger.arrived(&node("rec"), EPOCH, range(n, n), now);
        }
    }

    fn overdue(ledger: &mut Ledger, now: Instant) -> Vec<SequenceRange> {
        ledger
            .overdue(DELAY, now)
            .into_iter()
            .map(|o| o.range)
            .collect()
    }

    #[test]
    fn a_head_of_nothing_makes_a_life_that_lacks_nothing() {
        let mut ledger = Ledger::new(LedgerConfig::default(), Vec::new());
        ledger.announced(&NodeId::new("idle").unwrap(), Epoch(1), 0);
        let lives: Vec<_> = ledger.lives().collect();
        assert_eq!((lives.len(), lives[0].2.missing()), (1, 0));
        let now = Instant::now();
        assert!(ledger.overdue(Duration::ZERO, now).is_empty());
    }

    #[test]
    fn a_gap_is_overdue_after_the_delay_unless_it_closes() {
        let start = Instant::now();
        let mut ledger = ledger();
        arrive(&mut ledger, [1, 2, 5, 9], start);
        assert!(overdue(&mut ledger, start).is_empty());
        arrive(&mut ledger, [7], start + DELAY / 2);
        assert_eq!(
            overdue(&mut ledger, start + DELAY),
            [range(8, 8), range(6, 6), range(3, 4)]
        );
        arrive(&mut ledger, [3, 4, 6], start + DELAY);
        assert_eq!(overdue(&mut ledger, start + DELAY), [range(8, 8)]);
    }

    #[test]
    fn the_tail_is_overdue_only_when_arrivals_pause() {
        let start = Instant::now();
        let mut ledger = ledger();
        let mut now = start;
        for n in 1..=10 {
            ledger.announced(&node("rec"), EPOCH, 20);
            arrive(&mut ledger, [n], now);
            assert!(overdue(&mut ledger, now).is_empty());
            now += DELAY / 2;
        }
        assert!(overdue(&mut ledger, now).is_empty());
        assert_eq!(overdue(&mut ledger, now + DELAY / 2), [range(11, 20)]);
    }

    #[test]
    fn a_recorder_of_which_nothing_ever_came_is_asked_too() {
        let start = Instant::now();
        let mut ledger = ledger();
        ledger.announced(&node("rec"), EPOCH, 20);
        assert!(overdue(&mut ledger, start).is_empty());
        assert_eq!(overdue(&mut ledger, start + DELAY), [range(1, 20)]);
    }

    #[test]
    fn a_gap_that_grows_is_old_only_where_it_was() {
        let start = Instant::now();
        let mut ledger = ledger();
        arrive(&mut ledger, [5], start);
        overdue(&mut ledger, start);
        arrive(&mut ledger, [9], start + DELAY);
        assert_eq!(overdue(&mut ledger, start + DELAY), [range(1, 4)]);
        assert_eq!(
            overdue(&mut ledger, start + 2 * DELAY),
            [range(6, 8), range(1, 4)]
        );
    }

    #[test]
    fn what_the_store_lost_is_missing_again_and_what_waits_for_a_commit_is_not() {
        let now = Instant::now();
        let mut ledger = ledger();
        arrive(&mut ledger, 1..=10, now);
        let committed = ledger.take_changed().settled;
        arrive(&mut ledger, [11, 12], now);
        ledger.reload(committed.clone());
        let coverage = |ledger: &Ledger| ledger.lives().next().unwrap().2.coverage.clone();
        assert_eq!(coverage(&ledger), Coverage::restore(12, &[], 0, 0));
        ledger.reload(Vec::new());
        assert_eq!(
            coverage(&ledger),
            Coverage::restore(0, &[range(11, 12)], 0, 0)
        );
        overdue(&mut ledger, now);
        assert_eq!(overdue(&mut ledger, now + DELAY), [range(1, 10)]);
        assert_eq!(
            ledger.take_changed().news[0].arrived.above(),
            [range(11, 12)]
        );
    }

    #[test]
    fn coverage_of_lives_past_the_limit_is_forgotten_once() {
        let now = Instant::now();
        let config = LedgerConfig {
            max_epochs_per_node: 2,
            ..LedgerConfig::default()
        };
        let mut ledger = Ledger::new(config, Vec::new());
        for epoch in 1..=3 {
            ledger.arrived(&node("rec"), Epoch(epoch), range(1, 1), now);
        }
        let changed = ledger.take_changed();
        assert_eq!(changed.forgotten, [(node("rec"), Epoch(1))]);
        assert_eq!(changed.settled.len(), 2);
        assert!(!ledger.has_forgotten());
        // What an earlier process left behind goes as well.
        let mut stored = changed.settled;
        stored.sort_by_key(|settled| std::cmp::Reverse(settled.epoch));
        stored.push(Settled {
            node: node("rec"),
            epoch: Epoch(1),
            coverage: Coverage::default(),
        });
        let mut ledger = Ledger::new(config, stored);
        assert_eq!(ledger.take_changed().forgotten, [(node("rec"), Epoch(1))]);
    }

    #[test]
    fn what_was_dropped_or_lost_is_settled_and_counted() {
        let now = Instant::now();
        let mut ledger = ledger();
        arrive(&mut ledger, [1, 10], now);
        let gap = Gap {
            origin: crate::record::Origin {
                node: node("rec"),
                epoch: EPOCH,
                seq: crate::record::Sequence(2),
            },
            count: 3,
            reason: crate::record::GapReason::Oversize,
        };
        assert_eq!(ledger.told_dropped(&gap, range(2, 4), now), Noted::New);
        assert_eq!(ledger.told_lost(&node("rec"), EPOCH, range(4, 9)), 5);
        let changed = ledger.take_changed();
        let [settled] = &changed.settled[..] else {
            panic!("one life changed");
        };
        let news = &changed.news[0];
        let ranges = |part: &Coverage| part.ranges().collect::<Vec<_>>();
        assert_eq!(
            [&news.arrived, &news.dropped, &news.lost].map(ranges),
            [
                vec![range(1, 1), range(10, 10)],
                vec![range(2, 4)],
                vec![range(5, 9)]
            ],
            "each number in one part only"
        );
        let coverage = &settled.coverage;
        assert_eq!(
            (coverage.watermark(), coverage.dropped(), coverage.lost()),
            (10, 3, 5)
        );
        assert!(ledger.take_changed().settled.is_empty());
    }

    #[test]
    fn goes_on_from_what_is_stored() {
        let mut before = ledger();
        arrive(&mut before, [1, 2, 3, 7], Instant::now());
        let mut ledger = Ledger::new(LedgerConfig::default(), before.take_changed().settled);
        let noted = ledger.arrived(&node("rec"), EPOCH, range(2, 2), Instant::now());
        assert_eq!(noted, Noted::Duplicate);
        let (_, _, life) = ledger.lives().next().unwrap();
        assert_eq!((life.missing(), life.highest()), (3, 7));
    }

    #[test]
    fn members_of_a_group_add_up() {
        let now = Instant::now();
        let (mut one, mut other) = (ledger(), ledger());
        arrive(&mut one, [1, 3, 5], now);
        arrive(&mut other, [2, 4, 6], now);
        one.merge(other.take_changed().settled);
        let (_, _, life) = one.lives().next().unwrap();
        assert_eq!((life.coverage.watermark(), life.missing()), (6, 0));
    }

    #[test]
    fn a_hostile_recorder_cannot_grow_the_ledger() {
        let now = Instant::now();
        let limits = LedgerConfig {
            max_epochs_per_node: 3,
            max_nodes: 2,
            max_ranges: 10,
        };
        let mut ledger = Ledger::new(limits, Vec::new());
        for n in 1..1000 {
            let seq = range(2 * n, 2 * n);
            ledger.arrived(&node("a"), Epoch(n), range(1, 1), now);
            ledger.arrived(&node("a"), Epoch(2000), seq, now);
            ledger.arrived(&node(&format!("n{n}")), EPOCH, seq, now);
            ledger.overdue(DELAY, now);
        }
        assert_eq!(ledger.nodes.len(), 2);
        assert_eq!(ledger.nodes[&node("a")].len(), 3);
        let life = &ledger.nodes[&node("a")][&Epoch(2000)];
        assert_eq!(life.coverage.above().len(), 10);
        assert!(life.gaps.len() <= 11);
        // What is in the way can still be closed.
        arrive(&mut ledger, [], now);
        let noted = ledger.arrived(&node("a"), Epoch(2000), range(3, 3), now);
        assert_eq!(noted, Noted::New);
    }

    proptest! {
        #[test]
        fn asking_for_what_is_overdue_always_ends_with_nothing_missing(
            arrivals in prop::collection::vec((1..60_u64, any::<bool>()), 0..80),
            announced in 0..80_u64,
        ) {
            let mut now = Instant::now();
            let mut ledger = ledger();
            let mut seen = BTreeSet::new();
            for (n, look) in arrivals {
                let noted = ledger.arrived(&node("rec"), EPOCH, range(n, n), now);
                prop_assert_eq!(noted == Noted::New, seen.insert(n));
                now += Duration::from_millis(300);
                if look {
                    for gap in ledger.overdue(DELAY, now) {
                        prop_assert!(!seen.iter().any(|n| (gap.range.first..=gap.range.last).contains(n)));
                    }
                }
            }
            ledger.announced(&node("rec"), EPOCH, announced);
            ledger.overdue(DELAY, now);
            now += DELAY;
            let end = seen.last().copied().unwrap_or(0).max(announced);
            for gap in ledger.overdue(DELAY, now) {
                for n in gap.range.first..=gap.range.last {
                    prop_assert!(seen.insert(n), "asked twice for {}", n);
                    arrive(&mut ledger, [n], now);
                }
            }
            prop_assert_eq!(seen.len() as u64, end);
            prop_assert!(ledger.overdue(DELAY, now + DELAY).is_empty());
        }
    }
}
