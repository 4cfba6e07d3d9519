//! When the next recorded request is due. Pure arithmetic: the caller brings the time.
//!
//! Distances come from the recorder's monotonic clock, one per recorder and epoch; wall clocks only place the
//! first record of each of them against the others.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Error;
use crate::record::{Epoch, NodeId, Origin, Timing};

/// How many recorder epochs keep a clock of their own; further ones go by their wall clock.
const MAX_CLOCKS: usize = 1024;
/// No request waits longer than this for its turn.
const MAX_WAIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How fast requests are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Speed {
    /// As fast as the concurrency limit allows.
    #[default]
    Max,
    /// With the recorded distances, divided by this: 2.0 is twice as fast.
    Factor(f64),
    /// So many requests per second, whatever was recorded.
    Rate(f64),
}

impl Speed {
    /// Checks the range: factors from 0.01 to 1000, rates from 0.001 to 1,000,000 per second.
    ///
    /// # Errors
    /// [`Error::Setting`] outside of it.
    pub fn check(self) -> Result<Self, Error> {
        let (value, range, rule) = match self {
            Self::Max => return Ok(self),
            Self::Factor(factor) => (factor, 0.01..=1000.0, "a factor lies from 0.01 to 1000"),
            Self::Rate(rate) => (rate, 0.001..=1e6, "a rate lies from 0.001 to 1000000"),
        };
        if range.contains(&value) {
            return Ok(self);
        }
        Err(Error::Setting {
            key: "speed",
            value: value.to_string(),
            rule,
        })
    }
}

/// The clock of one recorder epoch against the schedule's start.
#[derive(Debug)]
struct Clock {
    offset_us: u64,
    monotonic_us: u64,
}

/// Gives each request its time.
#[derive(Debug)]
pub(super) struct Schedule {
    speed: Speed,
    start: Instant,
    first_started_us: Option<i64>,
    clocks: HashMap<(NodeId, Epoch), Clock>,
    given: u64,
}

impl Schedule {
    pub(super) fn new(speed: Speed, start: Instant) -> Self {
        Self {
            speed,
            start,
            first_started_us: None,
            clocks: HashMap::new(),
            given: 0,
        }
    }

    /// When the next request is due; `None` where it need not wait.
    pub(super) fn due(&mut self, origin: &Origin, timing: &Timing) -> Option<Instant> {
        let seconds = match self.speed {
            Speed::Max => return None,
            Speed::Factor(factor) => self.offset_us(origin, timing) as f64 / 1e6 / factor,
            Speed::Rate(rate) => self.given as f64 / rate,
        };
        self.given += 1;
        let wait = Duration::from_secs_f64(seconds.min(MAX_WAIT.as_secs_f64()));
        Some(self.start + wait)
    }

    /// Microseconds between the first request and this one, as recorded.
    fn offset_us(&mut self, origin: &Origin, timing: &Timing) -> u64 {
        let first = *self.first_started_us.get_or_insert(timing.started_us);
        let by_wall = u64::try_from(timing.started_us.saturating_sub(first)).unwrap_or(0);
        let room = self.clocks.len() < MAX_CLOCKS;
        let key = (origin.node.clone(), origin.epoch);
        let clock = match self.clocks.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) if room => free.insert(Clock {
                offset_us: by_wall,
                monotonic_us: timing.monotonic_us,
            }),
            std::collections::hash_map::Entry::Vacant(_) => return by_wall,
        };
        let passed = timing.monotonic_us.saturating_sub(clock.monotonic_us);
        clock.offset_us.saturating_add(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Sequence;

    fn origin(node: &str) -> Origin {
        Origin {
            node: NodeId::new(node).unwrap(),
            epoch: Epoch(1),
            seq: Sequence(1),
        }
    }

    fn at(started_us: i64, monotonic_us: u64) -> Timing {
        Timing {
            started_us,
            monotonic_us,
            ..Timing::default()
        }
    }

    #[test]
    fn keeps_monotonic_distances_whatever_the_wall_clock_did() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Speed::Factor(2.0), start);
        let node = origin("a");
        assert_eq!(schedule.due(&node, &at(1_000_000, 500)), Some(start));
        // The wall clock was set back by an hour in between.
        let due = schedule.due(&node, &at(-3_599_000_000, 2_000_500));
        assert_eq!(due, Some(start + Duration::from_secs(1)));
    }

    #[test]
    fn places_a_second_recorder_by_its_wall_clock() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Speed::Factor(0.5), start);
        schedule.due(&origin("a"), &at(1_000_000, 77));
        let due = schedule.due(&origin("b"), &at(3_000_000, 5));
        assert_eq!(due, Some(start + Duration::from_secs(4)));
        let due = schedule.due(&origin("b"), &at(0, 1_000_005));
        assert_eq!(due, Some(start + Duration::from_secs(6)));
    }

    #[test]
    fn a_rate_spaces_evenly_and_max_does_not_wait() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Speed::Rate(4.0), start);
        let node = origin("a");
        let due: Vec<_> = (0..3).map(|_| schedule.due(&node, &at(0, 0))).collect();
        let quarter = Duration::from_millis(250);
        assert_eq!(
            due,
            [
                Some(start),
                Some(start + quarter),
                Some(start + quarter * 2)
            ]
        );
        assert_eq!(Schedule::new(Speed::Max, start).due(&node, &at(9, 9)), None);
    }

    #[test]
    fn absurd_times_neither_panic_nor_wait_for_ever() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Speed::Factor(0.01), start);
        schedule.due(&origin("a"), &at(i64::MIN, 0));
        let due = schedule.due(&origin("a"), &at(i64::MAX, u64::MAX));
        assert_eq!(due, Some(start + MAX_WAIT));
        for bad in [
            Speed::Factor(0.0),
            Speed::Factor(f64::NAN),
            Speed::Rate(-1.0),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(Speed::Factor(0.1).check().is_ok());
    }
}
