//! Percentiles of durations in constant memory: 16 buckets for each power of two, so at most 6 % off.

use serde::Serialize;

const PER_OCTAVE: usize = 16;
const BUCKETS: usize = PER_OCTAVE * 61;

/// Percentiles, microseconds; all 0 where nothing was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// How many durations.
    pub count: u64,
    /// Half are at most this.
    pub p50_us: u64,
    /// Nine in ten.
    pub p90_us: u64,
    /// 99 in a hundred.
    pub p99_us: u64,
    /// The longest, exactly.
    pub max_us: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Latency {
    buckets: Vec<u64>,
    count: u64,
    max_us: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            count: 0,
            max_us: 0,
        }
    }
}

impl Latency {
    pub(super) fn add(&mut self, us: u64) {
        self.buckets[bucket_of(us)] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        Percentiles {
            count: self.count,
            p50_us: self.at(50),
            p90_us: self.at(90),
            p99_us: self.at(99),
            max_us: self.max_us,
        }
    }

    /// The upper end of the bucket in which the percentile lies.
    fn at(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= rank {
                return upper_end(index).min(self.max_us);
            }
        }
        0
    }
}

fn bucket_of(us: u64) -> usize {
    if us < PER_OCTAVE as u64 {
        return usize::try_from(us).unwrap_or(0);
    }
    let octave = us.ilog2() as usize;
    let within = usize::try_from(us >> (octave - 4)).unwrap_or(0) % PER_OCTAVE;
    (octave - 3) * PER_OCTAVE + within
}

fn upper_end(index: usize) -> u64 {
    if index < PER_OCTAVE {
        return index as u64;
    }
    let (octave, within) = (index / PER_OCTAVE + 3, (index % PER_OCTAVE) as u64);
    let width = 1u64 << (octave - 4);
    (16 + within) * width + (width - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    #[test]
    fn percentiles_of_a_straight_line() {
        let mut latency = Latency::default();
        (1..=10_000).for_each(|us| latency.add(us));
        let found = latency.percentiles();
        assert!((4_900..=5_350).contains(&found.p50_us), "{found:?}");
        assert!((9_800..=10_000).contains(&found.p99_us), "{found:?}");
        assert_eq!((found.count, found.max_us), (10_000, 10_000));
        assert_eq!(Latency::default().percentiles(), Percentiles::default());
    }

    proptest! {
        #[test]
        fn every_duration_lies_in_its_bucket(us in any::<u64>()) {
            let index = bucket_of(us);
            prop_assert!(index < BUCKETS);
            prop_assert!(us <= upper_end(index));
            prop_assert!(index == 0 || us > upper_end(index - 1));
        }
    }
}
