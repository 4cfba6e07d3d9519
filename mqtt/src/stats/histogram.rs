//! Times, counted in buckets of fixed size: 16 to each power of two, so that a value is known to within 1/16 of
//! itself over the whole range. Counting is one addition, without a lock and without an allocation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets to a power of two, as a power of two.
const FINE_BITS: u32 = 4;
const FINE: usize = 1 << FINE_BITS;
/// Longer times count as this, in powers of two of microseconds: 19 hours.
const RANGE_BITS: u32 = 36;
const BUCKETS: usize = FINE + (RANGE_BITS - FINE_BITS) as usize * FINE;

/// What the driver counts into.
#[derive(Debug)]
pub(crate) struct Recorder {
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

impl Recorder {
    pub(crate) fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let micros = micros.min((1 << RANGE_BITS) - 1);
        self.counts[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
        self.max.fetch_max(micros, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Histogram {
        let counts: Box<[u64]> = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        Histogram {
            count: counts.iter().sum(),
            counts,
            sum: self.sum.load(Ordering::Relaxed),
            max: self.max.load(Ordering::Relaxed),
        }
    }
}

/// The bucket of a time.
fn bucket(micros: u64) -> usize {
    let whole = usize::try_from(micros).unwrap_or(usize::MAX);
    if whole < FINE {
        return whole;
    }
    let shift = micros.ilog2() - FINE_BITS;
    (shift as usize) * FINE + (whole >> shift)
}

/// The longest time in a bucket, in microseconds.
fn upper_bound(bucket: usize) -> u64 {
    if bucket < FINE {
        return bucket as u64;
    }
    let shift = bucket / FINE - 1;
    let first = (FINE + bucket % FINE) as u64;
    ((first + 1) << shift) - 1
}

/// Times counted so far. Microseconds are the finest it knows; what it says is at most 1/16 too long.
///
/// ```
/// use std::time::Duration;
/// # use qproxy_mqtt::{MqttClient, MqttConfig};
///
/// let histogram = MqttClient::new(MqttConfig::default()).latencies().publish;
/// if let Some(p99) = histogram.quantile(0.99) {
///     println!("99 of 100 publishes took {p99:?} at most, the longest {:?}", histogram.max());
/// }
/// let counted: u64 = histogram.buckets().map(|(_, count)| count).sum();
/// assert_eq!(counted, histogram.count());
/// assert_eq!(histogram.sum(), Duration::ZERO, "nothing was published");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Histogram {
    /// How many times were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum)
    }

    /// The longest; zero where there is none.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max)
    }

    /// The time that a share `quantile` (0 to 1) of all did not exceed; `None` where there is none.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        let wanted = (quantile.clamp(0.0, 1.0) * self.count as f64)
            .ceil()
            .max(1.0);
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen as f64 >= wanted
        });
        let micros = upper_bound(reached.unwrap_or(BUCKETS - 1)).min(self.max);
        Some(Duration::from_micros(micros))
    }

    /// The buckets that are not empty, the shortest first: the longest time of each, and how many.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let bounds = (0..BUCKETS).map(|at| Duration::from_micros(upper_bound(at)));
        let all = bounds.zip(self.counts.iter().copied());
        all.filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(micros: impl IntoIterator<Item = u64>) -> Histogram {
        let recorder = Recorder::default();
        for micros in micros {
            recorder.record(Duration::from_micros(micros));
        }
        recorder.read()
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        assert_eq!(upper_bound(BUCKETS - 1), (1 << RANGE_BITS) - 1);
        for at in 0..BUCKETS {
            assert_eq!(bucket(upper_bound(at)), at);
            if at + 1 < BUCKETS {
                assert_eq!(bucket(upper_bound(at) + 1), at + 1);
            }
        }
    }

    proptest! {
        #[test]
        fn quantiles_are_never_too_short_and_at_most_a_sixteenth_too_long(
            mut times in prop::collection::vec(0_u64..1 << 40, 1..200),
            quantile in 0.0_f64..=1.0,
        ) {
            let histogram = of(times.iter().copied());
            times.iter_mut().for_each(|time| *time = (*time).min((1 << RANGE_BITS) - 1));
            times.sort_unstable();
            let rank = ((quantile * times.len() as f64).ceil() as usize).max(1);
            let exact = times[rank - 1];
            let said = histogram.quantile(quantile).unwrap().as_micros() as u64;
            prop_assert!(exact <= said && said <= exact + exact / 16 + 1, "{exact} {said}");
            prop_assert_eq!(histogram.count(), times.len() as u64);
            prop_assert_eq!(histogram.sum().as_micros() as u64, times.iter().sum::<u64>());
            prop_assert_eq!(histogram.buckets().map(|(_, count)| count).sum::<u64>(), histogram.count());
        }
    }

    #[test]
    fn nothing_counted_has_no_quantile_and_the_longest_time_is_exact() {
        assert_eq!(of([]).quantile(0.5), None);
        let histogram = of([1000, 1, 2]);
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_micros(1000)));
        assert_eq!(histogram.max(), Duration::from_micros(1000));
        assert_eq!(histogram.quantile(0.0), Some(Duration::from_micros(1)));
    }
}
