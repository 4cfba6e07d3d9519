//! Which numbers were given out, acknowledged or dropped: the accounts of the spool. Pure.

use std::collections::BTreeMap;

use super::given_up::GivenUp;
use super::message::Key;
use crate::record::{Coverage, SequenceRange};

/// How many lives of a recorder are told apart; of more without any acknowledgement the oldest is forgotten.
const MAX_LIVES: usize = 1024;

/// One epoch.
#[derive(Debug, Default)]
struct Life {
    highest: u64,
    acknowledged: u64,
    given_out: u64,
    /// What was acknowledged or dropped; dropped is what lies above `acknowledged`.
    settled: Coverage,
}

impl Life {
    fn acknowledge(&mut self, seq: u64) {
        self.acknowledged = self.acknowledged.max(seq.min(self.highest));
        if let Some(range) = SequenceRange::spanning(1, self.acknowledged) {
            self.settled.observe(range);
        }
    }

    /// The dropped ranges above what is acknowledged, in order.
    fn dropped(&self) -> impl Iterator<Item = SequenceRange> + '_ {
        let first = SequenceRange {
            first: self.acknowledged + 1,
            last: self.settled.watermark(),
        };
        let first = (first.first <= first.last).then_some(first);
        first
            .into_iter()
            .chain(self.settled.above().iter().copied())
    }

    fn unsent(&self) -> u64 {
        let dropped: u64 = self.dropped().map(SequenceRange::count).sum();
        (self.highest - self.acknowledged).saturating_sub(dropped)
    }
}

/// A dropped range of an epoch.
pub(super) type Dropped = (u64, SequenceRange);

/// The epochs that are not wholly acknowledged, and the present one.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    lives: BTreeMap<u64, Life>,
    acknowledged: Key,
    unlinked: Key,
    /// All that was ever dropped, acknowledged or not.
    given_up: GivenUp,
    /// What left the spool while the publisher held it: dropped as well, if a player turns out to lack it.
    unsure: GivenUp,
}

impl Ledger {
    /// The accounts as they were saved; `given_up` is what was dropped and is acknowledged.
    pub(super) fn restore(
        acknowledged: Key,
        unlinked: Key,
        dropped: &[Dropped],
        given_up: &[Dropped],
    ) -> Self {
        let mut ledger = Self {
            unlinked,
            ..Self::default()
        };
        for range in given_up.iter().chain(dropped) {
            ledger.given_up.add(*range);
        }
        for (epoch, range) in dropped {
            ledger.reached((*epoch, range.last));
            if let Some(life) = ledger.lives.get_mut(epoch) {
                life.settled.observe_dropped(*range);
            }
        }
        if acknowledged > (0, 0) {
            ledger.reached(acknowledged);
            ledger.acknowledge(acknowledged);
        }
        ledger
    }

    /// The largest place that exists in an epoch so far.
    pub(super) fn reached(&mut self, (epoch, seq): Key) {
        let life = self.lives.entry(epoch).or_default();
        life.highest = life.highest.max(seq);
        while self.lives.len() > MAX_LIVES {
            self.lives.pop_first();
        }
    }

    /// The largest place of every epoch.
    pub(super) fn lives(&self) -> impl Iterator<Item = Key> + '_ {
        self.lives
            .iter()
            .map(|(epoch, life)| (*epoch, life.highest))
    }

    pub(super) fn highest(&self, epoch: u64) -> Option<u64> {
        self.lives.get(&epoch).map(|life| life.highest)
    }

    /// Everything up to `key` was delivered; tells whether that is news.
    pub(super) fn acknowledge(&mut self, key: Key) -> bool {
        let Some(life) = self.lives.get_mut(&key.0) else {
            return false;
        };
        if key <= self.acknowledged {
            return false;
        }
        life.acknowledge(key.1);
        self.acknowledged = (key.0, life.acknowledged);
        self.lives = self.lives.split_off(&key.0);
        true
    }

    pub(super) const fn acknowledged(&self) -> Key {
        self.acknowledged
    }

    pub(super) const fn unlinked(&self) -> Key {
        self.unlinked
    }

    /// Everything before `key` is the publisher's now.
    pub(super) fn give_out_before(&mut self, (epoch, seq): Key) {
        for (_, life) in self.lives.range_mut(..epoch) {
            life.given_out = life.highest;
        }
        if let Some(life) = self.lives.get_mut(&epoch) {
            life.given_out = life.given_out.max(seq.saturating_sub(1));
        }
    }

    /// The reader starts again at the acknowledged place. What was given out before and unlinked since is
    /// dropped after all; tells which ranges.
    pub(super) fn take_back(&mut self) -> Vec<Dropped> {
        for life in self.lives.values_mut() {
            life.given_out = 0;
        }
        self.drop_before(Some((self.unlinked.0, self.unlinked.1.saturating_add(1))))
    }

    /// What was dropped, ever.
    pub(super) const fn given_up(&self) -> &GivenUp {
        &self.given_up
    }

    /// Everything before `key`, or everything there is, leaves the spool. What was not given out is dropped;
    /// tells which ranges.
    pub(super) fn unlink_before(&mut self, key: Option<Key>) -> Vec<Dropped> {
        for range in self.held_before(key) {
            self.unsure.add(range);
        }
        self.unlinked = self.unlinked.max(self.last_before(key));
        self.drop_before(key)
    }

    /// What the publisher holds of what lies before `key`, or of everything.
    pub(super) fn held_before(&self, key: Option<Key>) -> Vec<Dropped> {
        let last = self.last_before(key);
        let lives = self.lives.range(..=last.0);
        let held = lives.filter_map(|(epoch, life)| {
            let end = if *epoch == last.0 { last.1 } else { u64::MAX };
            let (first, last) = (life.acknowledged + 1, life.given_out.min(end));
            (first <= last).then_some((*epoch, SequenceRange { first, last }))
        });
        held.collect()
    }

    fn last_before(&self, key: Option<Key>) -> Key {
        match key {
            Some((epoch, seq)) => (epoch, seq.saturating_sub(1)),
            None => {
                let last = self.lives.last_key_value();
                last.map_or((0, 0), |(epoch, life)| (*epoch, life.highest))
            }
        }
    }

    /// Somebody lacks these numbers, which are not there: the dropped ranges they lie in, as far as these go, and how many
    /// numbers were not counted as dropped before.
    pub(super) fn lacked(&mut self, epoch: u64, range: SequenceRange) -> (Vec<SequenceRange>, u64) {
        let unsure = self.unsure.within(epoch, range);
        let new = unsure
            .into_iter()
            .map(|part| self.given_up.add((epoch, part)));
        let new = new.sum();
        (self.given_up.touching(epoch, range), new)
    }

    /// Numbers that held no copies and are counted elsewhere.
    pub(super) fn never_there(&mut self, range: Dropped) {
        self.given_up.add(range);
    }

    fn drop_before(&mut self, key: Option<Key>) -> Vec<Dropped> {
        let mut dropped = Vec::new();
        for (epoch, life) in &mut self.lives {
            let last = match key {
                Some((until, _)) if *epoch > until => break,
                Some((until, seq)) if *epoch == until => seq.saturating_sub(1).min(life.highest),
                _ => life.highest,
            };
            let mut next = life.acknowledged.max(life.given_out) + 1;
            // Only what was not dropped before is news.
            let known: Vec<SequenceRange> = life.dropped().collect();
            let end = SequenceRange {
                first: last.saturating_add(1),
                last: u64::MAX,
            };
            for range in known.into_iter().chain([end]) {
                let until = range.first.saturating_sub(1).min(last);
                if next <= until {
                    let new = SequenceRange {
                        first: next,
                        last: until,
                    };
                    life.settled.observe_dropped(new);
                    dropped.push((*epoch, new));
                }
                next = next.max(range.last.saturating_add(1));
            }
        }
        for range in &dropped {
            self.given_up.add(*range);
        }
        dropped
    }

    /// The dropped ranges from one place up to before another, or to the end.
    pub(super) fn dropped_between(&self, from: Key, to: Option<Key>) -> Vec<Dropped> {
        let mut found = Vec::new();
        for (epoch, life) in self.lives.range(from.0..) {
            let (mut low, mut high) = (1, u64::MAX);
            if *epoch == from.0 {
                low = from.1;
            }
            match to {
                Some((until, _)) if *epoch > until => break,
                Some((until, seq)) if *epoch == until => high = seq.saturating_sub(1),
                _ => {}
            }
            let clipped = life.dropped().map(|range| SequenceRange {
                first: range.first.max(low),
                last: range.last.min(high),
            });
            let whole = clipped.filter(|range| range.first <= range.last);
            found.extend(whole.map(|range| (*epoch, range)));
        }
        found
    }

    /// Whether a place was dropped.
    pub(super) fn is_dropped(&self, (epoch, seq): Key) -> bool {
        let mut ranges = self.lives.get(&epoch).into_iter().flat_map(Life::dropped);
        ranges.any(|range| (range.first..=range.last).contains(&seq))
    }

    pub(super) fn unsent(&self) -> u64 {
        self.lives.values().map(Life::unsent).sum()
    }

    /// The first place that is neither acknowledged nor dropped.
    pub(super) fn oldest_unsent(&self) -> Option<Key> {
        self.lives.iter().find_map(|(epoch, life)| {
            let mut next = life.acknowledged + 1;
            for range in life.dropped() {
                if next < range.first {
                    break;
                }
                next = range.last.saturating_add(1);
            }
            (next <= life.highest).then_some((*epoch, next))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> SequenceRange {
        SequenceRange { first, last }
    }

    fn with(lives: &[Key]) -> Ledger {
        let mut ledger = Ledger::default();
        for key in lives {
            ledger.reached(*key);
        }
        ledger
    }

    #[test]
    fn drops_only_what_was_not_given_out() {
        let mut ledger = with(&[(7, 100)]);
        ledger.acknowledge((7, 10));
        ledger.give_out_before((7, 31));
        assert_eq!(ledger.unlink_before(Some((7, 51))), [(7, range(31, 50))]);
        assert_eq!(ledger.unlink_before(Some((7, 61))), [(7, range(51, 60))]);
        assert_eq!(ledger.unlink_before(Some((7, 61))), []);
        assert_eq!(ledger.unsent(), 100 - 10 - 30);
        assert_eq!(
            ledger.dropped_between((7, 31), Some((7, 61))),
            [(7, range(31, 60))]
        );
        assert!(ledger.is_dropped((7, 31)) && !ledger.is_dropped((7, 30)));
    }

    #[test]
    fn new_reader_finds_what_was_given_out_and_unlinked_dropped() {
        let mut ledger = with(&[(7, 100)]);
        ledger.acknowledge((7, 10));
        ledger.give_out_before((7, 31));
        ledger.unlink_before(Some((7, 51)));
        assert_eq!(ledger.take_back(), [(7, range(11, 30))]);
        assert_eq!(ledger.take_back(), []);
        assert_eq!(ledger.dropped_between((7, 11), None), [(7, range(11, 50))]);
        assert_eq!(ledger.oldest_unsent(), Some((7, 51)));
    }

    #[test]
    fn hole_that_no_limit_made_is_not_called_dropped() {
        let mut ledger = with(&[(7, 100)]);
        assert_eq!(ledger.take_back(), []);
    }

    #[test]
    fn everything_of_several_epochs_can_go() {
        let mut ledger = with(&[(5, 10), (7, 20)]);
        ledger.acknowledge((5, 4));
        assert_eq!(
            ledger.unlink_before(None),
            [(5, range(5, 10)), (7, range(1, 20))]
        );
        assert_eq!((ledger.unsent(), ledger.oldest_unsent()), (0, None));
        assert_eq!(ledger.dropped_between((5, 5), None).len(), 2);
        ledger.acknowledge((7, 20));
        assert_eq!(ledger.dropped_between((0, 0), None), []);
    }

    #[test]
    fn acknowledgement_never_moves_back_nor_past_what_exists() {
        let mut ledger = with(&[(5, 10), (7, 20)]);
        assert!(ledger.acknowledge((7, 500)));
        assert_eq!(ledger.acknowledged(), (7, 20));
        assert!(!ledger.acknowledge((5, 3)));
        assert!(!ledger.acknowledge((9, 1)));
        assert_eq!(ledger.highest(5), None);
    }

    #[test]
    fn restored_ledger_knows_what_it_knew() {
        let ledger = Ledger::restore(
            (5, 3),
            (7, 9),
            &[(5, range(4, 8)), (7, range(1, 9))],
            &[(5, range(1, 2))],
        );
        assert_eq!(
            ledger.dropped_between((5, 4), None),
            [(5, range(4, 8)), (7, range(1, 9))]
        );
        assert_eq!((ledger.acknowledged(), ledger.unlinked()), ((5, 3), (7, 9)));
        assert_eq!(
            ledger.given_up().all().collect::<Vec<_>>(),
            [(5, range(1, 2)), (5, range(4, 8)), (7, range(1, 9))]
        );
    }
}
