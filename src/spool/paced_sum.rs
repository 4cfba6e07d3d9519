//! A sum that is told at most once a second: what happens fifty times a second is one line in the log, not fifty.
//!
//! Pure: the time is handed in.

use std::time::{Duration, Instant};

/// How often the sum is told at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was not told yet.
#[derive(Debug, Default)]
pub(super) struct PacedSum {
    told: Option<Instant>,
    untold: u64,
}

impl PacedSum {
    /// Adds to the sum; gives it where it is time to tell it.
    pub(super) fn add(&mut self, count: u64, now: Instant) -> Option<u64> {
        self.untold = self.untold.saturating_add(count);
        self.due(now)
    }

    /// The sum, where there is one and it is time to tell it.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        let early = |told| now.duration_since(told) < INTERVAL;
        if self.untold == 0 || self.told.is_some_and(early) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }

    /// What is left, at the end.
    pub(super) fn rest(&mut self) -> Option<u64> {
        let rest = std::mem::take(&mut self.untold);
        (rest > 0).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_at_once_then_once_a_second_and_forgets_nothing() {
        let mut sum = PacedSum::default();
        let start = Instant::now();
        let told: Vec<_> = (0..150)
            .filter_map(|n| sum.add(2, start + Duration::from_millis(20 * n)))
            .collect();
        assert_eq!(told, [2, 100, 100]);
        assert_eq!(sum.due(start + Duration::from_millis(2990)), None);
        assert_eq!(sum.due(start + Duration::from_secs(3)), Some(98));
        assert_eq!(sum.due(start + Duration::from_secs(9)), None);
        assert_eq!(sum.add(1, start + Duration::from_secs(3)), None);
        assert_eq!((sum.rest(), sum.rest()), (Some(1), None));
    }
}
