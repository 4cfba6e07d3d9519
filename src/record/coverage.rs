//! Which places of a recorder's sequence have been accounted for: the player's proof of completeness.
//!
//! Everything up to the watermark is settled; above it stand the ranges that arrived early. What lies
//! between is missing, until it arrives, the recorder says that it dropped it, or nobody has it any more.

/// Consecutive sequence numbers, both ends included; `first <= last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SequenceRange {
    /// The first number.
    pub first: u64,
    /// The last number.
    pub last: u64,
}

impl SequenceRange {
    /// The range of `count` numbers from `first`; `None` where `count` is 0 or the end is past `u64`.
    #[must_use]
    pub fn spanning(first: u64, count: u64) -> Option<Self> {
        let last = first.checked_add(count.checked_sub(1)?)?;
        Some(Self { first, last })
    }

    /// How many numbers it holds.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.last - self.first + 1
    }
}

/// What an arrival was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// At least one of its numbers was not settled before: how many.
    New(u64),
    /// All of it was known.
    Duplicate,
}

/// The settled part of one recorder epoch's sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    watermark: u64,
    above: Vec<SequenceRange>,
    dropped: u64,
    lost: u64,
}

impl Coverage {
    /// Rebuilds a stored coverage; ranges that overlap or lie under the watermark are merged.
    #[must_use]
    pub fn restore(watermark: u64, above: &[SequenceRange], dropped: u64, lost: u64) -> Self {
        let mut coverage = Self {
            watermark,
            above: Vec::new(),
            dropped,
            lost,
        };
        for range in above {
            coverage.observe(*range);
        }
        coverage
    }

    /// All numbers up to this one are settled; 0 where none is.
    #[must_use]
    pub const fn watermark(&self) -> u64 {
        self.watermark
    }

    /// The settled ranges above the watermark, in order.
    #[must_use]
    pub fn above(&self) -> &[SequenceRange] {
        &self.above
    }

    /// All settled ranges, in order.
    pub fn ranges(&self) -> impl Iterator<Item = SequenceRange> + '_ {
        let below = SequenceRange::spanning(1, self.watermark);
        below.into_iter().chain(self.above.iter().copied())
    }

    /// Numbers that the recorder said it dropped.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Numbers that nobody has any more.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// The largest settled number.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.above.last().map_or(self.watermark, |range| range.last)
    }

    /// Settles a range that arrived.
    pub fn observe(&mut self, range: SequenceRange) -> Observation {
        match self.settle(range) {
            0 => Observation::Duplicate,
            new => Observation::New(new),
        }
    }

    /// Settles a range that the recorder dropped; tells how many numbers were not settled before.
    pub fn observe_dropped(&mut self, range: SequenceRange) -> u64 {
        let new = self.settle(range);
        self.dropped += new;
        new
    }

    /// Settles a range that cannot be had any more; tells how many numbers were not settled before.
    pub fn observe_lost(&mut self, range: SequenceRange) -> u64 {
        let new = self.settle(range);
        self.lost += new;
        new
    }

    /// The ranges under `highest` that are not settled, at most `limit` of them, lowest first.
    ///
    /// `highest` is the largest number known to have been given out; where it is under
    /// [`Coverage::highest`], that one counts.
    #[must_use]
    pub fn missing(&self, highest: u64, limit: usize) -> Vec<SequenceRange> {
        let mut next = self.watermark + 1;
        let mut missing = Vec::new();
        let end = highest.max(self.highest());
        let sentinel = end
            .checked_add(1)
            .map(|first| SequenceRange { first, last: first });
        for range in self.above.iter().copied().chain(sentinel) {
            if missing.len() == limit {
                break;
            }
            if range.first > next {
                missing.push(SequenceRange {
                    first: next,
                    last: range.first - 1,
                });
            }
            next = next.max(range.last.saturating_add(1));
        }
        missing
    }

    /// How many numbers under `highest` are not settled.
    #[must_use]
    pub fn missing_count(&self, highest: u64) -> u64 {
        let settled_above: u64 = self.above.iter().map(|range| range.count()).sum();
        highest.max(self.highest()) - self.watermark - settled_above
    }

    /// The parts of a range that are not settled, in order.
    #[must_use]
    pub fn unsettled(&self, range: SequenceRange) -> Vec<SequenceRange> {
        let mut next = range.first.max(self.watermark.saturating_add(1));
        let mut parts = Vec::new();
        let from = self.above.partition_point(|r| r.last < next);
        let until = |end: u64| SequenceRange {
            first: end,
            last: end,
        };
        let end = range.last.checked_add(1).map(until);
        for known in self.above[from..].iter().copied().chain(end) {
            let last = known.first.saturating_sub(1).min(range.last);
            if next <= last {
                parts.push(SequenceRange { first: next, last });
            }
            next = next.max(known.last.saturating_add(1));
            if next > range.last {
                break;
            }
        }
        parts
    }

    fn settle(&mut self, range: SequenceRange) -> u64 {
        let first = range.first.max(self.watermark + 1);
        if range.last < first {
            return 0;
        }
        let mut merged = SequenceRange {
            first,
            last: range.last,
        };
        // Ranges that touch the new one: [from, to).
        let from = self
            .above
            .partition_point(|r| r.last.saturating_add(1) < first);
        let to = self
            .above
            .partition_point(|r| r.first <= range.last.saturating_add(1));
        let mut known = 0;
        for old in &self.above[from..to] {
            let (low, high) = (old.first.max(first), old.last.min(range.last));
            known += if low <= high { high - low + 1 } else { 0 };
            merged.first = merged.first.min(old.first);
            merged.last = merged.last.max(old.last);
        }
        let new = (range.last - first + 1) - known;
        if merged.first == self.watermark + 1 {
            self.watermark = merged.last;
            self.above.drain(..to);
        } else {
            self.above.splice(from..to, [merged]);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{prop, prop_assert_eq, proptest};

    use super::*;

    fn range(first: u64, last: u64) -> SequenceRange {
        SequenceRange { first, last }
    }

    #[test]
    fn in_order_arrivals_only_move_the_watermark() {
        let mut coverage = Coverage::default();
        for seq in 1..=1000 {
            assert_eq!(coverage.observe(range(seq, seq)), Observation::New(1));
        }
        assert_eq!((coverage.watermark(), coverage.above().len()), (1000, 0));
        assert_eq!(coverage.observe(range(7, 7)), Observation::Duplicate);
    }

    #[test]
    fn early_arrivals_leave_a_gap_that_is_named() {
        let mut coverage = Coverage::default();
        coverage.observe(range(1, 3));
        coverage.observe(range(6, 6));
        coverage.observe(range(9, 9));
        assert_eq!(coverage.missing(0, 10), [range(4, 5), range(7, 8)]);
        assert_eq!(
            coverage.missing(12, 10),
            [range(4, 5), range(7, 8), range(10, 12)]
        );
        assert_eq!(coverage.missing(12, 1), [range(4, 5)]);
        assert_eq!(coverage.missing_count(12), 7);
        assert_eq!(coverage.observe_dropped(range(4, 5)), 2);
        assert_eq!(coverage.observe_lost(range(6, 8)), 2);
        assert_eq!(
            (coverage.watermark(), coverage.dropped(), coverage.lost()),
            (9, 2, 2)
        );
    }

    #[test]
    fn survives_the_ends_of_the_number_line() {
        let mut coverage = Coverage::default();
        assert_eq!(
            coverage.observe(range(u64::MAX, u64::MAX)),
            Observation::New(1)
        );
        assert_eq!(coverage.missing(0, 4), [range(1, u64::MAX - 1)]);
        assert_eq!(coverage.observe(range(0, 0)), Observation::Duplicate);
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(arrivals in prop::collection::vec((1u64..80, 1u64..12), 0..60)) {
            let mut coverage = Coverage::default();
            let mut model = BTreeSet::new();
            for (first, count) in arrivals {
                let arrival = SequenceRange::spanning(first, count).unwrap();
                let parts = coverage.unsettled(arrival);
                let parts: Vec<u64> = parts.iter().flat_map(|r| r.first..=r.last).collect();
                let unknown = (arrival.first..=arrival.last).filter(|n| !model.contains(n));
                prop_assert_eq!(parts, unknown.collect::<Vec<_>>());
                let new = (arrival.first..=arrival.last).filter(|n| model.insert(*n)).count() as u64;
                let seen = match coverage.observe(arrival) {
                    Observation::New(count) => count,
                    Observation::Duplicate => 0,
                };
                prop_assert_eq!(seen, new);
            }
            let highest = model.last().copied().unwrap_or(0);
            prop_assert_eq!(coverage.highest(), highest);
            let missing: Vec<u64> =
                coverage.missing(0, usize::MAX).iter().flat_map(|r| r.first..=r.last).collect();
            let expected: Vec<u64> = (1..=highest).filter(|n| !model.contains(n)).collect();
            prop_assert_eq!(coverage.missing_count(0), expected.len() as u64);
            prop_assert_eq!(missing, expected);
            let again = Coverage::restore(coverage.watermark(), coverage.above(), 0, 0);
            prop_assert_eq!(again, coverage);
        }
    }
}
