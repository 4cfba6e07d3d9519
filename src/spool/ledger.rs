//! Which numbers were given out, acknowledged or dropped: the accounts of the spool. Pure.

use std::collections::{BTreeMap, BTreeSet};

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

/// How far the broker has one life, and how far a player said to have it.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    acknowledged: u64,
    confirmed: u64,
}

/// The epochs that are not wholly acknowledged, and the present one.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    lives: BTreeMap<u64, Life>,
    /// Of all lives of which something was sent and is still in the log.
    sent: BTreeMap<u64, Sent>,
    acknowledged: Key,
    unlinked: Key,
    /// How often a player said that it has more.
    confirmations: u64,
    /// All that was ever dropped, acknowledged or not.
    given_up: GivenUp,
    /// What left the spool while the publisher or the broker held it and no player had said that it has it: dropped as well,
    /// if a player turns out to lack it. That the broker took it is no proof, since brokers drop without a word.
    unsure: GivenUp,
}

/// What changes the accounts between two runs of expiry; equal where nothing did.
pub(super) type Progress = (Key, u64);

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

    /// Takes over what was saved of what left the spool unconfirmed, and of how far the broker and players have each life.
    pub(super) fn restore_sent(&mut self, unsure: &[Dropped], sent: &[(u64, u64, u64)]) {
        for range in unsure {
            self.unsure.add(*range);
        }
        for &(epoch, acknowledged, confirmed) in sent {
            let life = Sent {
                acknowledged,
                confirmed,
            };
            self.sent.insert(epoch, life);
        }
        self.forget_oldest_sent();
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
        let rest = self.lives.split_off(&key.0);
        let whole = std::mem::replace(&mut self.lives, rest);
        let whole = whole.into_iter().map(|(epoch, life)| (epoch, life.highest));
        for (epoch, seq) in whole.chain([self.acknowledged]) {
            self.sent.entry(epoch).or_default().acknowledged = seq;
        }
        self.forget_oldest_sent();
        true
    }

    /// A player has settled everything up to `key` of this one life, which is known to exist.
    pub(super) fn confirm(&mut self, (epoch, seq): Key) {
        let sent = self.sent.entry(epoch).or_default();
        if sent.confirmed < seq {
            sent.confirmed = seq;
            self.confirmations += 1;
        }
        self.forget_oldest_sent();
    }

    fn confirmed(&self, epoch: u64) -> u64 {
        self.sent.get(&epoch).map_or(0, |sent| sent.confirmed)
    }

    fn forget_oldest_sent(&mut self) {
        while self.sent.len() > MAX_LIVES {
            self.sent.pop_first();
        }
    }

    /// See [`Progress`].
    pub(super) const fn progress(&self) -> Progress {
        (self.acknowledged, self.confirmations)
    }

    /// Epoch, and up to where the broker and a player have it.
    pub(super) fn sent(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let lives = self.sent.iter();
        lives.map(|(epoch, sent)| (*epoch, sent.acknowledged, sent.confirmed))
    }

    /// What left the spool without a player's word.
    pub(super) const fn unsure(&self) -> &GivenUp {
        &self.unsure
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
    /// dropped after all, but for what a player said to have; tells which ranges.
    pub(super) fn take_back(&mut self) -> Vec<Dropped> {
        for life in self.lives.values_mut() {
            life.given_out = 0;
        }
        self.acknowledge_removed();
        self.drop_before(Some((self.unlinked.0, self.unlinked.1.saturating_add(1))))
    }

    /// What is there no more and a player has counts as acknowledged, as far as nothing that is still there lies before it.
    fn acknowledge_removed(&mut self) {
        let lives: Vec<Key> = self.lives().collect();
        for (epoch, highest) in lives {
            let removed = match epoch.cmp(&self.unlinked.0) {
                std::cmp::Ordering::Less => highest,
                std::cmp::Ordering::Equal => highest.min(self.unlinked.1),
                std::cmp::Ordering::Greater => return,
            };
            let settled = removed.min(self.confirmed(epoch));
            if settled > 0 {
                self.acknowledge((epoch, settled));
            }
            if settled < highest {
                return;
            }
        }
    }

    /// What was dropped, ever.
    pub(super) const fn given_up(&self) -> &GivenUp {
        &self.given_up
    }

    /// Everything before `key`, or everything there is, leaves the spool. What was not given out is dropped;
    /// tells which ranges.
    pub(super) fn unlink_before(&mut self, key: Option<Key>) -> Vec<Dropped> {
        for range in self.unconfirmed_before(key) {
            self.unsure.add(range);
        }
        self.unlinked = self.unlinked.max(self.last_before(key));
        // Nothing is left of the others.
        let (lives, oldest) = (&self.lives, self.unlinked.0);
        self.sent
            .retain(|epoch, _| *epoch >= oldest || lives.contains_key(epoch));
        self.drop_before(key)
    }

    /// What of all that is still there and lies before `key` the publisher or the broker took, and no player said to have.
    pub(super) fn unconfirmed_before(&self, key: Option<Key>) -> Vec<Dropped> {
        let last = self.last_before(key);
        let known = self.lives.range(..=last.0).map(|(epoch, _)| *epoch);
        let sent = self.sent.range(..=last.0).map(|(epoch, _)| *epoch);
        let epochs: BTreeSet<u64> = known.chain(sent).collect();
        let ranges = epochs.into_iter().filter_map(|epoch| {
            let sent = self.sent.get(&epoch).copied().unwrap_or_default();
            let given_out = self.lives.get(&epoch).map_or(0, |life| life.given_out);
            let gone = match epoch.cmp(&self.unlinked.0) {
                std::cmp::Ordering::Less => return None,
                std::cmp::Ordering::Equal => self.unlinked.1,
                std::cmp::Ordering::Greater => 0,
            };
            let end = if epoch == last.0 { last.1 } else { u64::MAX };
            let first = sent.confirmed.max(gone) + 1;
            let last = sent.acknowledged.max(given_out).min(end);
            (first <= last).then_some((epoch, SequenceRange { first, last }))
        });
        ranges.collect()
    }

    fn last_before(&self, key: Option<Key>) -> Key {
        match key {
            Some((epoch, seq)) => (epoch, seq.saturating_sub(1)),
            None => self.lives().last().unwrap_or_default(),
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
    fn what_only_the_broker_has_is_dropped_if_somebody_lacks_it() {
        let mut ledger = with(&[(5, 10), (7, 100)]);
        ledger.acknowledge((7, 40));
        ledger.confirm((5, 8));
        ledger.confirm((7, 15));
        ledger.confirm((7, 12));
        assert_eq!(
            ledger.unconfirmed_before(Some((7, 31))),
            [(5, range(9, 10)), (7, range(16, 30))]
        );
        assert_eq!(ledger.unlink_before(Some((7, 31))), []);
        // Nobody asked yet, and it may have arrived.
        assert_eq!(ledger.given_up().all().count(), 0);
        assert_eq!(ledger.unconfirmed_before(Some((7, 31))), []);
        assert_eq!(ledger.lacked(5, range(7, 9)), (vec![range(9, 9)], 1));
        assert_eq!(ledger.lacked(7, range(10, 20)), (vec![range(16, 20)], 5));
        assert_eq!(ledger.lacked(7, range(10, 20)), (vec![range(16, 20)], 0));
        assert_eq!(ledger.sent().collect::<Vec<_>>(), [(7, 40, 15)]);
    }

    #[test]
    fn new_reader_does_not_count_as_dropped_what_a_player_has() {
        let mut ledger = with(&[(5, 10), (7, 100)]);
        ledger.give_out_before((7, 51));
        for confirmed in [(5, 10), (7, 20)] {
            ledger.confirm(confirmed);
        }
        ledger.unlink_before(Some((7, 31)));
        assert_eq!(ledger.take_back(), [(7, range(21, 30))]);
        assert_eq!(ledger.acknowledged(), (7, 20));
        // What is still there is given out again, whoever has it.
        ledger.confirm((7, 60));
        assert_eq!(ledger.take_back(), []);
        assert_eq!(ledger.oldest_unsent(), Some((7, 31)));
    }

    #[test]
    fn lives_that_are_told_apart_are_bounded() {
        let mut ledger = with(&[(7, 100)]);
        for epoch in 0..3000 {
            ledger.confirm((epoch, 1));
        }
        assert_eq!(ledger.sent().count(), MAX_LIVES);
        assert_eq!(ledger.sent().last(), Some((2999, 0, 1)));
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
