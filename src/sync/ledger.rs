//! What a player has of every recorder: coverage per life, gaps and how long each has been there.
//!
//! Pure: arrivals, heads and `now` go in; coverage to commit and gaps to ask for come out. Everything a
//! recorder can make grow has a limit: lives, ranges per life, gaps that are watched. Past a limit an item is
//! still stored; only its place is not noted, so it counts as missing and is asked for again later.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::record::{Coverage, Epoch, Gap, NodeId, Observation, SequenceRange};
use crate::store::Settled;

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
    /// Lives whose coverage changed since the last [`Ledger::take_changed`].
    changed: HashSet<(NodeId, Epoch)>,
}

impl Ledger {
    /// A ledger that goes on from what the store has.
    pub(super) fn new(config: LedgerConfig, stored: Vec<Settled>) -> Self {
        let mut ledger = Self {
            config,
            nodes: BTreeMap::new(),
            changed: HashSet::new(),
        };
        for settled in stored {
            if let Some(life) = ledger.life(&settled.node, settled.epoch) {
                life.coverage = settled.coverage;
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
        self.settle(node, epoch, range, now, Coverage::observe)
    }

    /// Notes a gap item: numbers that the recorder dropped.
    pub(super) fn told_dropped(&mut self, gap: &Gap, range: SequenceRange, now: Instant) -> Noted {
        let drop = |coverage: &mut Coverage, range| match coverage.observe_dropped(range) {
            0 => Observation::Duplicate,
            new => Observation::New(new),
        };
        self.settle(&gap.origin.node, gap.origin.epoch, range, now, drop)
    }

    /// Notes numbers that the recorder does not have any more; tells how many were still missing.
    pub(super) fn told_lost(&mut self, node: &NodeId, epoch: Epoch, range: SequenceRange) -> u64 {
        let max_ranges = self.config.max_ranges;
        let Some(life) = self.life(node, epoch) else {
            return 0;
        };
        if !fits(&life.coverage, range, max_ranges) {
            return 0;
        }
        let lost = life.coverage.observe_lost(range);
        self.changed.insert((node.clone(), epoch));
        lost
    }

    /// Notes how far a recorder says it has published.
    pub(super) fn announced(&mut self, node: &NodeId, epoch: Epoch, highest: u64) {
        if let Some(life) = self.life(node, epoch) {
            life.announced = life.announced.max(highest);
        }
    }

    /// Takes over what other players of the same group have committed.
    pub(super) fn merge(&mut self, stored: &[Settled]) {
        let max_ranges = self.config.max_ranges;
        for settled in stored {
            let Some(life) = self.life(&settled.node, settled.epoch) else {
                continue;
            };
            let theirs = &settled.coverage;
            let below = SequenceRange::spanning(1, theirs.watermark());
            let mut merged = Coverage::restore(
                life.coverage.watermark(),
                life.coverage.above(),
                life.coverage.dropped().max(theirs.dropped()),
                life.coverage.lost().max(theirs.lost()),
            );
            for range in below.into_iter().chain(theirs.above().iter().copied()) {
                if fits(&merged, range, max_ranges) {
                    merged.observe(range);
                }
            }
            life.coverage = merged;
        }
    }

    /// The coverage of each life that changed since the last call.
    pub(super) fn take_changed(&mut self) -> Vec<Settled> {
        let changed: Vec<_> = self.changed.drain().collect();
        changed
            .into_iter()
            .filter_map(|(node, epoch)| {
                let coverage = self.nodes.get(&node)?.get(&epoch)?.coverage.clone();
                Some(Settled {
                    node,
                    epoch,
                    coverage,
                })
            })
            .collect()
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
        observe: impl FnOnce(&mut Coverage, SequenceRange) -> Observation,
    ) -> Noted {
        let max_ranges = self.config.max_ranges;
        let Some(life) = self.life(node, epoch) else {
            return Noted::Unaccounted;
        };
        life.last_arrival = Some(now);
        if !fits(&life.coverage, range, max_ranges) {
            return Noted::Unaccounted;
        }
        match observe(&mut life.coverage, range) {
            Observation::Duplicate => Noted::Duplicate,
            Observation::New(_) => {
                if !self.changed.contains(&(node.clone(), epoch)) {
                    self.changed.insert((node.clone(), epoch));
                }
                Noted::New
            }
        }
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
            self.changed.remove(&(node.clone(), oldest));
        }
        Some(lives.entry(epoch).or_default())
    }
}

impl Life {
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
        let [settled] = &ledger.take_changed()[..] else {
            panic!("one life changed");
        };
        let coverage = &settled.coverage;
        assert_eq!(
            (coverage.watermark(), coverage.dropped(), coverage.lost()),
            (10, 3, 5)
        );
        assert!(ledger.take_changed().is_empty());
    }

    #[test]
    fn goes_on_from_what_is_stored() {
        let mut before = ledger();
        arrive(&mut before, [1, 2, 3, 7], Instant::now());
        let mut ledger = Ledger::new(LedgerConfig::default(), before.take_changed());
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
        one.merge(&other.take_changed());
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
