//! What the spool's limits removed before it was sent, kept for whoever asks later. Pure.
//!
//! The gap that says so is published once; a player that was not there then asks for the numbers again, and is
//! to hear that they were dropped, and why, not that nobody knows of them.

use std::collections::BTreeMap;

use super::ledger::Dropped;
use crate::record::{Coverage, Observation, SequenceRange};

/// How many ranges are remembered; of more the oldest life is forgotten, and its numbers are called gone.
const MAX_RANGES: usize = 1024;

/// Dropped ranges by epoch.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    lives: BTreeMap<u64, Coverage>,
}

impl GivenUp {
    /// Adds a range; tells how many of its numbers were not in there.
    pub(super) fn add(&mut self, (epoch, range): Dropped) -> u64 {
        let observed = self.lives.entry(epoch).or_default().observe(range);
        while self.all().nth(MAX_RANGES).is_some() && self.lives.len() > 1 {
            self.lives.pop_first();
        }
        if let Some(only) = self.lives.get_mut(&epoch)
            && only.above().len() > MAX_RANGES
        {
            let newest = &only.above()[only.above().len() - MAX_RANGES / 2..];
            *only = Coverage::restore(0, newest, 0, 0);
        }
        match observed {
            Observation::New(count) => count,
            Observation::Duplicate => 0,
        }
    }

    /// Every range, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = Dropped> + '_ {
        let lives = self.lives.iter();
        lives.flat_map(|(epoch, life)| life.ranges().map(move |range| (*epoch, range)))
    }

    /// The dropped ranges of which at least a part lies in `range`, whole and in order.
    pub(super) fn touching(&self, epoch: u64, range: SequenceRange) -> Vec<SequenceRange> {
        let life = self.lives.get(&epoch).into_iter();
        let touches =
            |known: &SequenceRange| known.first <= range.last && range.first <= known.last;
        life.flat_map(Coverage::ranges).filter(touches).collect()
    }

    /// The parts of `range` that were dropped, in order.
    pub(super) fn within(&self, epoch: u64, range: SequenceRange) -> Vec<SequenceRange> {
        let life = self.lives.get(&epoch).into_iter();
        let clipped = life
            .flat_map(Coverage::ranges)
            .map(|dropped| SequenceRange {
                first: dropped.first.max(range.first),
                last: dropped.last.min(range.last),
            });
        clipped.filter(|part| part.first <= part.last).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> SequenceRange {
        SequenceRange { first, last }
    }

    #[test]
    fn finds_the_dropped_parts_of_a_range() {
        let mut given_up = GivenUp::default();
        for part in [range(1, 4), range(5, 9), range(20, 30)] {
            given_up.add((7, part));
        }
        given_up.add((8, range(3, 3)));
        assert_eq!(
            given_up.within(7, range(8, 22)),
            [range(8, 9), range(20, 22)]
        );
        assert_eq!(
            given_up.touching(7, range(8, 22)),
            [range(1, 9), range(20, 30)]
        );
        assert_eq!(given_up.within(7, range(10, 19)), []);
        assert_eq!(given_up.touching(7, range(10, 19)), []);
        assert_eq!(given_up.within(6, range(1, 99)), []);
        assert_eq!(given_up.all().count(), 3);
    }

    #[test]
    fn remembers_a_bounded_number_of_ranges_and_the_newest() {
        let mut given_up = GivenUp::default();
        for epoch in [1, 2] {
            for first in (2..6 * MAX_RANGES as u64).step_by(2) {
                given_up.add((epoch, range(first, first)));
                assert!(given_up.all().count() <= MAX_RANGES + 1);
            }
        }
        assert_eq!(given_up.within(1, range(1, u64::MAX)), []);
        let last = 6 * MAX_RANGES as u64 - 2;
        assert_eq!(given_up.within(2, range(last, last)).len(), 1);
    }
}
